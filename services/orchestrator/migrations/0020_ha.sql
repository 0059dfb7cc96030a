-- What is known of a host while it is connected with nobody: one row an absence, of the connection `conn_epoch`, after it has
-- been investigated for the first time. `verdict`: Alive, Dead, Unknown. `alerted`: people have been told.
CREATE TABLE IF NOT EXISTS host_absences (
  host_id BIGINT NOT NULL PRIMARY KEY,
  conn_epoch BIGINT NOT NULL,
  verdict VARCHAR(16) NOT NULL,
  reason TEXT NOT NULL,
  alerted SMALLINT NOT NULL,
  looks BIGINT NOT NULL,
  looked BIGINT NOT NULL
);
-- VMs that are to be started again because their host died or they ended by themselves. `host_id` is where that was;
-- `only_host`: on this host only, whose own disks they need. `job` is the job that tries it now. `weight` is the VM's MiB:
-- among those that are due, the first try goes before the second, and the large before the small.
CREATE TABLE IF NOT EXISTS vm_restarts (
  vm_id BIGINT NOT NULL PRIMARY KEY,
  cause VARCHAR(16) NOT NULL,
  host_id BIGINT NOT NULL,
  cluster_id BIGINT,
  pod_id BIGINT,
  only_host BIGINT,
  weight BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  not_before BIGINT NOT NULL,
  job VARCHAR(40),
  last_error TEXT,
  created BIGINT NOT NULL
);
CREATE INDEX vm_restarts_due ON vm_restarts (job, not_before);
