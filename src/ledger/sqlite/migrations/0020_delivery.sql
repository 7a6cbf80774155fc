-- Who of several recipients has a message that not all of them have: they are not sent it again.
CREATE TABLE told_recipients (
    notification_id INTEGER NOT NULL REFERENCES outbox (id),
    recipient       TEXT NOT NULL,
    at              TEXT NOT NULL,
    PRIMARY KEY (notification_id, recipient)
) STRICT, WITHOUT ROWID;

-- A message that was overtaken before it arrived: its study is flagged since, and "could not be judged" must not be the last that people
-- read of it. There is nothing left to do, so its state is 'delivered', without a delivered_at; it was no notification, so the log leaves it out.
ALTER TABLE outbox ADD COLUMN withdrawn_at TEXT;
DROP VIEW notification_log;
CREATE VIEW notification_log AS
SELECT id, study_uid, revision, channel, state, attempts, created_at, delivered_at, acknowledged_at, last_error,
       kind, step, iif(state = 'delivered', NULL, next_attempt_at) AS next_attempt_at
FROM outbox WHERE withdrawn_at IS NULL;

-- An acknowledgement by a process that does not know who is to hear of it (`triaged ack`): the node tells of it.
ALTER TABLE acknowledgements ADD COLUMN untold INTEGER NOT NULL DEFAULT 0 CHECK (untold IN (0, 1));
CREATE INDEX acknowledgements_untold ON acknowledgements (id) WHERE untold = 1;

-- Whoever has seen a study that could be judged after all need not be told that it could not.
CREATE TRIGGER escalations_cancelled_by_a_look AFTER UPDATE OF seen_at ON studies WHEN NEW.seen_at IS NOT NULL BEGIN
    UPDATE escalations SET state = 'cancelled', ended_at = NEW.seen_at
    WHERE study_uid = NEW.study_uid AND state = 'waiting' AND kind = 'incomplete';
END;
