-- Who did what: one row for each deed, written in the deed's own transaction, and never changed. A hash chain over the rows
-- can be added as two columns.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT NOT NULL,
    -- A person, an access token, a peer on the network, or the system itself.
    actor_kind TEXT NOT NULL CHECK (actor_kind IN ('person', 'token', 'peer', 'system')),
    actor      TEXT NOT NULL,
    deed       TEXT NOT NULL,
    -- The study that it was done to, if any. No reference: the row stays whatever becomes of the study.
    study_uid  TEXT,
    -- What else is to be known of the deed: a JSON object.
    details    TEXT NOT NULL CHECK (json_valid(details))
) STRICT;
CREATE INDEX audit_by_study ON audit (study_uid) WHERE study_uid IS NOT NULL;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- INSERT OR REPLACE removes a row without the trigger above.
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
