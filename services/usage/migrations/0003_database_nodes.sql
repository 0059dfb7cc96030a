-- What was told last of each node of the database: whoever watches next tells the difference.
CREATE TABLE IF NOT EXISTS database_nodes (
  address VARCHAR(255) NOT NULL PRIMARY KEY,
  state VARCHAR(16) NOT NULL,
  in_use SMALLINT NOT NULL
);
