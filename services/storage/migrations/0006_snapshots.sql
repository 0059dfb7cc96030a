-- Snapshots of volumes, on secondary storage. `state`: Allocated (its job waits), Creating, BackingUp (a host copies), BackedUp,
-- Error, Destroyed (removed). `kind`: MANUAL. `size` is that of the disk, `physical_size` the file's, once it is there.
-- `held_bytes`: what it counts against its owner's secondary storage. `store_id`, `path`: where it is, or comes to be; a path
-- is used once. `host_id`: who works, or worked, on it; hosts of `hypervisor` can read and delete it. `changed`: UTC µs, with
-- every write.
CREATE TABLE IF NOT EXISTS snapshots (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  zone_id BIGINT NOT NULL,
  volume_id BIGINT NOT NULL,
  kind VARCHAR(16) NOT NULL,
  state VARCHAR(32) NOT NULL,
  size BIGINT NOT NULL,
  physical_size BIGINT NOT NULL,
  held_bytes BIGINT NOT NULL,
  hypervisor VARCHAR(32) NOT NULL,
  format VARCHAR(16) NOT NULL,
  store_id BIGINT NOT NULL,
  path VARCHAR(255) NOT NULL UNIQUE,
  host_id BIGINT,
  content_sum VARCHAR(255),
  created BIGINT NOT NULL,
  changed BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX snapshots_live ON snapshots (removed, id);
CREATE INDEX snapshots_account ON snapshots (account_id, removed, id);
CREATE INDEX snapshots_domain ON snapshots (domain_path, removed, id);
CREATE INDEX snapshots_volume ON snapshots (volume_id, removed);
CREATE INDEX snapshots_store ON snapshots (store_id, removed);
-- The snapshot that a volume was made from.
ALTER TABLE volumes ADD COLUMN snapshot_id BIGINT;
