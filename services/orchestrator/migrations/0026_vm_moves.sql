-- What a VM that moves while it runs holds of a host beside what vm_capacity says: of the host where it goes, and once it is
-- there, of the one that it left. The sum over both tables of a host is its counters (arcus audit). In MHz and bytes.
CREATE TABLE IF NOT EXISTS vm_moves (
  vm_id BIGINT NOT NULL PRIMARY KEY,
  host_id BIGINT NOT NULL,
  cpu_mhz BIGINT NOT NULL,
  memory BIGINT NOT NULL,
  taken BIGINT NOT NULL
);
CREATE INDEX vm_moves_host ON vm_moves (host_id);
-- The highest generation that was ever given to a move of this VM: one that came to nothing isn't given again.
ALTER TABLE vms ADD COLUMN promised BIGINT NOT NULL DEFAULT 0;
