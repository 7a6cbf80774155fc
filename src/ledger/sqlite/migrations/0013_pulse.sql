-- One row, written every few seconds: whether the database keeps what it is given.
CREATE TABLE pulse (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    beat INTEGER NOT NULL,
    at   TEXT NOT NULL
) STRICT;
