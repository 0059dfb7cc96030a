-- Virtual machines. `cpu`, `cpu_mhz` and `memory_mb` are what the VM really has (custom offerings: what was asked for);
-- the overcommit ratios are those of its cluster when it started, so that a later change of the cluster gives back what was taken.
-- `generation` rises with every start and every host change: an agent refuses a lower one. `limits_key` names the reservation
-- in identity. `details` is a JSON object.
CREATE TABLE IF NOT EXISTS vms (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  display_name VARCHAR(255) NOT NULL,
  display_lower VARCHAR(255) NOT NULL,
  instance_name VARCHAR(255) NOT NULL UNIQUE,
  state VARCHAR(16) NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  user_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  pod_id BIGINT,
  cluster_id BIGINT,
  host_id BIGINT,
  last_host_id BIGINT,
  template_id BIGINT NOT NULL,
  os_type_id BIGINT,
  hypervisor VARCHAR(32) NOT NULL,
  service_offering_id BIGINT NOT NULL,
  disk_offering_id BIGINT,
  cpu BIGINT NOT NULL,
  cpu_mhz BIGINT NOT NULL,
  memory_mb BIGINT NOT NULL,
  user_data TEXT,
  key_pair VARCHAR(255),
  public_key TEXT,
  details TEXT NOT NULL,
  display_vm SMALLINT NOT NULL,
  ha_enabled SMALLINT NOT NULL,
  dynamic_scaling SMALLINT NOT NULL,
  password_enabled SMALLINT NOT NULL,
  generation BIGINT NOT NULL,
  limits_key VARCHAR(128) NOT NULL,
  created BIGINT NOT NULL,
  changed BIGINT NOT NULL,
  destroyed BIGINT,
  removed BIGINT
);
CREATE INDEX vms_live ON vms (removed, id);
CREATE INDEX vms_account ON vms (account_id, removed, id);
CREATE INDEX vms_domain ON vms (domain_path, removed, id);
CREATE INDEX vms_host ON vms (host_id, state);
CREATE INDEX vms_zone ON vms (zone_id, removed, state);
CREATE INDEX vms_state ON vms (state, destroyed);
CREATE INDEX vms_name ON vms (name_lower, removed);
-- What each VM holds of a host's capacity: written and deleted together with the counters of host_capacity, so that the
-- sum over the rows of a host is its counters (arcus audit). In MHz and bytes.
CREATE TABLE IF NOT EXISTS vm_capacity (
  vm_id BIGINT NOT NULL PRIMARY KEY,
  host_id BIGINT NOT NULL,
  cpu_mhz BIGINT NOT NULL,
  memory BIGINT NOT NULL,
  taken BIGINT NOT NULL
);
CREATE INDEX vm_capacity_host ON vm_capacity (host_id);
-- What is owed to hosts that were away when a job had to take something back: done first when they return.
CREATE TABLE IF NOT EXISTS host_debts (
  id BIGINT NOT NULL PRIMARY KEY,
  host_id BIGINT NOT NULL,
  vm_uuid VARCHAR(40),
  command BLOB NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX host_debts_host ON host_debts (host_id);
-- Host names in use, one row a VM and network: two VMs of one network never answer to the same name.
CREATE TABLE IF NOT EXISTS vm_names (
  network_id BIGINT NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  vm_id BIGINT NOT NULL,
  PRIMARY KEY (network_id, name_lower)
);
CREATE INDEX vm_names_vm ON vm_names (vm_id);
