-- The physical side: networks of a zone, the traffic on them, who provides services, VLANs given out, address ranges.
-- `live_key` holds what must be unique among the living, and is NULL once removed.
CREATE TABLE IF NOT EXISTS physical_networks (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  zone_id BIGINT NOT NULL,
  state VARCHAR(16) NOT NULL,
  vlan VARCHAR(1024),
  speed VARCHAR(32),
  domain_id BIGINT,
  broadcast_range VARCHAR(16) NOT NULL,
  tags VARCHAR(255) NOT NULL,
  isolation_methods VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX physical_networks_zone ON physical_networks (zone_id, removed);
-- live_key: "pn/ID/Guest"; "zone/ID/TYPE" for the types that a zone has once.
CREATE TABLE IF NOT EXISTS traffic_types (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  physical_network_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  traffic_type VARCHAR(32) NOT NULL,
  live_key VARCHAR(128) UNIQUE,
  xen_label VARCHAR(255),
  kvm_label VARCHAR(255),
  vmware_label VARCHAR(255),
  hyperv_label VARCHAR(255),
  ovm3_label VARCHAR(255),
  vlan VARCHAR(255),
  isolation_method VARCHAR(32),
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX traffic_types_network ON traffic_types (physical_network_id, removed);
CREATE INDEX traffic_types_zone ON traffic_types (zone_id, traffic_type, removed);
-- live_key: "PHYSICAL NETWORK/NAME". `services` is comma-separated.
CREATE TABLE IF NOT EXISTS network_providers (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(64) NOT NULL,
  physical_network_id BIGINT NOT NULL,
  destination_id BIGINT,
  state VARCHAR(16) NOT NULL,
  services VARCHAR(1024) NOT NULL,
  live_key VARCHAR(128) UNIQUE,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX network_providers_network ON network_providers (physical_network_id, removed);
CREATE TABLE IF NOT EXISTS router_elements (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  provider_id BIGINT NOT NULL UNIQUE,
  enabled SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
-- Catalogue. `services` is a JSON object: service to list of providers.
CREATE TABLE IF NOT EXISTS network_offerings (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  unique_name VARCHAR(255) UNIQUE,
  display_text VARCHAR(4096) NOT NULL,
  traffic_type VARCHAR(32) NOT NULL,
  guest_type VARCHAR(16),
  availability VARCHAR(16) NOT NULL,
  state VARCHAR(16) NOT NULL,
  is_default SMALLINT NOT NULL,
  system_only SMALLINT NOT NULL,
  specify_vlan SMALLINT NOT NULL,
  specify_ip_ranges SMALLINT NOT NULL,
  conserve_mode SMALLINT NOT NULL,
  is_persistent SMALLINT NOT NULL,
  for_vpc SMALLINT NOT NULL,
  public_lb SMALLINT NOT NULL,
  internal_lb SMALLINT NOT NULL,
  dedicated_lb SMALLINT NOT NULL,
  shared_source_nat SMALLINT NOT NULL,
  redundant_router SMALLINT NOT NULL,
  elastic_ip SMALLINT NOT NULL,
  elastic_lb SMALLINT NOT NULL,
  eip_associate_public_ip SMALLINT NOT NULL,
  inline_mode SMALLINT NOT NULL,
  egress_default_policy SMALLINT NOT NULL,
  keep_alive SMALLINT NOT NULL,
  streched_l2 SMALLINT NOT NULL,
  public_access SMALLINT NOT NULL,
  network_rate BIGINT,
  max_connections BIGINT,
  service_offering_id BIGINT,
  tags VARCHAR(4096),
  services TEXT NOT NULL,
  sort_key BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
-- VLANs in use of a physical network; free ones have no row. `slot` is 0, or the network where an administrator shares a VLAN on purpose.
CREATE TABLE IF NOT EXISTS vnets (
  physical_network_id BIGINT NOT NULL,
  vnet BIGINT NOT NULL,
  slot BIGINT NOT NULL,
  network_id BIGINT NOT NULL,
  taken BIGINT NOT NULL,
  PRIMARY KEY (physical_network_id, vnet, slot)
);
CREATE INDEX vnets_network ON vnets (network_id);
-- Address ranges. kind VirtualNetwork: public addresses, one ip_addresses row each. DirectAttached: guests of the shared network `network_id`.
CREATE TABLE IF NOT EXISTS vlan_ranges (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  zone_id BIGINT NOT NULL,
  physical_network_id BIGINT NOT NULL,
  network_id BIGINT NOT NULL,
  kind VARCHAR(32) NOT NULL,
  vlan VARCHAR(64) NOT NULL,
  gateway VARCHAR(40) NOT NULL,
  netmask VARCHAR(40) NOT NULL,
  start_ip VARCHAR(40) NOT NULL,
  end_ip VARCHAR(40) NOT NULL,
  start_number BIGINT NOT NULL,
  end_number BIGINT NOT NULL,
  account_id BIGINT,
  domain_id BIGINT,
  pod_id BIGINT,
  for_system_vms SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX vlan_ranges_zone ON vlan_ranges (zone_id, removed);
CREATE INDEX vlan_ranges_network ON vlan_ranges (network_id, removed);
