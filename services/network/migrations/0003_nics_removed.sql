-- Removed interfaces are looked for by the duty that deletes them.
CREATE INDEX nics_removed ON nics (removed);
