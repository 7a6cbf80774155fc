-- The worklist page: its order, its search, and what readers say of a verdict.

-- The words by which people find a study: of patient's name, patient ID and accession number, folded (search.rs), former ones too.
CREATE TABLE study_words (
    word      TEXT NOT NULL,
    study_uid TEXT NOT NULL REFERENCES studies (study_uid),
    PRIMARY KEY (word, study_uid)
) STRICT, WITHOUT ROWID;

-- What still needs a person comes first: unread flagged, unread incomplete, receiving, and then the rest, the newest first. The
-- expression is that of WORKING_GROUP in worklist.rs, word for word: SQLite uses such an index for nothing else.
CREATE INDEX studies_working_order ON studies (
    CASE WHEN flagged IS 1 AND acknowledged_at IS NULL THEN 0 WHEN verdict IS 'incomplete' AND acknowledged_at IS NULL THEN 1 WHEN state = 'receiving' THEN 2 ELSE 3 END,
    last_received_at DESC
);
CREATE INDEX studies_by_score ON studies (score);
CREATE INDEX studies_by_name ON studies (patient_name COLLATE NOCASE);
CREATE INDEX studies_by_verdict ON studies (verdict, last_received_at);

-- Whether a reader agrees with a verdict. Nothing is removed: the latest of an actor on a verdict counts.
CREATE TABLE feedback (
    id         INTEGER PRIMARY KEY,
    study_uid  TEXT NOT NULL REFERENCES studies (study_uid),
    verdict_id INTEGER NOT NULL REFERENCES verdicts (id),
    opinion    TEXT NOT NULL CHECK (opinion IN ('agree', 'disagree')),
    actor      TEXT NOT NULL,
    note       TEXT,
    at         TEXT NOT NULL
) STRICT;
CREATE INDEX feedback_by_study ON feedback (study_uid, id);

-- Each opinion with the verdict that it is on. `label` is what the reader says of the study: 1 the finding is present, 0 it is
-- absent, NULL where the verdict was incomplete.
CREATE VIEW feedback_log AS
SELECT f.id, f.study_uid, f.opinion, f.actor, f.note, f.at, v.verdict, v.revision, v.score, v.threshold, v.model, v.model_sha256,
       CASE WHEN v.flagged IS NULL THEN NULL WHEN f.opinion = 'agree' THEN v.flagged ELSE 1 - v.flagged END AS label
FROM feedback f JOIN verdicts v ON v.id = f.verdict_id;
