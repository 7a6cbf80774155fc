-- Who may use the web server, and what each may do. Passwords are argon2id hashes; of sessions and tokens only the SHA-256 is kept.
CREATE TABLE users (
    name          TEXT PRIMARY KEY,
    role          TEXT NOT NULL CHECK (role IN ('viewer', 'reader', 'operator', 'admin')),
    password_hash TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    -- Wrong passwords since the last right one.
    failures      INTEGER NOT NULL DEFAULT 0,
    locked_until  TEXT,
    last_login_at TEXT
) STRICT;

CREATE TABLE sessions (
    token_hash   TEXT PRIMARY KEY,
    user         TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_at   TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    expires_at   TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE api_tokens (
    name         TEXT PRIMARY KEY,
    token_hash   TEXT NOT NULL UNIQUE,
    -- Words with spaces between: read, acknowledge, operate, metrics.
    scopes       TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    expires_at   TEXT,
    last_used_at TEXT
) STRICT;

-- The hash chain of the audit log: SHA-256 over the hash of the row before and the row. Rows of earlier versions have none of
-- their own; the first row with a hash covers them.
ALTER TABLE audit ADD COLUMN hash TEXT;

-- The last row that was sent to the collector of audit messages.
CREATE TABLE audit_export (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    last_id INTEGER NOT NULL
) STRICT;
