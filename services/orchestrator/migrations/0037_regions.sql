-- Regions: this installation and those that it knows.
CREATE TABLE IF NOT EXISTS regions (
  id BIGINT NOT NULL PRIMARY KEY,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL UNIQUE,
  endpoint VARCHAR(255) NOT NULL,
  own SMALLINT NOT NULL,
  created BIGINT NOT NULL
);
