-- The VM whose root disk it was, and which is no more: what it had claimed on the pool goes with the bytes.
ALTER TABLE pending_deletions ADD COLUMN ended_vm VARCHAR(40);
