-- Groups by which accounts sort their virtual machines; vms.group_id says in which one a VM is. A group that is deleted has no
-- row any more (`removed` is there because every entity has it).
CREATE TABLE IF NOT EXISTS instance_groups (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE UNIQUE INDEX instance_groups_name ON instance_groups (account_id, name);
CREATE INDEX instance_groups_scope ON instance_groups (domain_path, account_id);
ALTER TABLE vms ADD COLUMN group_id BIGINT;
CREATE INDEX vms_group ON vms (group_id);
