-- Facts for accounting, written from the outbox; `id` is the number that the outbox gave.
CREATE TABLE IF NOT EXISTS usage_events (
  id BIGINT NOT NULL PRIMARY KEY,
  type VARCHAR(64) NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  zone_id BIGINT NOT NULL,
  resource_id BIGINT NOT NULL,
  resource_uuid VARCHAR(40) NOT NULL,
  resource_name VARCHAR(255) NOT NULL,
  offering_id BIGINT,
  template_id BIGINT,
  size BIGINT,
  resource_type VARCHAR(64),
  created BIGINT NOT NULL
);
CREATE INDEX usage_events_account ON usage_events (account_id, created);
CREATE INDEX usage_events_resource ON usage_events (resource_id, type, created);
