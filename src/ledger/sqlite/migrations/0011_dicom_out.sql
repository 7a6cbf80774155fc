-- What goes to other nodes by C-STORE: documents that a channel sends with a message, and images that are forwarded. One row an
-- instance, so that each is stated, retried and found again after a crash.

CREATE TABLE sent_documents (
    notification_id INTEGER NOT NULL REFERENCES outbox (id),
    -- report or key-image.
    kind            TEXT NOT NULL,
    sop_uid         TEXT,
    state           TEXT NOT NULL CHECK (state IN ('stored', 'refused', 'unavailable')),
    -- What the peer or the node said, where it is not stored.
    error           TEXT,
    attempts        INTEGER NOT NULL DEFAULT 1,
    at              TEXT NOT NULL,
    PRIMARY KEY (notification_id, kind)
) STRICT, WITHOUT ROWID;

-- How far the instances and verdicts have been looked at for a destination: what is past these is still to be looked at.
CREATE TABLE forward_destinations (
    name          TEXT PRIMARY KEY,
    last_instance INTEGER NOT NULL,
    last_verdict  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE forwards (
    id              INTEGER PRIMARY KEY,
    -- The name of a destination in the configuration.
    destination     TEXT NOT NULL,
    instance_id     INTEGER NOT NULL REFERENCES instances (id),
    study_uid       TEXT NOT NULL,
    -- STAT, or of a flagged study: goes before others.
    urgent          INTEGER NOT NULL CHECK (urgent IN (0, 1)),
    state           TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'stored', 'failed')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    -- The transfer syntax that the peer took.
    transfer_syntax TEXT,
    last_error      TEXT,
    created_at      TEXT NOT NULL,
    stored_at       TEXT,
    UNIQUE (destination, instance_id)
) STRICT;
CREATE INDEX forwards_due ON forwards (destination, urgent DESC, id) WHERE state = 'pending';
CREATE INDEX forwards_failed ON forwards (destination) WHERE state = 'failed';
CREATE INDEX forwards_by_study ON forwards (study_uid, state);
-- A readable copy has taken the place of one that could not be read: it goes out, too.
CREATE TRIGGER forwards_again AFTER UPDATE OF digest ON instances WHEN NEW.digest <> OLD.digest BEGIN
    UPDATE forwards SET state = 'pending', attempts = 0, next_attempt_at = NEW.received_at, stored_at = NULL
    WHERE instance_id = NEW.id;
END;

CREATE VIEW document_log AS
SELECT d.notification_id, o.study_uid, o.revision, o.channel, d.kind, d.sop_uid, d.state, d.attempts, d.at, d.error
FROM sent_documents d JOIN outbox o ON o.id = d.notification_id;

CREATE VIEW forward_log AS
SELECT f.id, f.destination, f.study_uid, i.series_uid, i.sop_uid, f.state, f.urgent, f.attempts, f.created_at, f.stored_at,
       f.transfer_syntax, f.last_error, iif(f.state = 'pending', f.next_attempt_at, NULL) AS next_attempt_at
FROM forwards f JOIN instances i ON i.id = f.instance_id;
