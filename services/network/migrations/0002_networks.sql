-- Guest networks, and one row per zone for each system traffic type (is_system). is_public: usable by all accounts
-- (zone-wide shared networks). `generation` is where the next router's count begins, so that it never falls.
-- live_key: "system/ZONE/TYPE" for system networks, else NULL.
CREATE TABLE IF NOT EXISTS networks (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255),
  name_lower VARCHAR(255) NOT NULL,
  display_text VARCHAR(255),
  live_key VARCHAR(128) UNIQUE,
  zone_id BIGINT NOT NULL,
  physical_network_id BIGINT,
  offering_id BIGINT NOT NULL,
  traffic_type VARCHAR(32) NOT NULL,
  guest_type VARCHAR(16),
  broadcast_type VARCHAR(32) NOT NULL,
  broadcast_uri VARCHAR(64),
  vnet BIGINT,
  specified_vlan SMALLINT NOT NULL,
  gateway VARCHAR(40),
  netmask VARCHAR(40),
  cidr VARCHAR(40),
  network_cidr VARCHAR(40),
  network_domain VARCHAR(255),
  external_id VARCHAR(255),
  state VARCHAR(16) NOT NULL,
  acl_type VARCHAR(16),
  subdomain_access SMALLINT NOT NULL,
  is_public SMALLINT NOT NULL,
  is_system SMALLINT NOT NULL,
  is_default SMALLINT NOT NULL,
  display_network SMALLINT NOT NULL,
  restart_required SMALLINT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  generation BIGINT NOT NULL,
  touched BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX networks_scope ON networks (domain_path, account_id, removed);
CREATE INDEX networks_account ON networks (account_id, removed);
CREATE INDEX networks_zone ON networks (zone_id, removed);
CREATE INDEX networks_physical ON networks (physical_network_id, removed);
CREATE INDEX networks_state ON networks (state, removed);
-- Public addresses, one row each, Free ones too (account_id 0). live_zone is the zone: an address exists once there.
-- holder: made anew with each allocation; "ip:UUID:HOLDER" is the key of its reservation with identity.
CREATE TABLE IF NOT EXISTS ip_addresses (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  ip VARCHAR(40) NOT NULL,
  ip_number BIGINT NOT NULL,
  live_zone BIGINT,
  zone_id BIGINT NOT NULL,
  physical_network_id BIGINT NOT NULL,
  vlan_range_id BIGINT NOT NULL,
  source_network_id BIGINT NOT NULL,
  network_id BIGINT,
  holder VARCHAR(40),
  state VARCHAR(16) NOT NULL,
  is_source_nat SMALLINT NOT NULL,
  is_static_nat SMALLINT NOT NULL,
  is_system SMALLINT NOT NULL,
  display SMALLINT NOT NULL,
  vm_id BIGINT,
  vm_ip VARCHAR(40),
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  allocated BIGINT,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE UNIQUE INDEX ip_addresses_ip ON ip_addresses (live_zone, ip_number);
CREATE INDEX ip_addresses_range ON ip_addresses (vlan_range_id, state);
CREATE INDEX ip_addresses_scope ON ip_addresses (domain_path, account_id);
CREATE INDEX ip_addresses_network ON ip_addresses (network_id);
CREATE INDEX ip_addresses_state ON ip_addresses (zone_id, state);
CREATE INDEX ip_addresses_holder ON ip_addresses (holder);
-- Interfaces of VMs (vm_id) and of routers (router_id). live_network and live_mac are NULL once removed: the two unique
-- keys decide who has an address. lease_generation is the router generation that brought the last change of the lease.
-- state Reserved: plugged on host_id. Removed rows stay until the router has dropped their lease.
CREATE TABLE IF NOT EXISTS nics (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  network_id BIGINT NOT NULL,
  vm_id BIGINT,
  router_id BIGINT,
  device_id BIGINT NOT NULL,
  is_default SMALLINT NOT NULL,
  mac VARCHAR(20) NOT NULL,
  ip VARCHAR(40),
  ip_number BIGINT,
  netmask VARCHAR(40),
  gateway VARCHAR(40),
  broadcast_uri VARCHAR(64),
  traffic_type VARCHAR(32) NOT NULL,
  guest_type VARCHAR(16),
  state VARCHAR(16) NOT NULL,
  host_id BIGINT,
  host_name VARCHAR(255),
  vm_uuid VARCHAR(40),
  display SMALLINT NOT NULL,
  lease_generation BIGINT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  live_network BIGINT,
  live_mac VARCHAR(20) UNIQUE,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE UNIQUE INDEX nics_address ON nics (live_network, ip_number);
CREATE INDEX nics_vm ON nics (vm_id, removed);
CREATE INDEX nics_router ON nics (router_id, removed);
CREATE INDEX nics_lease ON nics (network_id, lease_generation);
-- Routers. live_network: one living router a network. generation: rises with every wanted change; applied: what host_id
-- has; spec_generation: the last change beyond leases. epoch rises when the router moves to another host.
CREATE TABLE IF NOT EXISTS routers (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  network_id BIGINT NOT NULL,
  live_network BIGINT UNIQUE,
  zone_id BIGINT NOT NULL,
  pod_id BIGINT,
  cluster_id BIGINT,
  host_id BIGINT,
  hypervisor VARCHAR(32),
  state VARCHAR(16) NOT NULL,
  role VARCHAR(32) NOT NULL,
  guest_ip VARCHAR(40),
  guest_mac VARCHAR(20),
  public_ip VARCHAR(40),
  public_ip_id BIGINT,
  public_mac VARCHAR(20),
  generation BIGINT NOT NULL,
  spec_generation BIGINT NOT NULL,
  applied BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  faults TEXT,
  touched BIGINT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX routers_scope ON routers (domain_path, account_id, removed);
CREATE INDEX routers_host ON routers (host_id, removed);
CREATE INDEX routers_zone ON routers (zone_id, removed);
-- Routers that a host may still run although they are gone or elsewhere: to be removed there once it answers.
CREATE TABLE IF NOT EXISTS router_leftovers (
  router_uuid VARCHAR(40) NOT NULL,
  host_id BIGINT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (router_uuid, host_id)
);
