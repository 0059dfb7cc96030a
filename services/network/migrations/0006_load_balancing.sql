-- What a LoadBalancing rule is beyond its row in firewall_rules. protocol NULL: it was never said.
CREATE TABLE IF NOT EXISTS load_balancers (
  rule_id BIGINT NOT NULL PRIMARY KEY,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  description VARCHAR(4096),
  description_lower VARCHAR(4096),
  algorithm VARCHAR(16) NOT NULL,
  protocol VARCHAR(16),
  private_port BIGINT NOT NULL
);
-- Addresses of VMs behind LoadBalancing rules. state: Add (its job hasn't ended) and Active are in routers' specs, Revoke isn't.
CREATE TABLE IF NOT EXISTS lb_members (
  id BIGINT NOT NULL PRIMARY KEY,
  rule_id BIGINT NOT NULL,
  vm_id BIGINT NOT NULL,
  nic_id BIGINT NOT NULL,
  ip VARCHAR(40) NOT NULL,
  state VARCHAR(16) NOT NULL,
  created BIGINT NOT NULL
);
CREATE UNIQUE INDEX lb_members_place ON lb_members (rule_id, ip);
CREATE INDEX lb_members_vm ON lb_members (vm_id);
-- Stickiness policies, one a rule. params: a JSON object of texts. Rows are deleted once a policy is gone; `removed` is what
-- lookups of ids ask for.
CREATE TABLE IF NOT EXISTS lb_stickiness (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  rule_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  description VARCHAR(255),
  method VARCHAR(16) NOT NULL,
  params TEXT NOT NULL,
  state VARCHAR(16) NOT NULL,
  display SMALLINT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE UNIQUE INDEX lb_stickiness_rule ON lb_stickiness (rule_id);
