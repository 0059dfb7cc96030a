-- `touched` rises when something is put into a zone, pod or cluster: whoever deletes one raises it too, so that of the two
-- only one commits.
ALTER TABLE zones ADD COLUMN touched BIGINT NOT NULL DEFAULT 0;
ALTER TABLE pods ADD COLUMN touched BIGINT NOT NULL DEFAULT 0;
ALTER TABLE clusters ADD COLUMN touched BIGINT NOT NULL DEFAULT 0;
CREATE INDEX service_offerings_live ON service_offerings (removed, sort_key, id);
CREATE INDEX os_types_category ON os_types (category_id);
