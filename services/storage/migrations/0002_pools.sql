-- Primary storage. `live_key` is the target (type, host, path) while the pool lives.
-- Bytes: `capacity_bytes` is what the device has, `used_bytes` what the device says is used, `allocated_bytes` what Arcus has
-- promised: the sizes of the living volumes with this pool_id plus the sizes of its template_pool_refs. Promises are made by
--   UPDATE storage_pools SET allocated_bytes = allocated_bytes + ?
--   WHERE id = ? AND state = 'Up' AND allocated_bytes + ? <= capacity_bytes * overcommit * threshold
-- `overcommit` follows storage.overprovisioning.factor (1 for pool types that can't over-provision).
-- Scope: CLUSTER (pod_id, cluster_id set), ZONE, HOST (local storage: host_id set too). `tags` are comma-separated.
CREATE TABLE IF NOT EXISTS storage_pools (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(512) UNIQUE,
  pool_type VARCHAR(32) NOT NULL,
  host_address VARCHAR(255) NOT NULL,
  path VARCHAR(255) NOT NULL,
  zone_id BIGINT NOT NULL,
  pod_id BIGINT,
  cluster_id BIGINT,
  host_id BIGINT,
  scope VARCHAR(16) NOT NULL,
  hypervisor VARCHAR(32),
  provider VARCHAR(64) NOT NULL,
  state VARCHAR(32) NOT NULL,
  capacity_bytes BIGINT NOT NULL,
  used_bytes BIGINT NOT NULL,
  allocated_bytes BIGINT NOT NULL,
  capacity_iops BIGINT,
  overcommit DOUBLE NOT NULL,
  tags VARCHAR(4096) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX storage_pools_cluster ON storage_pools (cluster_id, removed);
CREATE INDEX storage_pools_zone ON storage_pools (zone_id, removed);
-- Hosts that have said that they reach a pool.
CREATE TABLE IF NOT EXISTS pool_hosts (
  pool_id BIGINT NOT NULL,
  host_id BIGINT NOT NULL,
  local_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (pool_id, host_id)
);
CREATE INDEX pool_hosts_host ON pool_hosts (host_id);
-- Bytes that are to be deleted although no host could do it at the time. The pool's counter has been given back already.
-- A path is chosen anew whenever a volume is put on a pool, so it names these bytes and no others. Drained by the cleaner;
-- `not_before` rises with every failed try.
CREATE TABLE IF NOT EXISTS pending_deletions (
  path VARCHAR(255) NOT NULL PRIMARY KEY,
  volume_uuid VARCHAR(40) NOT NULL,
  pool_id BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  not_before BIGINT NOT NULL,
  last_error TEXT,
  created BIGINT NOT NULL
);
CREATE INDEX pending_deletions_due ON pending_deletions (not_before);
CREATE INDEX pending_deletions_pool ON pending_deletions (pool_id);
