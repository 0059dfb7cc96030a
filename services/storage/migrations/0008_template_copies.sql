-- Since when no volume on the pool was made from the template, as far as was looked, UTC µs; NULL: there is one. Its copy is
-- removed when it has been so for storage.cleanup.interval.
ALTER TABLE template_pool_refs ADD COLUMN unused_since BIGINT;
