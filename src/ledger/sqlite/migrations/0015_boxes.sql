-- Where in a slice the finding is, for models that say so; and who was told.

-- In the slice's pixels, from its upper left corner, with the slice's size. NULL where the model says nothing, or saw too little.
ALTER TABLE scores ADD COLUMN box_left INTEGER;
ALTER TABLE scores ADD COLUMN box_top INTEGER;
ALTER TABLE scores ADD COLUMN box_width INTEGER;
ALTER TABLE scores ADD COLUMN box_height INTEGER;
ALTER TABLE scores ADD COLUMN slice_rows INTEGER;
ALTER TABLE scores ADD COLUMN slice_columns INTEGER;

-- The model's own map for a score with a box: a byte a position, 255 for a probability of 1, row by row.
CREATE TABLE heat_maps (
    score_id    INTEGER PRIMARY KEY REFERENCES scores (id),
    map_rows    INTEGER NOT NULL,
    map_columns INTEGER NOT NULL,
    map         BLOB NOT NULL,
    -- The rectangle of the slice that it covers, in pixels; it may reach beyond the slice.
    left        INTEGER NOT NULL,
    top         INTEGER NOT NULL,
    width       INTEGER NOT NULL,
    height      INTEGER NOT NULL
) STRICT;

DROP VIEW slice_results;
CREATE VIEW slice_results AS
SELECT i.study_uid, i.series_uid, i.sop_uid, s.frame, i.instance_number, s.state, s.reason,
       c.probability, c.positive, c.model, c.model_sha256, c.provider, i.received_at, c.scored_at,
       s.position, s.thickness, s.doubts, i.calling_ae,
       c.box_left, c.box_top, c.box_width, c.box_height, c.slice_rows, c.slice_columns
FROM slices s JOIN instances i ON i.id = s.instance_id LEFT JOIN scores c ON c.id = s.score_id;

-- A PACS that has taken a report has told nobody: its deliveries, which have documents, count neither for notified_at nor for
-- seconds_to_alert.
DROP VIEW worklist;
CREATE VIEW worklist AS
SELECT study_uid, accession_number, patient_id, state, flagged, score, threshold,
       slices_received, slices_scored, slices_ineligible, slices_failed,
       first_received_at, last_received_at, decided_at,
       (SELECT min(delivered_at) FROM outbox o WHERE o.study_uid = studies.study_uid
          AND NOT EXISTS (SELECT 1 FROM sent_documents d WHERE d.notification_id = o.id)) AS notified_at,
       acknowledged_at, revision,
       verdict, missing, warnings, set_aside, acknowledged_by, seen_at, seen_by,
       -- From the last object before the first flagged verdict to its first delivered alert. Alerts may come before the study is whole.
       (SELECT max(0.0, (julianday(min(o.delivered_at)) - julianday(v.last_received_at)) * 86400.0)
        FROM verdicts v JOIN outbox o ON o.study_uid = v.study_uid AND o.revision = v.revision
        WHERE v.id = (SELECT min(id) FROM verdicts f WHERE f.study_uid = studies.study_uid AND f.flagged = 1)
          AND o.kind = 'flagged' AND o.delivered_at IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM sent_documents d WHERE d.notification_id = o.id)) AS seconds_to_alert,
       former_patient_ids, former_accession_numbers, patient_name, birth_date, sex, referring_physician,
       study_date, study_description, modality, station_name, institution_name, calling_ae, peer
FROM studies;
