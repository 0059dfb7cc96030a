-- What hosts need to reach an image store and nobody may read, sealed: a JSON map ("accesskey", "secretkey", "endpoint").
ALTER TABLE image_stores ADD COLUMN details_sealed TEXT;
-- Where a template was registered from, sealed: it may hold a password. NULL: made here, or shipped with the system.
ALTER TABLE templates ADD COLUMN url_sealed TEXT;
-- A copy on secondary storage, while it comes in. `percent`: 0 to 100 once the total is known. `held_bytes`: what it counts
-- against the owner's secondary storage. `host_id`: who works, or worked, on it; `hypervisor`: that host's kind, whose hosts
-- can delete it. `content_sum`: of the file in its place. `copied`: another zone had it before. `changed`: UTC µs, with every
-- write.
ALTER TABLE template_store_refs ADD COLUMN percent BIGINT NOT NULL DEFAULT 0;
ALTER TABLE template_store_refs ADD COLUMN held_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE template_store_refs ADD COLUMN host_id BIGINT;
ALTER TABLE template_store_refs ADD COLUMN hypervisor VARCHAR(32);
ALTER TABLE template_store_refs ADD COLUMN content_sum VARCHAR(255);
ALTER TABLE template_store_refs ADD COLUMN copied SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE template_store_refs ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX template_store_refs_state ON template_store_refs (state);
-- Accounts that may use a template that isn't theirs nor public.
CREATE TABLE IF NOT EXISTS template_shares (
  template_id BIGINT NOT NULL,
  account_id BIGINT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (template_id, account_id)
);
CREATE INDEX template_shares_account ON template_shares (account_id);
-- Images that nobody refers to any more and that are still to be deleted from their store. `hypervisor`: of the hosts that
-- can; NULL: any.
CREATE TABLE IF NOT EXISTS image_deletions (
  path VARCHAR(255) NOT NULL PRIMARY KEY,
  store_id BIGINT NOT NULL,
  hypervisor VARCHAR(32),
  tries BIGINT NOT NULL,
  not_before BIGINT NOT NULL,
  last_error TEXT,
  created BIGINT NOT NULL
);
CREATE INDEX image_deletions_due ON image_deletions (not_before);
CREATE INDEX image_deletions_store ON image_deletions (store_id);
