-- Alerts leave before messages that nobody hurries for, however many of those wait on their channel. The third expression is ALERT of
-- outbox.rs, word for word: SQLite uses such an index for nothing else.
CREATE INDEX outbox_waiting ON outbox (channel, state, kind IN ('flagged', 'revised', 'delivery_failed') OR step > 0, next_attempt_at)
WHERE state <> 'delivered';

-- Of a request whose report was delivered or given up some days ago only the count of its instances is kept: `items` is '[]' then.
ALTER TABLE commitments ADD COLUMN instances INTEGER;
CREATE INDEX commitments_ended ON commitments (next_attempt_at) WHERE state <> 'pending' AND items <> '[]';
DROP VIEW commitment_log;
CREATE VIEW commitment_log AS
SELECT id, transaction_uid, calling_ae, called_ae, peer, address, state, attempts, requested_at, delivered_at,
       coalesce(instances, json_array_length(items)) AS instances, committed, failed, last_error
FROM commitments;

-- slices.priority has further values, for work that is done again and keeps no new patient out: 1 it has a score and is scored again, 2 its
-- file lay in the archive without a row, 3 it failed and is tried again, -2 the same of a STAT slice.
