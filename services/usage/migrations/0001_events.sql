-- Events as listEvents shows them, written from the outbox; `id` is the number that the outbox gave.
-- `start_uuid`: the event that began the chain. `search`: type, level and description, lower-cased, a line each.
CREATE TABLE IF NOT EXISTS events (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  type VARCHAR(64) NOT NULL,
  state VARCHAR(16) NOT NULL,
  level VARCHAR(16) NOT NULL,
  description TEXT NOT NULL,
  search TEXT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  user_id BIGINT NOT NULL,
  start_uuid VARCHAR(40),
  resource_type VARCHAR(64),
  resource_uuid VARCHAR(40),
  request_id VARCHAR(64) NOT NULL,
  remote_address VARCHAR(64) NOT NULL,
  archived SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX events_all ON events (archived, created, id);
CREATE INDEX events_account ON events (account_id, archived, created, id);
CREATE INDEX events_domain ON events (domain_id, archived, created, id);
CREATE INDEX events_path ON events (domain_path, archived, created);
CREATE INDEX events_type ON events (type, archived, created, id);
CREATE INDEX events_start ON events (start_uuid);
CREATE INDEX events_created ON events (created);
