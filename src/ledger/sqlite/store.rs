//! What was received: instances, their slices, and what had to be set aside.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::Ledger;
use super::retention::restore_file;
use super::study::reopen;
use crate::ledger::{NewInstance, NewSlice, Quarantined, Result, Stored, Wakeups, now};

impl Wakeups {
    /// Wakes those for whom a new instance is something to do.
    fn wake_after(&self, stored: &Result<Stored>, has_queued_slices: bool) {
        if let Ok(Stored::New) = stored {
            if has_queued_slices {
                self.queued.notify_waiters();
            }
            self.changed.notify_waiters();
        }
    }
}

impl Ledger {
    /// Records a received instance with its slices, opens or reopens its study.
    pub async fn store(&self, instance: NewInstance) -> Result<Stored> {
        let (wakeups, has_queued_slices) = (self.shared.wakeups.clone(), instance.has_queued_slices());
        let stored = self.write(move |connection| store(connection, &instance)).await;
        wakeups.wake_after(&stored, has_queued_slices);
        stored
    }

    /// [`Ledger::store`] for a blocking thread that does not wait: the writer thread calls `then` with the outcome, or drops it
    /// uncalled where the ledger is closed.
    pub fn post_store(&self, instance: NewInstance, then: impl FnOnce(Result<Stored>) + Send + 'static) -> Result<()> {
        let (wakeups, has_queued_slices) = (self.shared.wakeups.clone(), instance.has_queued_slices());
        self.shared.writer.post(
            move |connection| store(connection, &instance),
            move |stored| {
                wakeups.wake_after(&stored, has_queued_slices);
                then(stored);
            },
        )
    }

    /// Records an object set aside. The same one again changes nothing and returns false.
    pub async fn quarantine(&self, object: Quarantined) -> Result<bool> {
        self.write(move |connection| {
            let inserted = connection.execute(
                "INSERT INTO quarantine (sop_uid, study_uid, digest, path, reason, calling_ae, peer, received_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
                params![
                    object.sop_uid,
                    object.study_uid,
                    object.digest,
                    object.path,
                    object.reason,
                    object.calling_ae,
                    object.peer,
                    object.received_at
                ],
            )?;
            Ok(inserted == 1)
        })
        .await
    }
}

fn store(connection: &Connection, instance: &NewInstance) -> Result<Stored> {
    let kept: Option<String> = connection
        .prepare_cached("SELECT digest FROM instances WHERE sop_uid = ?1")?
        .query_row([&instance.sop_uid], |row| row.get(0))
        .optional()?;
    if let Some(kept_digest) = kept {
        if kept_digest != instance.digest {
            return Ok(Stored::Conflict { kept_digest });
        }
        // The file at its place was just written again, under the transfer syntax of this time.
        connection
            .prepare_cached("UPDATE instances SET transfer_syntax = ?2 WHERE sop_uid = ?1 AND transfer_syntax <> ?2")?
            .execute([&instance.sop_uid, &instance.transfer_syntax])?;
        restore_file(connection, &instance.sop_uid, &instance.path, instance.size, &instance.received_at)?;
        return Ok(Stored::Duplicate);
    }
    // The state that comes back is the one before: only reopening changes it.
    let decided: bool = connection
        .prepare_cached(
            "INSERT INTO studies (study_uid, accession_number, patient_id, first_received_at, last_received_at, opened_at)
             VALUES (:study, :accession, :patient, :received, :received, :now)
             ON CONFLICT (study_uid) DO UPDATE SET
                 accession_number = coalesce(accession_number, excluded.accession_number),
                 patient_id = coalesce(patient_id, excluded.patient_id),
                 last_received_at = max(last_received_at, excluded.last_received_at)
             RETURNING state = 'decided'",
        )?
        .query_row(
            named_params! {
                ":study": instance.study_uid,
                ":accession": instance.accession_number,
                ":patient": instance.patient_id,
                ":received": instance.received_at,
                ":now": now(),
            },
            |row| row.get(0),
        )?;
    if decided {
        reopen(connection, &instance.study_uid)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO instances (sop_uid, sop_class_uid, transfer_syntax, study_uid, series_uid, instance_number,
                                    digest, path, size, calling_ae, peer, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            instance.sop_uid,
            instance.sop_class_uid,
            instance.transfer_syntax,
            instance.study_uid,
            instance.series_uid,
            instance.instance_number,
            instance.digest,
            instance.path,
            instance.size as i64,
            instance.calling_ae,
            instance.peer,
            instance.received_at
        ])?;
    let id = connection.last_insert_rowid();
    let mut insert = connection.prepare_cached(
        "INSERT INTO slices (instance_id, study_uid, frame, state, reason, priority) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (frame, slice) in (1i64..).zip(&instance.slices) {
        let (state, reason) = match slice {
            NewSlice::Queued => ("queued", None),
            NewSlice::Ineligible(reason) => ("ineligible", Some(reason)),
        };
        insert.execute(params![id, instance.study_uid, frame, state, reason, if instance.stat { -1 } else { 0 }])?;
    }
    Ok(Stored::New)
}
