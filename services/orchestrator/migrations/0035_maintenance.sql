-- Hosts that are being emptied (PrepareForMaintenance), or could not be (ErrorInMaintenance): one a cluster. `job` is the job
-- that asked for it; `cleared`: when no VM was left (UTC µs), routers may be; `problem`: why it could not be emptied.
CREATE TABLE IF NOT EXISTS host_maintenances (
  host_id BIGINT NOT NULL PRIMARY KEY,
  cluster_id BIGINT NOT NULL UNIQUE,
  job VARCHAR(40) NOT NULL,
  begun BIGINT NOT NULL,
  cleared BIGINT,
  problem TEXT
);
-- VMs of such a host that are, or were tried to be, taken off it. `way`: Move, Stop (no other host can take it), Restart (it
-- is stopped, and then started elsewhere). `job`: the job that does it now.
CREATE TABLE IF NOT EXISTS host_evacuations (
  vm_id BIGINT NOT NULL PRIMARY KEY,
  host_id BIGINT NOT NULL,
  way VARCHAR(16) NOT NULL,
  attempts BIGINT NOT NULL,
  not_before BIGINT NOT NULL,
  job VARCHAR(40),
  last_error TEXT
);
CREATE INDEX host_evacuations_host ON host_evacuations (host_id);
