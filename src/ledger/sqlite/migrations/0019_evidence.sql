-- What is to be seen in a slice's pixels: 'nothing', 'body' or 'head'. NULL where they were not decoded, or by an earlier version.
ALTER TABLE slices ADD COLUMN shows TEXT;
-- What its object shows to be missing, in words: frames that its pixel data have and Number of Frames does not count.
ALTER TABLE slices ADD COLUMN lacking TEXT;

-- Of a part of a concatenation (PS3.3 C.7.6.16.2.2.4): its Concatenation UID, and how many parts there are.
ALTER TABLE instances ADD COLUMN concatenation TEXT;
ALTER TABLE instances ADD COLUMN concatenation_total INTEGER;
CREATE INDEX instances_concatenated ON instances (study_uid) WHERE concatenation IS NOT NULL;

-- Names or birth dates of different patients came under the study's UID.
ALTER TABLE studies ADD COLUMN several_names INTEGER NOT NULL DEFAULT 0;

-- Objects of a study that the node refused, or that did not match their announcement, and that did not come since. The last ten thousand.
CREATE TABLE refused (
    id         INTEGER PRIMARY KEY,
    study_uid  TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    sop_uid    TEXT NOT NULL,
    reason     TEXT NOT NULL,
    refused_at TEXT NOT NULL,
    UNIQUE (study_uid, series_uid, sop_uid)
) STRICT;
