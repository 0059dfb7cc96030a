CREATE TABLE IF NOT EXISTS tags (
  uuid VARCHAR(40) NOT NULL PRIMARY KEY,
  resource_type VARCHAR(40) NOT NULL,
  resource_id BIGINT NOT NULL,
  resource_uuid VARCHAR(40) NOT NULL,
  tag_key VARCHAR(255) NOT NULL,
  tag_value VARCHAR(255) NOT NULL,
  customer VARCHAR(255),
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL
);
CREATE UNIQUE INDEX tags_resource ON tags (resource_type, resource_id, tag_key);
CREATE INDEX tags_owner ON tags (domain_path, account_id);
