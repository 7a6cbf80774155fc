-- What this ledger shares with its archive. Every transaction of the program counts the generation up, and the archive is told of it every
-- few seconds. The row takes the place of the pulse, too. 0: no archive was told yet.
DROP TABLE pulse;
CREATE TABLE identity (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    uuid       TEXT NOT NULL,
    generation INTEGER NOT NULL,
    at         TEXT NOT NULL
) STRICT;

-- When an instance's file was found to be gone, though nobody had removed it by a rule. NULL again once it is back.
ALTER TABLE instances ADD COLUMN lost_at TEXT;
CREATE INDEX instances_lost ON instances (study_uid) WHERE lost_at IS NOT NULL;
CREATE VIEW lost_files AS
SELECT study_uid, series_uid, sop_uid, path, received_at, lost_at FROM instances WHERE lost_at IS NOT NULL;

-- When the file of an object that was set aside was removed (archive.retention_days, archive.max_gib). `path` is empty once it is gone.
ALTER TABLE quarantine ADD COLUMN removed_at TEXT;
CREATE INDEX quarantine_kept ON quarantine (received_at, size) WHERE removed_at IS NULL;
CREATE INDEX quarantine_going ON quarantine (id) WHERE removed_at IS NOT NULL AND path <> '';
DROP VIEW set_aside;
CREATE VIEW set_aside AS
SELECT study_uid, series_uid, sop_uid, kind, reason, path, calling_ae, received_at, removed_at FROM quarantine;
