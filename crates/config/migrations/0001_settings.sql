-- Values that differ from the registry's. `scope_id` is 0 for the global scope; a NULL value is a text that was cleared.
CREATE TABLE IF NOT EXISTS settings (
  name VARCHAR(128) NOT NULL,
  scope VARCHAR(16) NOT NULL,
  scope_id BIGINT NOT NULL,
  value TEXT,
  PRIMARY KEY (name, scope, scope_id)
);
-- One row: rises with each change, so that replicas find changes by reading a number.
CREATE TABLE IF NOT EXISTS settings_version (
  id BIGINT NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL
);
