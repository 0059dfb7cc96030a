-- Machines. `live_key` is the guid while the host lives. `conn_epoch` rises with every connection of its agent;
-- `hub` names the replica that holds the connection.
CREATE TABLE IF NOT EXISTS hosts (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(255) UNIQUE,
  guid VARCHAR(255) NOT NULL,
  url VARCHAR(255) NOT NULL,
  cluster_id BIGINT NOT NULL,
  pod_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  hypervisor VARCHAR(32) NOT NULL,
  hypervisor_version VARCHAR(64),
  version VARCHAR(64),
  status VARCHAR(32) NOT NULL,
  resource_state VARCHAR(32) NOT NULL,
  ip VARCHAR(40),
  cpu_sockets BIGINT,
  cpu_cores BIGINT NOT NULL,
  cpu_mhz BIGINT NOT NULL,
  memory BIGINT NOT NULL,
  capabilities VARCHAR(255) NOT NULL,
  tags VARCHAR(255) NOT NULL,
  os_category_id BIGINT,
  annotation TEXT,
  last_annotated BIGINT,
  annotated_by VARCHAR(255),
  conn_epoch BIGINT NOT NULL,
  hub VARCHAR(64),
  last_ping BIGINT,
  disconnected BIGINT,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX hosts_cluster ON hosts (cluster_id, removed);
CREATE INDEX hosts_pod ON hosts (pod_id, removed);
CREATE INDEX hosts_zone ON hosts (zone_id, removed, status);
CREATE INDEX hosts_status ON hosts (status, hub);
-- What a host has and has given away, as the conditional UPDATEs of placement see it:
--   UPDATE host_capacity SET cpu_used_mhz = cpu_used_mhz + ?, mem_used = mem_used + ?, vms = vms + 1
--   WHERE host_id = ? AND accepting = 1 AND cpu_used_mhz + cpu_reserved + ? <= cpu_total_mhz * cpu_overcommit
--     AND mem_used + mem_reserved + ? <= mem_total * mem_overcommit
-- `accepting` is 1 while the host is Enabled and not removed: whoever disables or deletes a host writes this row.
-- Memory in bytes; `cpu_reserved` in MHz. `vms` counts VMs that run there or are promised a place.
CREATE TABLE IF NOT EXISTS host_capacity (
  host_id BIGINT NOT NULL PRIMARY KEY,
  cluster_id BIGINT NOT NULL,
  pod_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  accepting SMALLINT NOT NULL,
  cpu_total_mhz BIGINT NOT NULL,
  cpu_used_mhz BIGINT NOT NULL,
  cpu_reserved BIGINT NOT NULL,
  cpu_overcommit DOUBLE NOT NULL,
  mem_total BIGINT NOT NULL,
  mem_used BIGINT NOT NULL,
  mem_reserved BIGINT NOT NULL,
  mem_overcommit DOUBLE NOT NULL,
  vms BIGINT NOT NULL
);
CREATE INDEX host_capacity_cluster ON host_capacity (cluster_id);
CREATE INDEX host_capacity_zone ON host_capacity (zone_id);
-- Management addresses of a pod's range that are in use; free ones have no row. `holder` is "host/UUID" or "router/UUID".
CREATE TABLE IF NOT EXISTS pod_ips (
  pod_id BIGINT NOT NULL,
  ip_number BIGINT NOT NULL,
  ip VARCHAR(40) NOT NULL,
  zone_id BIGINT NOT NULL,
  holder VARCHAR(64) NOT NULL,
  taken BIGINT NOT NULL,
  PRIMARY KEY (pod_id, ip_number)
);
CREATE INDEX pod_ips_holder ON pod_ips (holder);
