-- An instance is Study, Series and SOP Instance UID; a verdict is flagged, not flagged or incomplete, and is given for each series; an
-- acknowledgement belongs to a verdict. Foreign keys are off while this runs: `instances` is built anew, because SQLite cannot drop the
-- constraint that a SOP Instance UID is there once.

DROP VIEW slice_results;
DROP VIEW shadow_results;
DROP VIEW worklist;

CREATE TABLE instances_anew (
    id              INTEGER PRIMARY KEY,
    sop_uid         TEXT NOT NULL,
    sop_class_uid   TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    study_uid       TEXT NOT NULL REFERENCES studies (study_uid),
    series_uid      TEXT NOT NULL,
    instance_number INTEGER,
    -- SHA-256 of the data set as it came, hexadecimal.
    digest          TEXT NOT NULL,
    -- Relative to the data folder; empty once the file was removed.
    path            TEXT NOT NULL,
    size            INTEGER NOT NULL,
    calling_ae      TEXT NOT NULL,
    peer            TEXT NOT NULL,
    received_at     TEXT NOT NULL,
    removed_at      TEXT,
    UNIQUE (study_uid, series_uid, sop_uid)
) STRICT;
INSERT INTO instances_anew
SELECT id, sop_uid, sop_class_uid, transfer_syntax, study_uid, series_uid, instance_number, digest, path, size, calling_ae, peer,
       received_at, removed_at
FROM instances;
DROP TABLE instances;
ALTER TABLE instances_anew RENAME TO instances;
CREATE INDEX instances_by_sop ON instances (sop_uid);
CREATE INDEX instances_by_sender ON instances (calling_ae, received_at);
CREATE INDEX instances_kept ON instances (received_at, size) WHERE removed_at IS NULL;
CREATE INDEX instances_going ON instances (id) WHERE removed_at IS NOT NULL AND path <> '';

ALTER TABLE slices ADD COLUMN position REAL;
ALTER TABLE slices ADD COLUMN orientation TEXT;
ALTER TABLE slices ADD COLUMN thickness REAL;
ALTER TABLE slices ADD COLUMN doubts TEXT;
ALTER TABLE slices ADD COLUMN is_substitute INTEGER NOT NULL DEFAULT 0 CHECK (is_substitute IN (0, 1));
-- What the header says against a head; the pixels decide.
ALTER TABLE slices ADD COLUMN head_check TEXT;
-- Turns of studies within an urgency.
CREATE INDEX slices_turns ON slices (priority, study_uid, id) WHERE state = 'queued';

ALTER TABLE studies ADD COLUMN verdict TEXT CHECK (verdict IN ('flagged', 'not flagged', 'incomplete'));
ALTER TABLE studies ADD COLUMN missing TEXT;
ALTER TABLE studies ADD COLUMN warnings TEXT;
ALTER TABLE studies ADD COLUMN set_aside INTEGER NOT NULL DEFAULT 0;
ALTER TABLE studies ADD COLUMN acknowledged_by TEXT;
ALTER TABLE studies ADD COLUMN seen_at TEXT;
ALTER TABLE studies ADD COLUMN seen_by TEXT;
-- Other values that came under the same Study Instance UID, the newest last, each in a line.
ALTER TABLE studies ADD COLUMN former_patient_ids TEXT;
ALTER TABLE studies ADD COLUMN former_accession_numbers TEXT;
ALTER TABLE studies ADD COLUMN patient_name TEXT;
ALTER TABLE studies ADD COLUMN birth_date TEXT;
ALTER TABLE studies ADD COLUMN sex TEXT;
ALTER TABLE studies ADD COLUMN referring_physician TEXT;
ALTER TABLE studies ADD COLUMN study_date TEXT;
ALTER TABLE studies ADD COLUMN study_description TEXT;
ALTER TABLE studies ADD COLUMN modality TEXT;
ALTER TABLE studies ADD COLUMN station_name TEXT;
ALTER TABLE studies ADD COLUMN institution_name TEXT;
ALTER TABLE studies ADD COLUMN calling_ae TEXT;
ALTER TABLE studies ADD COLUMN peer TEXT;
UPDATE studies SET
    verdict = CASE WHEN flagged = 1 THEN 'flagged' WHEN flagged = 0 THEN 'not flagged' WHEN state = 'decided' THEN 'incomplete' END,
    missing = iif(state = 'decided' AND flagged IS NULL, 'no slice could be triaged', NULL),
    calling_ae = (SELECT calling_ae FROM instances i WHERE i.study_uid = studies.study_uid ORDER BY id DESC LIMIT 1),
    peer = (SELECT peer FROM instances i WHERE i.study_uid = studies.study_uid ORDER BY id DESC LIMIT 1);
