-- Rounds of the leader of the duty `host-watch`: a replica that has no lease in etcd sees by them that others go on without it.
CREATE TABLE host_watch (
  id BIGINT NOT NULL PRIMARY KEY,
  round BIGINT NOT NULL
);
INSERT INTO host_watch (id, round) VALUES (1, 0);
