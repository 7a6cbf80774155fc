-- A second model in shadow: what it scores is kept beside the results and used by nothing. Its tables are its own, so that
-- whatever reads scores, verdicts and the worklist cannot meet a shadow score by mistake.

-- Every model that ran in shadow, and which one does at present.
CREATE TABLE shadow_models (
    id              INTEGER PRIMARY KEY,
    model           TEXT NOT NULL,
    model_sha256    TEXT NOT NULL UNIQUE,
    -- From its card: for its verdicts, which are computed when somebody asks.
    slice_threshold REAL NOT NULL,
    rule            TEXT NOT NULL,
    present         INTEGER NOT NULL CHECK (present IN (0, 1)),
    started_at      TEXT NOT NULL,
    -- Studies whose last slice came before this were never its concern.
    since           TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX shadow_models_present ON shadow_models (present) WHERE present = 1;

-- Slices that the present shadow model is still to score. Attempts and claims as in `slices`.
CREATE TABLE shadow_queue (
    slice_id INTEGER PRIMARY KEY REFERENCES slices (id),
    attempts INTEGER NOT NULL DEFAULT 0,
    claims   INTEGER NOT NULL DEFAULT 0
) STRICT;
-- What failed waits behind what was not tried; of those the newest first.
CREATE INDEX shadow_queue_order ON shadow_queue (attempts, slice_id DESC);

CREATE TABLE shadow_scores (
    slice_id    INTEGER NOT NULL REFERENCES slices (id),
    model_id    INTEGER NOT NULL REFERENCES shadow_models (id),
    state       TEXT NOT NULL CHECK (state IN ('scored', 'failed')),
    reason      TEXT,
    probability REAL,
    positive    INTEGER CHECK (positive IN (0, 1)),
    threshold   REAL NOT NULL,
    provider    TEXT NOT NULL,
    software    TEXT NOT NULL,
    claimed_at  TEXT NOT NULL,
    decoded_at  TEXT,
    scored_at   TEXT NOT NULL,
    PRIMARY KEY (slice_id, model_id),
    CHECK ((state = 'scored') = (probability IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- A slice that ended is the shadow model's to score, in the transaction of its end: no crash can part the two. A failed
-- one too, for the failure may be the other model's own; an ineligible one not. Without a shadow model this costs one look
-- at an empty index.
CREATE TRIGGER slice_ended AFTER UPDATE OF state ON slices
WHEN OLD.state = 'queued' AND NEW.state IN ('scored', 'failed') BEGIN
    INSERT INTO shadow_queue (slice_id)
    SELECT NEW.id FROM shadow_models m
    WHERE m.present = 1
      AND NOT EXISTS (SELECT 1 FROM shadow_scores x WHERE x.slice_id = NEW.id AND x.model_id = m.id)
    ON CONFLICT DO NOTHING;
END;

-- For administrators; its columns stay. scored_at is the moment of the end for a failed slice, too.
CREATE VIEW shadow_results AS
SELECT i.study_uid, i.series_uid, i.sop_uid, s.frame, i.instance_number, x.state, x.reason,
       x.probability, x.positive, x.threshold, m.model, m.model_sha256, x.provider, i.received_at, x.scored_at
FROM shadow_scores x JOIN shadow_models m ON m.id = x.model_id
JOIN slices s ON s.id = x.slice_id JOIN instances i ON i.id = s.instance_id;
