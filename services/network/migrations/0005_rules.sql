-- Rules on public addresses (ip_id) and, for Egress, on what guests of a network send (ip_id NULL). One table for all
-- purposes, because they stand in each other's way: Firewall, PortForwarding, StaticNat, LoadBalancing.
-- state: Staged (accepted, its job hasn't begun), Add (wanted), Active (the router has it), Revoke (no longer wanted).
-- Routers are given what is Add or Active. Rows are deleted once a rule is gone; `removed` is what lookups of ids ask for.
-- is_system: only root admins delete it.
-- related_id: the rule for which a Firewall rule was made (openfirewall); it goes with it. cidrs: comma-separated.
CREATE TABLE IF NOT EXISTS firewall_rules (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  purpose VARCHAR(16) NOT NULL,
  traffic VARCHAR(8) NOT NULL,
  state VARCHAR(16) NOT NULL,
  ip_id BIGINT,
  network_id BIGINT NOT NULL,
  protocol VARCHAR(16) NOT NULL,
  start_port BIGINT,
  end_port BIGINT,
  icmp_type BIGINT,
  icmp_code BIGINT,
  cidrs TEXT NOT NULL,
  dest_cidrs TEXT NOT NULL,
  related_id BIGINT,
  vm_id BIGINT,
  vm_ip VARCHAR(40),
  vm_start_port BIGINT,
  vm_end_port BIGINT,
  display SMALLINT NOT NULL,
  is_system SMALLINT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX firewall_rules_ip ON firewall_rules (ip_id);
CREATE INDEX firewall_rules_network ON firewall_rules (network_id);
CREATE INDEX firewall_rules_vm ON firewall_rules (vm_id);
CREATE INDEX firewall_rules_related ON firewall_rules (related_id);
CREATE INDEX firewall_rules_scope ON firewall_rules (domain_path, account_id);
-- Rules and static NAT that were ever made for an interface: writing it makes whoever takes the interface away wait, and
-- then see the rule.
ALTER TABLE nics ADD COLUMN rules BIGINT NOT NULL DEFAULT 0;
