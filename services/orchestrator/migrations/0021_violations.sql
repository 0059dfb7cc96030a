-- What the last audit found: whoever leads the duty tells only of what appears and what disappears.
CREATE TABLE IF NOT EXISTS violations (
  check_name VARCHAR(64) NOT NULL,
  resource VARCHAR(255) NOT NULL,
  severity VARCHAR(16) NOT NULL,
  what TEXT NOT NULL,
  found BIGINT NOT NULL,
  PRIMARY KEY (check_name, resource)
);