CREATE INDEX studies_by_accession ON studies (accession_number);
CREATE INDEX studies_by_patient ON studies (patient_id);
CREATE INDEX studies_by_date ON studies (study_date);
CREATE INDEX studies_by_sender ON studies (calling_ae, last_received_at);

DROP INDEX studies_reading_order;
DROP INDEX studies_unread;
CREATE INDEX studies_reading_order ON studies (
    flagged IS 1 AND acknowledged_at IS NULL DESC, verdict IS 'incomplete' AND acknowledged_at IS NULL DESC, flagged IS 1 DESC,
    verdict IS 'incomplete' DESC, last_received_at DESC
);
CREATE INDEX studies_unread ON studies (score) WHERE flagged = 1 AND acknowledged_at IS NULL;

ALTER TABLE verdicts ADD COLUMN verdict TEXT CHECK (verdict IN ('flagged', 'not flagged', 'incomplete'));
ALTER TABLE verdicts ADD COLUMN missing TEXT;
ALTER TABLE verdicts ADD COLUMN warnings TEXT;
ALTER TABLE verdicts ADD COLUMN positives INTEGER;
-- The series that were flagged, a JSON array of UIDs.
ALTER TABLE verdicts ADD COLUMN series_flagged TEXT;
-- The last object that was received before it.
ALTER TABLE verdicts ADD COLUMN last_received_at TEXT;
UPDATE verdicts SET verdict = CASE WHEN flagged = 1 THEN 'flagged' WHEN flagged = 0 THEN 'not flagged' ELSE 'incomplete' END;

CREATE TABLE series (
    study_uid       TEXT NOT NULL REFERENCES studies (study_uid),
    series_uid      TEXT NOT NULL,
    description     TEXT,
    kernel          TEXT,
    verdict         TEXT CHECK (verdict IN ('flagged', 'not flagged', 'incomplete')),
    score           REAL,
    threshold       REAL,
    -- Why it has no verdict, or what is missing.
    reason          TEXT,
    doubts          TEXT,
    positives       INTEGER NOT NULL DEFAULT 0,
    slices_received INTEGER NOT NULL DEFAULT 0,
    slices_scored   INTEGER NOT NULL DEFAULT 0,
    slices_failed   INTEGER NOT NULL DEFAULT 0,
    -- Of the study, when the verdict was given.
    revision        INTEGER,
    decided_at      TEXT,
    PRIMARY KEY (study_uid, series_uid)
) STRICT, WITHOUT ROWID;
INSERT INTO series (study_uid, series_uid, reason, slices_received, slices_scored, slices_failed)
SELECT i.study_uid, i.series_uid, 'judged with the whole study, by an earlier version', count(*), sum(s.state = 'scored'),
       sum(s.state = 'failed')
FROM instances i JOIN slices s ON s.instance_id = i.id GROUP BY i.study_uid, i.series_uid;

-- What persons did about verdicts. Nothing is removed: what is taken back is marked.
CREATE TABLE acknowledgements (
    id         INTEGER PRIMARY KEY,
    study_uid  TEXT NOT NULL REFERENCES studies (study_uid),
    -- The verdict that was seen; none before the first.
    verdict_id INTEGER REFERENCES verdicts (id),
    -- `acknowledged` a flagged or incomplete study, or `seen` another.
    kind       TEXT NOT NULL CHECK (kind IN ('acknowledged', 'seen')),
    actor      TEXT NOT NULL,
    note       TEXT,
    at         TEXT NOT NULL,
    undone_at  TEXT,
    undone_by  TEXT
) STRICT;
CREATE INDEX acknowledgements_by_study ON acknowledgements (study_uid, id);
INSERT INTO acknowledgements (study_uid, verdict_id, kind, actor, at)
SELECT study_uid,
       (SELECT max(v.id) FROM verdicts v WHERE v.study_uid = s.study_uid AND v.decided_at <= s.acknowledged_at),
       'acknowledged', 'not recorded by the version of then', acknowledged_at
FROM studies s WHERE acknowledged_at IS NOT NULL;

