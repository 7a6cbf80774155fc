-- The worklist in its reading order, and the studies that nobody has read, without a scan of all years. The expressions are
-- those of WorklistRow::all, word for word: SQLite uses such an index for nothing else.
CREATE INDEX studies_reading_order ON studies (
    flagged IS 1 AND acknowledged_at IS NULL DESC, flagged IS 1 DESC,
    slices_ineligible + slices_failed > 0 AND slices_scored = 0 DESC, last_received_at DESC
);
CREATE INDEX studies_unread ON studies (score) WHERE flagged = 1 AND acknowledged_at IS NULL;

-- slices.priority has a further value: -1 STAT, 0 as it came from a scanner, 1 scored again.
