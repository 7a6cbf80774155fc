-- Messages are about more than flags: an event of any kind, told once a channel and occasion; some are about the node and no
-- study. SQLite cannot change a table's constraints, so the table is made anew. The views that name it stay as they are:
-- with the legacy rename they are not looked at.
PRAGMA legacy_alter_table = ON;
CREATE TABLE outbox_new (
    id              INTEGER PRIMARY KEY,
    -- NULL: about the node.
    study_uid       TEXT REFERENCES studies (study_uid),
    revision        INTEGER NOT NULL,
    -- The name of a channel in the configuration.
    channel         TEXT NOT NULL,
    -- The kind of event: flagged, revised, incomplete, not_flagged, acknowledged, delivery_failed, node_trouble.
    kind            TEXT NOT NULL,
    finding         TEXT NOT NULL,
    model_sha256    TEXT NOT NULL,
    -- Which of several events of one kind about one study, e.g. 'revision 2'; empty where there is one at most.
    occasion        TEXT NOT NULL DEFAULT '',
    -- 0: told at once; 1 and more: a step of escalation, because nobody acknowledged.
    step            INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT NOT NULL UNIQUE,
    -- JSON with its version in `format`.
    event           TEXT NOT NULL,
    state           TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    -- For a dead message: when it is tried again, slowly, until it is too old.
    next_attempt_at TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    delivered_at    TEXT,
    acknowledged_at TEXT,
    last_error      TEXT,
    last_attempt_at TEXT,
    -- When other channels were told that this message does not arrive.
    reported_at     TEXT
) STRICT;
INSERT INTO outbox_new (id, study_uid, revision, channel, kind, finding, model_sha256, idempotency_key, event, state,
                        attempts, next_attempt_at, created_at, delivered_at, acknowledged_at, last_error, reported_at)
SELECT id, study_uid, revision, channel, iif(kind = 'alert', 'flagged', kind), finding, model_sha256, idempotency_key, event,
       state, attempts, next_attempt_at, created_at, delivered_at, acknowledged_at, last_error,
       -- What is undelivered from before the change is an administrator's to see, not news for other channels.
       iif(state = 'delivered', NULL, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
FROM outbox;
DROP TABLE outbox;
ALTER TABLE outbox_new RENAME TO outbox;
PRAGMA legacy_alter_table = OFF;

-- One alarm: an event is told once a channel, and once a step of its escalation.
CREATE UNIQUE INDEX outbox_once
    ON outbox (coalesce(study_uid, ''), channel, kind, finding, model_sha256, occasion, step);
CREATE INDEX outbox_by_study ON outbox (study_uid);
CREATE INDEX outbox_pending ON outbox (next_attempt_at) WHERE state = 'pending';
CREATE INDEX outbox_dead ON outbox (channel, next_attempt_at) WHERE state = 'dead';
CREATE INDEX outbox_unreported ON outbox (created_at) WHERE state <> 'delivered' AND reported_at IS NULL;

DROP VIEW notification_log;
CREATE VIEW notification_log AS
SELECT id, study_uid, revision, channel, state, attempts, created_at, delivered_at, acknowledged_at, last_error,
       kind, step, iif(state = 'delivered', NULL, next_attempt_at) AS next_attempt_at
FROM outbox;

-- Who hears of an event when nobody has acknowledged it by then. An acknowledgement ends what waits for the study.
CREATE TABLE escalations (
    id         INTEGER PRIMARY KEY,
    study_uid    TEXT NOT NULL REFERENCES studies (study_uid),
    revision     INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    finding      TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    occasion     TEXT NOT NULL,
    step         INTEGER NOT NULL CHECK (step > 0),
    channel      TEXT NOT NULL,
    event        TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    due_at       TEXT NOT NULL,
    state        TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'told', 'cancelled')),
    ended_at     TEXT,
    UNIQUE (study_uid, channel, kind, finding, model_sha256, occasion, step)
) STRICT;
CREATE INDEX escalations_waiting ON escalations (due_at) WHERE state = 'waiting';
CREATE TRIGGER escalations_cancelled AFTER UPDATE OF acknowledged_at ON studies WHEN NEW.acknowledged_at IS NOT NULL BEGIN
    UPDATE escalations SET state = 'cancelled', ended_at = NEW.acknowledged_at
    WHERE study_uid = NEW.study_uid AND state = 'waiting';
END;

-- The key that signs acknowledge links, made by the node that first needs it.
CREATE TABLE link_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL
) STRICT;
-- Acknowledge links that were used: each works once.
CREATE TABLE used_links (
    nonce      TEXT PRIMARY KEY,
    study_uid  TEXT NOT NULL,
    used_at    TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
