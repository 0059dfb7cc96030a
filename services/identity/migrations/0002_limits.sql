-- Limits that were set for an account ("account/7/0") or domain ("domain/5/0"): owner and resource type. max -1: none.
-- In the units of counts: pieces, cores, MiB of memory, bytes of storage.
CREATE TABLE IF NOT EXISTS resource_limits (
  slot VARCHAR(40) NOT NULL PRIMARY KEY,
  owner_kind VARCHAR(8) NOT NULL,
  owner_id BIGINT NOT NULL,
  type SMALLINT NOT NULL,
  max BIGINT NOT NULL
);
CREATE INDEX resource_limits_owner ON resource_limits (owner_kind, owner_id);
-- What is in use. Accounts have a row per resource type; domains only where a limit is finite (their other totals are sums
-- over accounts). While a domain has a row, every reservation below it counts there too. `epoch` of an account's row rises
-- when a domain above it begins or ends to be counted: a reservation that decided before counts anew.
CREATE TABLE IF NOT EXISTS resource_counts (
  slot VARCHAR(40) NOT NULL PRIMARY KEY,
  owner_kind VARCHAR(8) NOT NULL,
  owner_id BIGINT NOT NULL,
  type SMALLINT NOT NULL,
  used BIGINT NOT NULL,
  epoch BIGINT NOT NULL
);
CREATE INDEX resource_counts_owner ON resource_counts (owner_kind, owner_id);
-- What holders ("vm:UUID", "volume:UUID") have been counted with. type -1: released for good, refuses a late reserve.
-- reserved_by: the replica that was about to make the holder; empty once the holder has been seen in its table.
CREATE TABLE IF NOT EXISTS limit_reservations (
  holder VARCHAR(128) NOT NULL,
  type SMALLINT NOT NULL,
  account_id BIGINT NOT NULL,
  amount BIGINT NOT NULL,
  reserved_by VARCHAR(64) NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (holder, type)
);
CREATE INDEX limit_reservations_unseen ON limit_reservations (reserved_by, created);
CREATE INDEX limit_reservations_account ON limit_reservations (account_id, type);
CREATE INDEX limit_reservations_age ON limit_reservations (created);
