-- VMs that ended by themselves and were started again: how often in a row without having been well in between, and with which
-- generation and when (UTC µs) the last time. Any other start gives the VM another generation, and the count begins anew.
CREATE TABLE IF NOT EXISTS vm_recoveries (
  vm_id BIGINT NOT NULL PRIMARY KEY,
  in_a_row BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  started BIGINT NOT NULL
);
CREATE INDEX vm_recoveries_started ON vm_recoveries (started);
