-- Compute offerings. cpu, cpu_mhz and memory_mb are NULL where the user chooses (customized).
CREATE TABLE IF NOT EXISTS service_offerings (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  unique_name VARCHAR(255) UNIQUE,
  display_text VARCHAR(4096) NOT NULL,
  cpu BIGINT,
  cpu_mhz BIGINT,
  memory_mb BIGINT,
  rate_mbps BIGINT,
  offer_ha SMALLINT NOT NULL,
  limit_cpu_use SMALLINT NOT NULL,
  is_volatile SMALLINT NOT NULL,
  storage_type VARCHAR(16) NOT NULL,
  provisioning_type VARCHAR(16) NOT NULL,
  tags VARCHAR(4096),
  host_tags VARCHAR(255),
  domain_id BIGINT,
  domain_path VARCHAR(255),
  is_system SMALLINT NOT NULL,
  system_vm_type VARCHAR(32),
  default_use SMALLINT NOT NULL,
  customized SMALLINT NOT NULL,
  customized_iops SMALLINT,
  min_iops BIGINT,
  max_iops BIGINT,
  hypervisor_snapshot_reserve BIGINT,
  bytes_read_rate BIGINT,
  bytes_write_rate BIGINT,
  iops_read_rate BIGINT,
  iops_write_rate BIGINT,
  deployment_planner VARCHAR(255),
  sort_key BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE TABLE IF NOT EXISTS os_categories (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE TABLE IF NOT EXISTS os_types (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  category_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  user_defined SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE TABLE IF NOT EXISTS hypervisor_caps (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  hypervisor VARCHAR(32) NOT NULL,
  version VARCHAR(32) NOT NULL,
  max_guests BIGINT,
  security_groups SMALLINT NOT NULL,
  max_data_volumes BIGINT,
  max_hosts_per_cluster BIGINT,
  storage_motion SMALLINT NOT NULL,
  vm_snapshots SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE TABLE IF NOT EXISTS ssh_keypairs (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  fingerprint VARCHAR(64) NOT NULL,
  public_key TEXT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE UNIQUE INDEX ssh_keypairs_name ON ssh_keypairs (account_id, name);
CREATE UNIQUE INDEX ssh_keypairs_fingerprint ON ssh_keypairs (account_id, fingerprint);
CREATE INDEX ssh_keypairs_scope ON ssh_keypairs (domain_path, account_id);
-- Delays and faults that simulated hosts are told to show.
CREATE TABLE IF NOT EXISTS simulator_mocks (
  id BIGINT NOT NULL PRIMARY KEY,
  zone_id BIGINT,
  pod_id BIGINT,
  cluster_id BIGINT,
  host_id BIGINT,
  name VARCHAR(255) NOT NULL,
  value TEXT NOT NULL,
  remaining BIGINT,
  json_response TEXT,
  created BIGINT NOT NULL,
  removed BIGINT
);
