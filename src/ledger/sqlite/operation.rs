//! How the node has been doing, for administrators.

use rusqlite::{Row, params};

use jiff::{SignedDuration, Timestamp};

use super::{Ledger, Reader};
use crate::ledger::{Measurement, Result, Sender, SliceTimes, Traffic, format_time};

/// Measurements are kept for so long: a day more than the page shows.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 8);

impl Reader {
    /// Objects that the archive holds, by the hour or the day in which they came, from a moment on; oldest first. Blocks.
    pub fn traffic(&self, since: &str, by_day: bool) -> Result<Vec<Traffic>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT substr(received_at, 1, ?2) AS period, count(*), sum(size) FROM instances
                 WHERE removed_at IS NULL AND received_at >= ?1 GROUP BY period ORDER BY period",
            )?;
            let length = if by_day { 10 } else { 13 };
            let traffic = |row: &Row<'_>| {
                Ok(Traffic {
                    period: row.get(0)?,
                    objects: row.get::<_, i64>(1)? as u64,
                    bytes: row.get::<_, i64>(2)? as u64,
                })
            };
            let rows = statement.query_map(params![since, length], traffic)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The AE titles that sent studies, with their last object and how many came from a moment on; at most `most`. Blocks.
    pub fn sender_traffic(&self, since: &str, most: u32) -> Result<Vec<Sender>> {
        let names = self.senders(most)?;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT (SELECT max(received_at) FROM instances WHERE calling_ae = ?1),
                        (SELECT count(*) FROM instances WHERE calling_ae = ?1 AND received_at >= ?2),
                        (SELECT count(*) FROM quarantine WHERE calling_ae = ?1)",
            )?;
            let mut senders = Vec::new();
            for calling_ae in names {
                senders.push(statement.query_row(params![calling_ae, since], |row| {
                    Ok(Sender {
                        calling_ae: calling_ae.clone(),
                        last_received_at: row.get::<_, Option<String>>(0)?.unwrap_or_default(),
                        objects: row.get::<_, i64>(1)? as u64,
                        set_aside: row.get::<_, i64>(2)? as u64,
                    })
                })?);
            }
            Ok(senders)
        })
    }

    /// When the stages of the slices that were scored last ended; at most `most`. Blocks.
    pub fn newest_slice_times(&self, most: u32) -> Result<Vec<SliceTimes>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT i.received_at, c.claimed_at, c.decoded_at, c.scored_at
                 FROM scores c JOIN slices s ON s.id = c.slice_id JOIN instances i ON i.id = s.instance_id
                 -- One that is scored again was received long ago.
                 WHERE NOT EXISTS (SELECT 1 FROM scores o WHERE o.slice_id = c.slice_id AND o.id < c.id)
                 ORDER BY c.id DESC LIMIT ?1",
            )?;
            let times = |row: &Row<'_>| {
                Ok(SliceTimes {
                    received_at: row.get(0)?,
                    claimed_at: row.get(1)?,
                    decoded_at: row.get(2)?,
                    scored_at: row.get(3)?,
                })
            };
            Ok(statement.query_map([most], times)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The measurements from a moment on, oldest first. Blocks.
    pub fn measurements(&self, since: &str) -> Result<Vec<Measurement>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT at, waiting, free_bytes, slices, median_seconds, most_seconds FROM measurements
                 WHERE at >= ?1 ORDER BY at",
            )?;
            let measurement = |row: &Row<'_>| {
                Ok(Measurement {
                    at: row.get(0)?,
                    waiting: row.get::<_, i64>(1)? as u64,
                    free_bytes: row.get::<_, Option<i64>>(2)?.map(|bytes| bytes as u64),
                    slices: row.get::<_, i64>(3)? as u64,
                    median_seconds: row.get(4)?,
                    most_seconds: row.get(5)?,
                })
            };
            Ok(statement.query_map([since], measurement)?.collect::<rusqlite::Result<_>>()?)
        })
    }
}

impl Ledger {
    /// When the last measurement was. Blocks.
    pub fn last_measurement(&self) -> Result<Option<Timestamp>> {
        let at: Option<String> = self
            .read(|connection| Ok(connection.query_row("SELECT max(at) FROM measurements", [], |row| row.get(0))?))?;
        Ok(at.and_then(|at| at.parse().ok()))
    }

    /// Writes a measurement, and forgets those that are too old.
    pub async fn note_measurement(&self, measurement: Measurement) -> Result<()> {
        self.write(move |connection| {
            let Measurement { at, waiting, free_bytes, slices, median_seconds, most_seconds } = &measurement;
            let (waiting, slices) = (*waiting as i64, *slices as i64);
            let free_bytes = free_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
            connection
                .prepare_cached("INSERT OR REPLACE INTO measurements VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![at, waiting, free_bytes, slices, median_seconds, most_seconds])?;
            let oldest = format_time(Timestamp::now() - KEPT);
            connection.prepare_cached("DELETE FROM measurements WHERE at < ?1")?.execute([oldest])?;
            Ok(())
        })
        .await
    }
}
