-- How the node has been doing, minute by minute, for the plots of the node page; kept for eight days.
CREATE TABLE measurements (
    at             TEXT PRIMARY KEY,
    -- Slices that wait to be scored.
    waiting        INTEGER NOT NULL,
    -- On the archive's disk; NULL where it does not say.
    free_bytes     INTEGER,
    -- Slices that were scored since the measurement before, and how long half of them and 95 of 100 took from received to scored.
    slices         INTEGER NOT NULL,
    median_seconds REAL,
    most_seconds   REAL
) STRICT, WITHOUT ROWID;

CREATE VIEW measurement_log AS
SELECT at, waiting, free_bytes, slices, median_seconds, most_seconds FROM measurements;

-- Whether a study has a word: a search for a word that thousands have walks the studies in their order, and asks this of each.
CREATE INDEX study_words_by_study ON study_words (study_uid, word);
