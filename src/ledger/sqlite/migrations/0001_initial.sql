-- Times are UTC ISO 8601 with milliseconds, e.g. 2026-11-23T15:42:07.123Z; they sort as text.

CREATE TABLE studies (
    study_uid         TEXT PRIMARY KEY,
    accession_number  TEXT,
    patient_id        TEXT,
    state             TEXT NOT NULL DEFAULT 'receiving' CHECK (state IN ('receiving', 'decided')),
    revision          INTEGER NOT NULL DEFAULT 1,
    flagged           INTEGER CHECK (flagged IN (0, 1)),
    score             REAL,
    threshold         REAL,
    slices_received   INTEGER NOT NULL DEFAULT 0,
    slices_scored     INTEGER NOT NULL DEFAULT 0,
    slices_ineligible INTEGER NOT NULL DEFAULT 0,
    slices_failed     INTEGER NOT NULL DEFAULT 0,
    first_received_at TEXT NOT NULL,
    last_received_at  TEXT NOT NULL,
    -- The first and the last moment at which something changed in this revision: the hard cap and the quiet time.
    opened_at         TEXT NOT NULL,
    decided_at        TEXT,
    acknowledged_at   TEXT
) STRICT;
CREATE INDEX studies_open ON studies (study_uid) WHERE state = 'receiving';
CREATE INDEX studies_by_time ON studies (last_received_at);

CREATE TABLE instances (
    id              INTEGER PRIMARY KEY,
    sop_uid         TEXT NOT NULL UNIQUE,
    sop_class_uid   TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    study_uid       TEXT NOT NULL REFERENCES studies (study_uid),
    series_uid      TEXT NOT NULL,
    instance_number INTEGER,
    -- SHA-256 of the data set as it came, hexadecimal.
    digest          TEXT NOT NULL,
    -- Relative to the data folder.
    path            TEXT NOT NULL,
    size            INTEGER NOT NULL,
    calling_ae      TEXT NOT NULL,
    peer            TEXT NOT NULL,
    received_at     TEXT NOT NULL
) STRICT;
CREATE INDEX instances_by_study ON instances (study_uid);

-- Objects that were kept but not taken in: the same SOP Instance UID with other content, or a data set that cannot be read.
CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    sop_uid     TEXT NOT NULL,
    study_uid   TEXT,
    digest      TEXT NOT NULL,
    path        TEXT NOT NULL,
    reason      TEXT NOT NULL,
    calling_ae  TEXT NOT NULL,
    peer        TEXT NOT NULL,
    received_at TEXT NOT NULL,
    UNIQUE (sop_uid, digest)
) STRICT;

-- A slice is (instance, frame); frames count from 1. `study_uid` repeats the instance's for the index.
CREATE TABLE slices (
    id          INTEGER PRIMARY KEY,
    instance_id INTEGER NOT NULL REFERENCES instances (id),
    study_uid   TEXT NOT NULL REFERENCES studies (study_uid),
    frame       INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'scored', 'ineligible', 'failed')),
    reason      TEXT,
    -- Claims that were recorded as ended, and claims in all: what is missing ended with the process.
    attempts    INTEGER NOT NULL DEFAULT 0,
    claims      INTEGER NOT NULL DEFAULT 0,
    -- 0 as it came from a scanner, 1 scored again: a new patient never waits for those.
    priority    INTEGER NOT NULL DEFAULT 0,
    score_id    INTEGER REFERENCES scores (id),
    UNIQUE (instance_id, frame)
) STRICT;
CREATE INDEX slices_queued ON slices (priority, id) WHERE state = 'queued';
CREATE INDEX slices_by_study ON slices (study_uid, state);

-- Every score ever given, so that a number on an old verdict can still be traced.
CREATE TABLE scores (
    id           INTEGER PRIMARY KEY,
    slice_id     INTEGER NOT NULL REFERENCES slices (id),
    probability  REAL NOT NULL,
    positive     INTEGER NOT NULL CHECK (positive IN (0, 1)),
    threshold    REAL NOT NULL,
    model        TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    provider     TEXT NOT NULL,
    software     TEXT NOT NULL,
    claimed_at   TEXT NOT NULL,
    decoded_at   TEXT NOT NULL,
    scored_at    TEXT NOT NULL
) STRICT;
CREATE INDEX scores_by_slice ON scores (slice_id);

