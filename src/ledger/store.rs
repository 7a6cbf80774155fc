//! What was received: instances, their slices, and what had to be set aside.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::retention::came_back;
use super::{Bells, Ledger, Result, now};

/// An instance whose file is on disk, to be recorded.
#[derive(Debug, Clone)]
pub struct NewInstance {
    pub sop_uid: String,
    pub sop_class_uid: String,
    pub transfer_syntax: String,
    pub study_uid: String,
    pub series_uid: String,
    pub instance_number: Option<i64>,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    /// SHA-256 of the data set as received, hexadecimal.
    pub digest: String,
    /// Relative to the data folder.
    pub path: String,
    pub size: u64,
    pub calling_ae: String,
    pub peer: String,
    pub received_at: String,
    /// One entry a frame, at least one.
    pub slices: Vec<NewSlice>,
    /// Scored before others.
    pub stat: bool,
}

impl Bells {
    /// After a store; `queues`: slices of the instance are to be scored.
    fn ring(&self, stored: &Result<Stored>, queues: bool) {
        if let Ok(Stored::New) = stored {
            if queues {
                self.queued.notify_waiters();
            }
            self.changed.notify_waiters();
        }
    }
}

impl NewInstance {
    /// Whether a slice of it is to be scored.
    fn queues(&self) -> bool {
        self.slices.contains(&NewSlice::Queued)
    }
}

/// How a slice begins: queued for scoring, or ineligible with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewSlice {
    Queued,
    Ineligible(String),
}

/// What became of an instance that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is new; its slices are in the queue.
    New,
    /// The same SOP Instance UID with the same content is already there: nothing changed, except that an instance whose file had
    /// been removed has it again.
    Duplicate,
    /// The same SOP Instance UID with other content is already there: the first is kept, this one belongs in quarantine.
    Conflict { kept_digest: String },
}

/// An object that was kept, but not taken in.
#[derive(Debug, Clone)]
pub struct Quarantined {
    pub sop_uid: String,
    pub study_uid: Option<String>,
    pub digest: String,
    pub path: String,
    pub reason: String,
    pub calling_ae: String,
    pub peer: String,
    pub received_at: String,
}

impl Ledger {
    /// Records a received instance with its slices, opens or reopens its study.
    pub async fn store(&self, instance: NewInstance) -> Result<Stored> {
        let (bells, queues) = (self.shared.bells.clone(), instance.queues());
        let stored = self.write(move |connection| store(connection, &instance)).await;
        bells.ring(&stored, queues);
        stored
    }

    /// [`Ledger::store`] for a blocking thread that does not wait: the writer thread calls `then` with the outcome, or drops it
    /// uncalled where the ledger is closed.
    pub fn post_store(&self, instance: NewInstance, then: impl FnOnce(Result<Stored>) + Send + 'static) -> Result<()> {
        let (bells, queues) = (self.shared.bells.clone(), instance.queues());
        self.shared.writer.post(
            move |connection| store(connection, &instance),
            move |stored| {
                bells.ring(&stored, queues);
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
        came_back(connection, &instance.sop_uid, &instance.path, instance.size, &instance.received_at)?;
        return Ok(Stored::Duplicate);
    }
    let t = now();
    // A study that was decided is reopened as its next revision. Its flag stays up if it was up: a machine never retracts.
    connection
        .prepare_cached(
            "INSERT INTO studies (study_uid, accession_number, patient_id, first_received_at, last_received_at, opened_at)
             VALUES (:study, :accession, :patient, :received, :received, :now)
             ON CONFLICT (study_uid) DO UPDATE SET
                 accession_number = coalesce(accession_number, excluded.accession_number),
                 patient_id = coalesce(patient_id, excluded.patient_id),
                 last_received_at = max(last_received_at, excluded.last_received_at),
                 revision = revision + (state = 'decided'),
                 opened_at = iif(state = 'decided', excluded.opened_at, opened_at),
                 flagged = iif(state = 'decided' AND flagged = 0, NULL, flagged),
                 decided_at = iif(state = 'decided', NULL, decided_at),
                 state = 'receiving'",
        )?
        .execute(named_params! {
            ":study": instance.study_uid,
            ":accession": instance.accession_number,
            ":patient": instance.patient_id,
            ":received": instance.received_at,
            ":now": t,
        })?;
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
