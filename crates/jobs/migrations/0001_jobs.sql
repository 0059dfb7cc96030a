-- A job: an asynchronous command under way or ended. Every write of its worker begins with
-- `UPDATE jobs SET seq = seq + 1 … WHERE id = ? AND epoch = ? AND seq = ?`.
CREATE TABLE IF NOT EXISTS jobs (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(36) NOT NULL,
  service VARCHAR(32) NOT NULL,
  kind VARCHAR(64) NOT NULL,
  version BIGINT NOT NULL,
  command VARCHAR(96) NOT NULL,
  job_class VARCHAR(255) NOT NULL,
  input MEDIUMBLOB NOT NULL,
  caller BLOB NOT NULL,
  account_id BIGINT NOT NULL,
  user_id BIGINT NOT NULL,
  domain_id BIGINT NOT NULL,
  domain_path VARCHAR(255) NOT NULL,
  resource_owner BLOB NOT NULL,
  claims BLOB NOT NULL,
  state VARCHAR(16) NOT NULL,
  seq BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  owner VARCHAR(64),
  takeovers BIGINT NOT NULL,
  cancel BIGINT NOT NULL,
  instance_type VARCHAR(64),
  instance_uuid VARCHAR(36),
  event VARCHAR(64) NOT NULL,
  event_start VARCHAR(36),
  description VARCHAR(1024) NOT NULL,
  step VARCHAR(128),
  attempt BIGINT,
  deadline BIGINT,
  result MEDIUMBLOB,
  error BLOB,
  created BIGINT NOT NULL,
  started BIGINT,
  ended BIGINT
);
CREATE UNIQUE INDEX jobs_uuid ON jobs (uuid);
CREATE INDEX jobs_live ON jobs (service, state);
CREATE INDEX jobs_account ON jobs (account_id);
CREATE INDEX jobs_domain ON jobs (domain_path);
CREATE INDEX jobs_instance ON jobs (instance_uuid);
CREATE INDEX jobs_ended ON jobs (ended);

-- The journal: what finished, or may have taken place (result NULL), and how it is undone.
CREATE TABLE IF NOT EXISTS job_steps (
  job_id BIGINT NOT NULL,
  name VARCHAR(128) NOT NULL,
  seq_no BIGINT NOT NULL,
  input_hash VARCHAR(32) NOT NULL,
  result MEDIUMBLOB,
  undo_data BLOB,
  undone BIGINT NOT NULL,
  PRIMARY KEY (job_id, name)
);

-- Who holds a resource: one job exclusively, or so many shared. `waiting` counts all tickets, `waiting_x` the exclusive ones.
CREATE TABLE IF NOT EXISTS claims (
  resource VARCHAR(128) NOT NULL PRIMARY KEY,
  exclusive BIGINT NOT NULL,
  shared BIGINT NOT NULL,
  waiting BIGINT NOT NULL,
  waiting_x BIGINT NOT NULL,
  next_ticket BIGINT NOT NULL,
  version BIGINT NOT NULL,
  stamp BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS claim_queue (
  resource VARCHAR(128) NOT NULL,
  ticket BIGINT NOT NULL,
  job_id BIGINT NOT NULL,
  is_exclusive BIGINT NOT NULL,
  PRIMARY KEY (resource, ticket)
);
CREATE INDEX claim_queue_job ON claim_queue (job_id);

-- What receivers of keyed calls have done, so that a repeat answers the same, and what may not be done any more (Undone).
CREATE TABLE IF NOT EXISTS effects (
  job_id BIGINT NOT NULL,
  step VARCHAR(192) NOT NULL,
  epoch BIGINT NOT NULL,
  state VARCHAR(16) NOT NULL,
  result MEDIUMBLOB,
  undo_data BLOB,
  created BIGINT NOT NULL,
  PRIMARY KEY (job_id, step)
);
CREATE INDEX effects_created ON effects (created);

-- Answers of mutating commands, kept for a day. Keys that begin with ~ are our own: they tell whether a COMMIT took place.
CREATE TABLE IF NOT EXISTS idempotency (
  account_id BIGINT NOT NULL,
  idem_key VARCHAR(255) NOT NULL,
  request_hash BLOB NOT NULL,
  answer MEDIUMBLOB,
  created BIGINT NOT NULL,
  PRIMARY KEY (account_id, idem_key)
);
CREATE INDEX idempotency_created ON idempotency (created);
