-- When an instance's file was removed from the archive (archive.retention_days, archive.max_gib). The row stays, and with it
-- every result. `path` is empty once the file is really gone; until then whoever starts next removes it.
ALTER TABLE instances ADD COLUMN removed_at TEXT;

-- What the archive keeps, oldest first, and how much that is.
CREATE INDEX instances_kept ON instances (received_at, size) WHERE removed_at IS NULL;
CREATE INDEX instances_going ON instances (id) WHERE removed_at IS NOT NULL AND path <> '';
