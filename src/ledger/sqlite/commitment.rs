//! Requests of storage commitment, and what the archive keeps of an instance.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::outbox::from_now;
use super::{Ledger, Reader};
use crate::ledger::{
    CommitmentEnd, CommitmentRow, DueCommitment, KeptInstance, NewCommitment, PendingCommitments, Result, now,
};

const COLUMNS: &str = "id, transaction_uid, calling_ae, called_ae, peer, items, attempts, requested_at";

impl Ledger {
    /// Records a request. The same one again is to be reported again. `None` where the requestor has used the transaction UID for
    /// other instances.
    pub async fn request_commitment(&self, request: NewCommitment) -> Result<Option<i64>> {
        self.write(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO commitments (transaction_uid, calling_ae, called_ae, peer, address, items, requested_at, next_attempt_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (calling_ae, transaction_uid) DO UPDATE
                 SET state = 'pending', attempts = 0, called_ae = ?3, peer = ?4, address = ?5, next_attempt_at = ?8, last_error = NULL,
                     items = ?6, instances = NULL
                 WHERE items = ?6 OR items = '[]'
                 RETURNING id",
            )?;
            let NewCommitment { transaction_uid, calling_ae, called_ae, peer, address, items, next_attempt_at } = request;
            let values = params![transaction_uid, calling_ae, called_ae, peer, address, items, now(), next_attempt_at];
            Ok(statement.query_row(values, |row| row.get(0)).optional()?)
        })
        .await
    }

    /// After a start: requests that waited for their own association are due now.
    pub async fn resume_commitments(&self) -> Result<()> {
        self.write(|connection| {
            let sql = "UPDATE commitments SET next_attempt_at = ?1 WHERE state = 'pending' AND attempts = 0 AND next_attempt_at > ?1";
            connection.execute(sql, [now()])?;
            Ok(())
        })
        .await
    }

    /// Forgets which instances the requests name that ended before this moment, as the ledger writes it; how many they were stays. At most
    /// `most` requests. Returns how many there were.
    pub async fn forget_commitment_items(&self, before: String, most: usize) -> Result<u64> {
        self.write(move |connection| {
            let sql = "UPDATE commitments SET instances = json_array_length(items), items = '[]' WHERE id IN
                           (SELECT id FROM commitments INDEXED BY commitments_ended
                            WHERE state <> 'pending' AND items <> '[]' AND next_attempt_at < ?1
                            ORDER BY next_attempt_at LIMIT ?2)";
            Ok(connection.execute(sql, params![before, most as i64])? as u64)
        })
        .await
    }

    /// Notes how an attempt to deliver a report ended.
    pub async fn end_commitment(&self, id: i64, end: CommitmentEnd) -> Result<()> {
        self.write(move |connection| {
            match end {
                CommitmentEnd::Delivered { committed, failed } => connection.execute(
                    "UPDATE commitments SET state = 'delivered', attempts = attempts + 1, delivered_at = ?2, committed = ?3,
                         failed = ?4, last_error = NULL WHERE id = ?1",
                    params![id, now(), committed as i64, failed as i64],
                ),
                CommitmentEnd::Again { at, error } => connection.execute(
                    "UPDATE commitments SET attempts = attempts + 1, next_attempt_at = ?2, last_error = ?3
                     WHERE id = ?1 AND state = 'pending'",
                    params![id, at, error],
                ),
                CommitmentEnd::GivenUp { error } => connection.execute(
                    "UPDATE commitments SET state = 'dead', attempts = attempts + 1, last_error = ?2
                     WHERE id = ?1 AND state = 'pending'",
                    params![id, error],
                ),
            }?;
            Ok(())
        })
        .await
    }
}

impl Reader {
    /// A request that waits for its report; `None` where it is delivered or given up. Blocks.
    pub fn commitment(&self, id: i64) -> Result<Option<CommitmentRow>> {
        self.read(|connection| {
            let sql = format!("SELECT {COLUMNS} FROM commitments WHERE id = ?1 AND state = 'pending'");
            Ok(connection.prepare_cached(&sql)?.query_row([id], row).optional()?)
        })
    }

    /// The requests whose next attempt is due, at most `most` of each peer, those that wait longest first. Blocks.
    ///
    /// `longest` is the longest wait: what is due later than that was written before the clock was set back, and is due now.
    pub fn due_commitments(&self, most: usize, longest: Duration) -> Result<Vec<DueCommitment>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, who FROM
                     (SELECT id, coalesce(peer, calling_ae) AS who, next_attempt_at,
                             row_number() OVER (PARTITION BY coalesce(peer, calling_ae) ORDER BY next_attempt_at, id) AS place
                      FROM commitments INDEXED BY commitments_pending
                      WHERE state = 'pending' AND (next_attempt_at <= ?1 OR next_attempt_at > ?3))
                 WHERE place <= ?2 ORDER BY next_attempt_at, id",
            )?;
            let due = |row: &Row<'_>| Ok(DueCommitment { id: row.get(0)?, who: row.get(1)? });
            Ok(statement.query_map(params![now(), most as i64, from_now(longest)], due)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The requests that wait for their reports: those of a sender, by its AE title or its address, and all. Blocks.
    pub fn pending_commitments(&self, calling_ae: &str, address: &str) -> Result<[PendingCommitments; 2]> {
        self.read(|connection| {
            // Of a text that long, octet_length reads no more than how long it is.
            let sql = "SELECT count(*) FILTER (WHERE calling_ae = ?1 OR address = ?2),
                              coalesce(sum(octet_length(items)) FILTER (WHERE calling_ae = ?1 OR address = ?2), 0),
                              count(*), coalesce(sum(octet_length(items)), 0)
                       FROM commitments INDEXED BY commitments_pending WHERE state = 'pending'";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row([calling_ae, address], |row| {
                let pending = |at: usize| -> rusqlite::Result<PendingCommitments> {
                    let (requests, bytes) = (row.get::<_, i64>(at)?, row.get::<_, i64>(at + 1)?);
                    Ok(PendingCommitments { requests: requests.unsigned_abs(), bytes: bytes.unsigned_abs() })
                };
                Ok([pending(0)?, pending(2)?])
            })?)
        })
    }

    /// The instances with this SOP Instance UID whose files are kept. Blocks.
    pub fn kept_instances(&self, sop_uid: &str) -> Result<Vec<KeptInstance>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sop_class_uid, path, digest, received_at FROM instances WHERE sop_uid = ?1 AND removed_at IS NULL",
            )?;
            let kept = |row: &Row<'_>| {
                Ok(KeptInstance {
                    sop_class_uid: row.get(0)?,
                    path: row.get(1)?,
                    digest: row.get(2)?,
                    received_at: row.get(3)?,
                })
            };
            Ok(statement.query_map([sop_uid], kept)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Whether other content came under this SOP Instance UID and is set aside. Blocks.
    pub fn is_in_conflict(&self, sop_uid: &str) -> Result<bool> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM quarantine INDEXED BY quarantine_by_sop
                                      WHERE sop_uid = ?1 AND kind = 'conflict')";
            Ok(connection.prepare_cached(sql)?.query_row([sop_uid], |row| row.get(0))?)
        })
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<CommitmentRow> {
    Ok(CommitmentRow {
        id: row.get(0)?,
        transaction_uid: row.get(1)?,
        calling_ae: row.get(2)?,
        called_ae: row.get(3)?,
        peer: row.get(4)?,
        items: row.get(5)?,
        attempts: row.get(6)?,
        requested_at: row.get(7)?,
    })
}
