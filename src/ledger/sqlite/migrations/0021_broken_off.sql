-- Images in Acquisition (0020,1002), as an object says it: how many images its acquisition has.
ALTER TABLE instances ADD COLUMN images_in_acquisition INTEGER;
-- Whether the association that brought the study's last object was broken off, and nothing has come for it since.
ALTER TABLE studies ADD COLUMN broken_off INTEGER NOT NULL DEFAULT 0;
-- Whether more of its objects were refused than the table `refused` still lists.
ALTER TABLE studies ADD COLUMN refused_more INTEGER NOT NULL DEFAULT 0;
-- Slice Location (0020,1041), in mm: it orders the slices of a series where all have one Image Position.
ALTER TABLE slices ADD COLUMN location REAL;

-- A slice whose pixels were looked at and are not those of a head says from here on what they show; others that are ineligible after an
-- attempt could not be decoded.
UPDATE slices SET shows = 'body'
WHERE state = 'ineligible' AND attempts > 0 AND head_check IS NOT NULL AND reason LIKE '%the pixels are not those of a head';
