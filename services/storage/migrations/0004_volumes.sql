-- Disks of virtual machines. `kind`: ROOT, DATADISK. `state`: Allocated (no pool), Creating, Ready, Resizing, Destroy, Expunging,
-- Expunged. While `pool_id` is set, `size` bytes of that pool are promised to it. `slot` is "vm/DEVICE" while attached: a VM has
-- one disk at a device id. `hypervisor` binds a volume once its bytes exist. `chain` is JSON of the backing files.
CREATE TABLE IF NOT EXISTS volumes (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  name_lower VARCHAR(255) NOT NULL,
  kind VARCHAR(16) NOT NULL,
  state VARCHAR(16) NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  zone_id BIGINT NOT NULL,
  vm_id BIGINT,
  device_id BIGINT,
  slot VARCHAR(64) UNIQUE,
  pool_id BIGINT,
  last_pool_id BIGINT,
  disk_offering_id BIGINT,
  template_id BIGINT,
  size BIGINT NOT NULL,
  min_iops BIGINT,
  max_iops BIGINT,
  format VARCHAR(16),
  hypervisor VARCHAR(32),
  provisioning_type VARCHAR(16) NOT NULL,
  tags VARCHAR(4096) NOT NULL,
  local_storage SMALLINT NOT NULL,
  path VARCHAR(255),
  chain TEXT,
  display_volume SMALLINT NOT NULL,
  attached BIGINT,
  created BIGINT NOT NULL,
  changed BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX volumes_live ON volumes (removed, id);
CREATE INDEX volumes_account ON volumes (account_id, removed, id);
CREATE INDEX volumes_domain ON volumes (domain_path, removed, id);
CREATE INDEX volumes_vm ON volumes (vm_id, removed);
CREATE INDEX volumes_pool ON volumes (pool_id);
CREATE INDEX volumes_zone ON volumes (zone_id, removed);
