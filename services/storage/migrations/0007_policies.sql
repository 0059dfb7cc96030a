-- When snapshots of a volume are taken by themselves. `kind`: HOURLY, DAILY, WEEKLY, MONTHLY; `live_key` is "volume/kind" while
-- the policy lives: a volume has one of each. `schedule` ("MM", "MM:HH", "MM:HH:DD") is in the time zone `timezone`. `next_run`,
-- UTC µs: the next snapshot is due then; whoever takes it moves it on, in the commit that makes the snapshot's row.
-- `max_snaps`: how many of its snapshots are kept. `changed`: UTC µs, with every write.
CREATE TABLE IF NOT EXISTS snapshot_policies (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  live_key VARCHAR(64) UNIQUE,
  volume_id BIGINT NOT NULL,
  account_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  kind VARCHAR(16) NOT NULL,
  schedule VARCHAR(64) NOT NULL,
  timezone VARCHAR(100) NOT NULL,
  max_snaps BIGINT NOT NULL,
  display SMALLINT NOT NULL,
  next_run BIGINT NOT NULL,
  created BIGINT NOT NULL,
  changed BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX snapshot_policies_due ON snapshot_policies (removed, next_run);
CREATE INDEX snapshot_policies_volume ON snapshot_policies (volume_id, removed);
-- The policy that wanted a snapshot.
ALTER TABLE snapshots ADD COLUMN policy_id BIGINT;
CREATE INDEX snapshots_policy ON snapshots (policy_id, removed);
