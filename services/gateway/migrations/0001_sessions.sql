-- Login sessions. Only digests of the ids and keys are kept: a reader of the table can't take a session over.
CREATE TABLE IF NOT EXISTS sessions (
  id_hash VARCHAR(64) NOT NULL PRIMARY KEY,
  key_hash VARCHAR(64) NOT NULL,
  user_id BIGINT NOT NULL,
  remote_address VARCHAR(64) NOT NULL,
  created BIGINT NOT NULL,
  last_used BIGINT NOT NULL,
  idle_micros BIGINT NOT NULL
);
CREATE INDEX sessions_last_used ON sessions (last_used);
CREATE INDEX sessions_user ON sessions (user_id);
