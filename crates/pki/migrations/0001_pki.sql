-- The built-in certificate authority. `key_sealed` is the root's private key, sealed by the vault.
CREATE TABLE IF NOT EXISTS ca_certificates (
  id BIGINT NOT NULL PRIMARY KEY,
  certificate_pem TEXT NOT NULL,
  key_sealed TEXT NOT NULL,
  not_after BIGINT NOT NULL,
  created BIGINT NOT NULL
);
-- What was issued and hasn't expired. `subject` is the URI name: arcus://service/NAME or arcus://host/UUID.
CREATE TABLE IF NOT EXISTS issued_certificates (
  serial VARCHAR(40) NOT NULL PRIMARY KEY,
  subject VARCHAR(255) NOT NULL,
  not_after BIGINT NOT NULL,
  issued BIGINT NOT NULL,
  revoked BIGINT,
  reason VARCHAR(255)
);
CREATE INDEX issued_certificates_subject ON issued_certificates (subject);
CREATE INDEX issued_certificates_revoked ON issued_certificates (revoked);
CREATE INDEX issued_certificates_end ON issued_certificates (not_after);
-- Enrolment tokens, hashed. `uses_left` is NULL for those that may be used until they expire.
CREATE TABLE IF NOT EXISTS enrolment_tokens (
  uuid VARCHAR(40) NOT NULL PRIMARY KEY,
  token_hash VARCHAR(64) NOT NULL UNIQUE,
  kind VARCHAR(16) NOT NULL,
  uses_left BIGINT,
  expires BIGINT NOT NULL,
  created BIGINT NOT NULL,
  created_by VARCHAR(255) NOT NULL,
  revoked BIGINT
);
-- Agents that were enrolled. The same token and key give the same agent, so that a lost answer can be asked for again.
CREATE TABLE IF NOT EXISTS agents (
  uuid VARCHAR(40) NOT NULL PRIMARY KEY,
  kind VARCHAR(16) NOT NULL,
  name VARCHAR(255) NOT NULL,
  enrolment_key VARCHAR(130) NOT NULL UNIQUE,
  enrolled BIGINT NOT NULL,
  revoked BIGINT
);
