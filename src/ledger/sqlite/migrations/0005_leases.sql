-- Who works on a slice stands in its row. A lease is taken in the commit that counts the claim.
ALTER TABLE slices ADD COLUMN lease_owner TEXT;
-- Changes whenever a lease is taken or ends; only the holder of the latest may end the slice.
ALTER TABLE slices ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
-- Nobody is given the slice before this moment, which is when its lease expires, or when it may be tried again. NULL: at once.
ALTER TABLE slices ADD COLUMN available_at TEXT;
