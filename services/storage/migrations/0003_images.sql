-- Secondary storage. `live_key` is the URL without credentials while the store lives; `url` has none either.
CREATE TABLE IF NOT EXISTS image_stores (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  live_key VARCHAR(512) UNIQUE,
  url VARCHAR(2048) NOT NULL,
  protocol VARCHAR(32) NOT NULL,
  provider VARCHAR(64) NOT NULL,
  scope VARCHAR(16) NOT NULL,
  zone_id BIGINT,
  total_bytes BIGINT NOT NULL,
  used_bytes BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX image_stores_zone ON image_stores (zone_id, removed);
-- Templates and ISOs (format = 'ISO'). `size` is the virtual size in bytes, `physical_size` the file's.
-- `state`: Active, Inactive.
CREATE TABLE IF NOT EXISTS templates (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  unique_name VARCHAR(255) UNIQUE,
  display_text VARCHAR(4096) NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  is_public SMALLINT NOT NULL,
  featured SMALLINT NOT NULL,
  extractable SMALLINT NOT NULL,
  cross_zones SMALLINT NOT NULL,
  bootable SMALLINT NOT NULL,
  password_enabled SMALLINT NOT NULL,
  ssh_key_enabled SMALLINT NOT NULL,
  dynamically_scalable SMALLINT NOT NULL,
  direct_download SMALLINT NOT NULL,
  requires_hvm SMALLINT NOT NULL,
  format VARCHAR(16) NOT NULL,
  hypervisor VARCHAR(32) NOT NULL,
  template_type VARCHAR(16) NOT NULL,
  os_type_id BIGINT NOT NULL,
  bits BIGINT NOT NULL,
  size BIGINT NOT NULL,
  physical_size BIGINT NOT NULL,
  checksum VARCHAR(255),
  url VARCHAR(2048),
  template_tag VARCHAR(255),
  source_template_id BIGINT,
  state VARCHAR(16) NOT NULL,
  sort_key BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX templates_account ON templates (account_id, removed);
CREATE INDEX templates_live ON templates (removed, is_public, featured);
CREATE TABLE IF NOT EXISTS template_details (
  template_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (template_id, name)
);
-- Zones in which a template exists.
CREATE TABLE IF NOT EXISTS template_zones (
  template_id BIGINT NOT NULL,
  zone_id BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT,
  PRIMARY KEY (template_id, zone_id)
);
CREATE INDEX template_zones_zone ON template_zones (zone_id, removed);
-- Copies on secondary storage. `state`: Ready, Creating, Failed. A template is ready in a zone when one of its stores has it Ready.
CREATE TABLE IF NOT EXISTS template_store_refs (
  template_id BIGINT NOT NULL,
  store_id BIGINT NOT NULL,
  zone_id BIGINT,
  state VARCHAR(16) NOT NULL,
  download_state VARCHAR(32) NOT NULL,
  error TEXT,
  path VARCHAR(255) NOT NULL,
  size BIGINT NOT NULL,
  physical_size BIGINT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (template_id, store_id)
);
CREATE INDEX template_store_refs_store ON template_store_refs (store_id);
-- Copies on primary storage, from which volumes are cloned; `size` is charged to the pool once.
CREATE TABLE IF NOT EXISTS template_pool_refs (
  template_id BIGINT NOT NULL,
  pool_id BIGINT NOT NULL,
  size BIGINT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (template_id, pool_id)
);
CREATE INDEX template_pool_refs_pool ON template_pool_refs (pool_id);
