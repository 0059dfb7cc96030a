-- Affinity groups. `live_key` is "account/ACCOUNT/NAME" (of those of dedicated resources of a domain "domain/DOMAIN/NAME") while
-- the group lives. `is_public` is 1 for those of a domain: others than their owner, the system account, use them. `touched` is
-- written by whoever places a member, adds one, or deletes the group: they take turns.
CREATE TABLE IF NOT EXISTS affinity_groups (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(255) UNIQUE,
  type VARCHAR(64) NOT NULL,
  description TEXT,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  is_public SMALLINT NOT NULL,
  touched BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX affinity_groups_account ON affinity_groups (account_id, removed);
CREATE INDEX affinity_groups_domain ON affinity_groups (domain_id, removed);
-- The VMs of a group, until they are expunged or the group is deleted.
CREATE TABLE IF NOT EXISTS affinity_group_vms (
  group_id BIGINT NOT NULL,
  vm_id BIGINT NOT NULL,
  PRIMARY KEY (group_id, vm_id)
);
CREATE INDEX affinity_group_vms_vm ON affinity_group_vms (vm_id);
