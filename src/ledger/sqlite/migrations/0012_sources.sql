-- Turns are first those of senders: one that sends thousands of slices does not keep the others waiting. A source is calling AE title and
-- address, `AE@address`.
ALTER TABLE slices ADD COLUMN source TEXT NOT NULL DEFAULT '@';
UPDATE slices SET source = (SELECT i.calling_ae || '@' || i.peer FROM instances i WHERE i.id = slices.instance_id)
WHERE state = 'queued';
DROP INDEX slices_turns;
CREATE INDEX slices_turns ON slices (priority, source, study_uid, id) WHERE state = 'queued';
