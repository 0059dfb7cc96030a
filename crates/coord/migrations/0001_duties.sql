-- Singleton duties. `epoch` rises with each new holder, `seq` with each write of the holder: a deposed one can't write.
CREATE TABLE IF NOT EXISTS duties (
  name VARCHAR(64) NOT NULL PRIMARY KEY,
  epoch BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  owner VARCHAR(255) NOT NULL
);
