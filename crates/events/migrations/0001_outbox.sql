-- Facts, written in the transaction that makes them true. `seq` is given by the one sequencer; consumers follow it.
CREATE TABLE IF NOT EXISTS outbox (
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  seq BIGINT,
  topic VARCHAR(16) NOT NULL,
  kind VARCHAR(64) NOT NULL,
  payload MEDIUMBLOB NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX outbox_seq ON outbox (seq);
CREATE TABLE IF NOT EXISTS outbox_cursors (
  consumer VARCHAR(64) NOT NULL PRIMARY KEY,
  seq BIGINT NOT NULL
);
