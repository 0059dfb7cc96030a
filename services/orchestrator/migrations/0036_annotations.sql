-- Notes on hosts. The newest that isn't removed is on its host's row, too (`annotation`, `last_annotated`, `annotated_by`): it
-- is written in the same commit.
CREATE TABLE IF NOT EXISTS annotations (
  id BIGINT NOT NULL PRIMARY KEY,
  uuid VARCHAR(40) NOT NULL UNIQUE,
  entity_type VARCHAR(32) NOT NULL,
  entity_uuid VARCHAR(40) NOT NULL,
  annotation TEXT NOT NULL,
  user_uuid VARCHAR(40) NOT NULL,
  user_name VARCHAR(255) NOT NULL,
  created BIGINT NOT NULL,
  removed BIGINT
);
CREATE INDEX annotations_entity ON annotations (entity_type, entity_uuid, removed);
-- Those that updateHost made before: they bear their host's UUID.
INSERT INTO annotations (id, uuid, entity_type, entity_uuid, annotation, user_uuid, user_name, created)
  SELECT -id, uuid, 'HOST', uuid, annotation, '', COALESCE(annotated_by, ''), COALESCE(last_annotated, created) FROM hosts
  WHERE annotation IS NOT NULL AND NOT EXISTS (SELECT 1 FROM annotations a WHERE a.uuid = hosts.uuid);