-- Every verdict ever given. A provisional one precedes the study's completion.
CREATE TABLE verdicts (
    id                INTEGER PRIMARY KEY,
    study_uid         TEXT NOT NULL REFERENCES studies (study_uid),
    revision          INTEGER NOT NULL,
    provisional       INTEGER NOT NULL CHECK (provisional IN (0, 1)),
    flagged           INTEGER CHECK (flagged IN (0, 1)),
    score             REAL,
    threshold         REAL NOT NULL,
    rule              TEXT NOT NULL,
    model             TEXT NOT NULL,
    model_sha256      TEXT NOT NULL,
    software          TEXT NOT NULL,
    slices_scored     INTEGER NOT NULL,
    slices_ineligible INTEGER NOT NULL,
    slices_failed     INTEGER NOT NULL,
    decided_at        TEXT NOT NULL
) STRICT;
CREATE INDEX verdicts_by_study ON verdicts (study_uid, revision);

-- One row a message and channel, written in the transaction of the verdict that caused it.
CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY,
    study_uid       TEXT NOT NULL REFERENCES studies (study_uid),
    revision        INTEGER NOT NULL,
    channel         TEXT NOT NULL,
    kind            TEXT NOT NULL,
    finding         TEXT NOT NULL,
    model_sha256    TEXT NOT NULL,
    idempotency_key TEXT NOT NULL UNIQUE,
    -- The event, channel-neutral JSON.
    event           TEXT NOT NULL,
    state           TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    delivered_at    TEXT,
    acknowledged_at TEXT,
    last_error      TEXT,
    -- One alarm: a study alerts once a finding and model on each channel.
    UNIQUE (study_uid, channel, kind, finding, model_sha256)
) STRICT;
CREATE INDEX outbox_pending ON outbox (next_attempt_at) WHERE state = 'pending';
CREATE INDEX outbox_dead ON outbox (channel) WHERE state = 'dead';

-- The counters of a study follow its slices, so the worklist never scans them.
CREATE TRIGGER slice_inserted AFTER INSERT ON slices BEGIN
    UPDATE studies SET
        slices_received   = slices_received + 1,
        slices_scored     = slices_scored + (NEW.state = 'scored'),
        slices_ineligible = slices_ineligible + (NEW.state = 'ineligible'),
        slices_failed     = slices_failed + (NEW.state = 'failed')
    WHERE study_uid = NEW.study_uid;
END;
CREATE TRIGGER slice_changed AFTER UPDATE OF state ON slices WHEN OLD.state <> NEW.state BEGIN
    UPDATE studies SET
        slices_scored     = slices_scored + (NEW.state = 'scored') - (OLD.state = 'scored'),
        slices_ineligible = slices_ineligible + (NEW.state = 'ineligible') - (OLD.state = 'ineligible'),
        slices_failed     = slices_failed + (NEW.state = 'failed') - (OLD.state = 'failed')
    WHERE study_uid = NEW.study_uid;
END;

-- The views that administrators may query; their columns stay.
CREATE VIEW slice_results AS
SELECT i.study_uid, i.series_uid, i.sop_uid, s.frame, i.instance_number, s.state, s.reason,
       c.probability, c.positive, c.model, c.model_sha256, c.provider, i.received_at, c.scored_at
FROM slices s JOIN instances i ON i.id = s.instance_id LEFT JOIN scores c ON c.id = s.score_id;

CREATE VIEW worklist AS
SELECT study_uid, accession_number, patient_id, state, flagged, score, threshold,
       slices_received, slices_scored, slices_ineligible, slices_failed,
       first_received_at, last_received_at, decided_at,
       (SELECT min(delivered_at) FROM outbox o WHERE o.study_uid = studies.study_uid) AS notified_at,
       acknowledged_at, revision
FROM studies;

CREATE VIEW notification_log AS
SELECT id, study_uid, revision, channel, state, attempts, created_at, delivered_at, acknowledged_at, last_error
FROM outbox;
