-- Tokens of consoles that opened a connection: each opens only one. Kept a little longer than they are good for.
CREATE TABLE IF NOT EXISTS console_tokens (
  nonce VARCHAR(32) NOT NULL PRIMARY KEY,
  expires BIGINT NOT NULL
);
CREATE INDEX console_tokens_expires ON console_tokens (expires);
