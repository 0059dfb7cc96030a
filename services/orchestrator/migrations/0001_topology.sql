-- Zones, pods, clusters. `live_key` holds what must be unique among the living, and is NULL once removed.
CREATE TABLE IF NOT EXISTS zones (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(255) UNIQUE,
  description VARCHAR(255),
  network_type VARCHAR(16) NOT NULL,
  guest_cidr VARCHAR(64),
  dns1 VARCHAR(255) NOT NULL,
  dns2 VARCHAR(255),
  ip6dns1 VARCHAR(255),
  ip6dns2 VARCHAR(255),
  internal_dns1 VARCHAR(255) NOT NULL,
  internal_dns2 VARCHAR(255),
  network_domain VARCHAR(255),
  dhcp_provider VARCHAR(64) NOT NULL,
  dns_search_order VARCHAR(255),
  security_groups SMALLINT NOT NULL,
  local_storage SMALLINT NOT NULL,
  allocation_state VARCHAR(16) NOT NULL,
  domain_id BIGINT,
  zone_token VARCHAR(40) NOT NULL,
  sort_key BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE TABLE IF NOT EXISTS pods (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(255) UNIQUE,
  zone_id BIGINT NOT NULL,
  gateway VARCHAR(40) NOT NULL,
  netmask VARCHAR(40) NOT NULL,
  cidr VARCHAR(40) NOT NULL,
  start_ip VARCHAR(40) NOT NULL,
  end_ip VARCHAR(40) NOT NULL,
  allocation_state VARCHAR(16) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX pods_zone ON pods (zone_id);
CREATE TABLE IF NOT EXISTS clusters (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(255) UNIQUE,
  pod_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  hypervisor VARCHAR(32) NOT NULL,
  cluster_type VARCHAR(32) NOT NULL,
  allocation_state VARCHAR(16) NOT NULL,
  managed_state VARCHAR(32) NOT NULL,
  cpu_overcommit DOUBLE NOT NULL,
  memory_overcommit DOUBLE NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX clusters_pod ON clusters (pod_id);
CREATE INDEX clusters_zone ON clusters (zone_id);
-- Free details of zones ("Zone") and service offerings ("ServiceOffering").
CREATE TABLE IF NOT EXISTS infra_details (
  resource_type VARCHAR(32) NOT NULL,
  resource_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (resource_type, resource_id, name)
);
