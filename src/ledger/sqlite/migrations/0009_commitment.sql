-- Requests of storage commitment (PS3.4 J), each until its report is delivered, and after.
CREATE TABLE commitments (
    id              INTEGER PRIMARY KEY,
    transaction_uid TEXT NOT NULL,
    calling_ae      TEXT NOT NULL,
    called_ae       TEXT NOT NULL,
    peer            TEXT,
    address         TEXT NOT NULL,
    items           TEXT NOT NULL CHECK (json_valid(items)),
    state           TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    requested_at    TEXT NOT NULL,
    next_attempt_at TEXT NOT NULL,
    delivered_at    TEXT,
    -- Instances by the report that was delivered.
    committed       INTEGER,
    failed          INTEGER,
    last_error      TEXT,
    UNIQUE (calling_ae, transaction_uid)
) STRICT;
CREATE INDEX commitments_pending ON commitments (next_attempt_at) WHERE state = 'pending';
CREATE INDEX quarantine_by_sop ON quarantine (sop_uid) WHERE kind = 'conflict';

CREATE VIEW commitment_log AS
SELECT id, transaction_uid, calling_ae, called_ae, peer, address, state, attempts, requested_at, delivered_at,
       json_array_length(items) AS instances, committed, failed, last_error
FROM commitments;