ALTER TABLE quarantine ADD COLUMN series_uid TEXT;
-- `conflict`: the UIDs of an instance with other content; `replaced`: a copy that could not be read and made room for another;
-- `unreadable`: refused.
ALTER TABLE quarantine ADD COLUMN kind TEXT NOT NULL DEFAULT 'unreadable' CHECK (kind IN ('conflict', 'replaced', 'unreadable'));
ALTER TABLE quarantine ADD COLUMN size INTEGER;
ALTER TABLE quarantine ADD COLUMN transfer_syntax TEXT;
UPDATE quarantine SET kind = 'conflict' WHERE study_uid IS NOT NULL;
CREATE INDEX quarantine_by_study ON quarantine (study_uid);
UPDATE studies SET set_aside = (SELECT count(*) FROM quarantine q WHERE q.study_uid = studies.study_uid AND q.kind = 'conflict');
CREATE TRIGGER set_aside_inserted AFTER INSERT ON quarantine WHEN NEW.kind = 'conflict' BEGIN
    UPDATE studies SET set_aside = set_aside + 1 WHERE study_uid = NEW.study_uid;
END;
CREATE TRIGGER set_aside_changed AFTER UPDATE OF kind ON quarantine WHEN OLD.kind <> NEW.kind BEGIN
    UPDATE studies SET set_aside = set_aside + (NEW.kind = 'conflict') - (OLD.kind = 'conflict') WHERE study_uid = NEW.study_uid;
END;
CREATE TRIGGER set_aside_removed AFTER DELETE ON quarantine WHEN OLD.kind = 'conflict' BEGIN
    UPDATE studies SET set_aside = set_aside - 1 WHERE study_uid = OLD.study_uid;
END;

-- The views that administrators may query; their columns stay, new ones come at the end.
CREATE VIEW slice_results AS
SELECT i.study_uid, i.series_uid, i.sop_uid, s.frame, i.instance_number, s.state, s.reason,
       c.probability, c.positive, c.model, c.model_sha256, c.provider, i.received_at, c.scored_at,
       s.position, s.thickness, s.doubts, i.calling_ae
FROM slices s JOIN instances i ON i.id = s.instance_id LEFT JOIN scores c ON c.id = s.score_id;

CREATE VIEW shadow_results AS
SELECT i.study_uid, i.series_uid, i.sop_uid, s.frame, i.instance_number, x.state, x.reason,
       x.probability, x.positive, x.threshold, m.model, m.model_sha256, x.provider, i.received_at, x.scored_at
FROM shadow_scores x JOIN shadow_models m ON m.id = x.model_id
JOIN slices s ON s.id = x.slice_id JOIN instances i ON i.id = s.instance_id;

CREATE VIEW worklist AS
SELECT study_uid, accession_number, patient_id, state, flagged, score, threshold,
       slices_received, slices_scored, slices_ineligible, slices_failed,
       first_received_at, last_received_at, decided_at,
       (SELECT min(delivered_at) FROM outbox o WHERE o.study_uid = studies.study_uid) AS notified_at,
       acknowledged_at, revision,
       verdict, missing, warnings, set_aside, acknowledged_by, seen_at, seen_by,
       -- From the last object before the first flagged verdict to its first delivered alert. Alerts may come before the study is whole.
       (SELECT max(0.0, (julianday(min(o.delivered_at)) - julianday(v.last_received_at)) * 86400.0)
        FROM verdicts v JOIN outbox o ON o.study_uid = v.study_uid AND o.revision = v.revision
        WHERE v.id = (SELECT min(id) FROM verdicts f WHERE f.study_uid = studies.study_uid AND f.flagged = 1)
          AND o.kind = 'flagged' AND o.delivered_at IS NOT NULL) AS seconds_to_alert,
       former_patient_ids, former_accession_numbers, patient_name, birth_date, sex, referring_physician,
       study_date, study_description, modality, station_name, institution_name, calling_ae, peer
FROM studies;

CREATE VIEW series_results AS
SELECT study_uid, series_uid, description, kernel, verdict, score, threshold, reason, doubts, positives,
       slices_received, slices_scored, slices_failed, revision, decided_at
FROM series;

CREATE VIEW acknowledgement_log AS
SELECT a.study_uid, a.kind, a.actor, a.note, a.at, v.verdict, v.revision, a.undone_at, a.undone_by
FROM acknowledgements a LEFT JOIN verdicts v ON v.id = a.verdict_id;

CREATE VIEW set_aside AS
SELECT study_uid, series_uid, sop_uid, kind, reason, path, calling_ae, received_at FROM quarantine;
