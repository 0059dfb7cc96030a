-- Disk offerings. `disk_size` in bytes, 0 where the user chooses (customized). `tags` are comma-separated: a pool must have
-- them all. `unique_name` is set on seeded rows only.
CREATE TABLE IF NOT EXISTS disk_offerings (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  unique_name VARCHAR(255) UNIQUE,
  display_text VARCHAR(4096) NOT NULL,
  disk_size BIGINT NOT NULL,
  customized SMALLINT NOT NULL,
  customized_iops SMALLINT,
  min_iops BIGINT,
  max_iops BIGINT,
  hypervisor_snapshot_reserve BIGINT,
  tags VARCHAR(4096),
  storage_type VARCHAR(16) NOT NULL,
  provisioning_type VARCHAR(16) NOT NULL,
  display_offering SMALLINT NOT NULL,
  bytes_read_rate BIGINT,
  bytes_write_rate BIGINT,
  iops_read_rate BIGINT,
  iops_write_rate BIGINT,
  cache_mode VARCHAR(16),
  domain_id BIGINT,
  domain_path VARCHAR(255),
  sort_key BIGINT NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX disk_offerings_live ON disk_offerings (removed, sort_key, id);
