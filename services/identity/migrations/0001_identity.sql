-- The tree of tenants. `path` is of ids and never changes ("/1/5/"); `name_path` is of names ("ROOT/a/b").
-- live_key: "PARENT/lower-cased name" while alive. `changes` rises with each change that others must not overlook:
-- who adds something to a domain bumps it, so that a domain can't be deleted, or given a limit, unseen.
CREATE TABLE IF NOT EXISTS domains (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(600) NOT NULL,
  name_path VARCHAR(2000) NOT NULL,
  path VARCHAR(255) NOT NULL UNIQUE,
  parent BIGINT,
  level BIGINT NOT NULL,
  live_key VARCHAR(600) UNIQUE,
  state VARCHAR(16) NOT NULL,
  network_domain VARCHAR(255),
  owner_account_id BIGINT NOT NULL,
  changes BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX domains_live ON domains (removed, id);
CREATE INDEX domains_parent ON domains (parent, removed);
CREATE INDEX domains_name ON domains (name_lower);
-- Owners of resources. `type`: 0 user, 1 root admin, 2 domain admin, 3 resource admin, 5 project. `state`: enabled,
-- disabled, locked. live_key: "DOMAIN/lower-cased name" while alive.
CREATE TABLE IF NOT EXISTS accounts (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(600) NOT NULL,
  type SMALLINT NOT NULL,
  role_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  live_key VARCHAR(600) UNIQUE,
  state VARCHAR(16) NOT NULL,
  cleanup_needed SMALLINT NOT NULL,
  is_default SMALLINT NOT NULL,
  network_domain VARCHAR(255),
  default_zone_id BIGINT,
  changes BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX accounts_live ON accounts (removed, id);
CREATE INDEX accounts_domain ON accounts (domain_path, removed, id);
CREATE INDEX accounts_role ON accounts (role_id, removed);
CREATE TABLE IF NOT EXISTS account_details (
  account_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  value VARCHAR(4096) NOT NULL,
  PRIMARY KEY (account_id, name)
);
-- People and programs that act for an account. `state`: enabled, disabled, locked. `secret_key` is sealed by the vault
-- ("users.secret_key:ID"). live_key: "DOMAIN/lower-cased user name" while alive.
CREATE TABLE IF NOT EXISTS users (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  username VARCHAR(255) NOT NULL,
  username_lower VARCHAR(600) NOT NULL,
  first_name VARCHAR(255) NOT NULL,
  last_name VARCHAR(255) NOT NULL,
  email VARCHAR(255),
  timezone VARCHAR(255),
  password VARCHAR(255) NOT NULL,
  api_key VARCHAR(255) UNIQUE,
  secret_key VARCHAR(1024),
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  live_key VARCHAR(600) UNIQUE,
  state VARCHAR(16) NOT NULL,
  source VARCHAR(16) NOT NULL,
  login_attempts BIGINT NOT NULL,
  registered SMALLINT NOT NULL,
  is_default SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX users_live ON users (removed, id);
CREATE INDEX users_account ON users (account_id, removed, id);
CREATE INDEX users_domain ON users (domain_path, removed, id);
-- Roles. `type`: Admin, ResourceAdmin, DomainAdmin, User. `changes` rises with each change of its rules.
CREATE TABLE IF NOT EXISTS roles (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  type VARCHAR(16) NOT NULL,
  description VARCHAR(255),
  is_default SMALLINT NOT NULL,
  changes BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
-- Rules, tried in the order of sort_order. `removed` is always NULL: rules are deleted.
CREATE TABLE IF NOT EXISTS role_permissions (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  role_id BIGINT NOT NULL,
  rule VARCHAR(255) NOT NULL,
  permission VARCHAR(8) NOT NULL,
  description VARCHAR(255),
  sort_order BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX role_permissions_role ON role_permissions (role_id, sort_order, id);
