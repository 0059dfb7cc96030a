-- One row: the last number given, and the last one whose row has been pruned.
CREATE TABLE IF NOT EXISTS outbox_head (
  id BIGINT NOT NULL PRIMARY KEY,
  seq BIGINT NOT NULL,
  pruned BIGINT NOT NULL
);
