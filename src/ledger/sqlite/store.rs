//! Writes received instances, their slices, and objects that had to be set aside.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use serde_json::json;

use super::Ledger;
use super::priority::{NEW, STAT, TAKEN_IN_AGAIN};
use super::retention::restore_file;
use super::search::{add_words, has_new_words};
use super::study::{FEWER_IMAGES, reopen};
use super::verdict::FILE_REMOVED;
use crate::ledger::{
    Actor, Deed, Instances, NewInstance, Pending, Quarantined, Queue, Refused, Result, SliceStart, Stored, Studies,
    Told, Wakeups, now,
};

impl Wakeups {
    /// Wakes those for whom a new instance is something to do.
    fn wake_after(&self, stored: &Result<Stored>, has_queued_slices: bool) {
        if let Ok(Stored::New | Stored::Replaced | Stored::Restored) = stored {
            if has_queued_slices {
                self.queued.notify_waiters();
            }
            self.changed.notify_waiters();
        }
    }
}

impl Instances for Ledger {
    fn store(&self, instance: NewInstance) -> Pending<'_, Stored> {
        Box::pin(async move {
            let (wakeups, has_queued_slices) = (self.shared.wakeups.clone(), instance.has_queued_slices());
            let stored = self.write(move |connection| store(connection, &instance)).await;
            wakeups.wake_after(&stored, has_queued_slices);
            stored
        })
    }

    fn post_store(&self, instance: NewInstance, then: Told) -> Result<()> {
        let (wakeups, has_queued_slices) = (self.shared.wakeups.clone(), instance.has_queued_slices());
        self.shared.writer.post(
            move |connection| store(connection, &instance),
            move |stored| {
                wakeups.wake_after(&stored, has_queued_slices);
                then(stored);
            },
        )
    }

    fn quarantine(&self, object: Quarantined) -> Pending<'_, bool> {
        Box::pin(async move {
            let (inserted, replaced) = self
                .write(move |connection| {
                    let inserted = connection.execute(
                    "INSERT INTO quarantine (sop_uid, study_uid, series_uid, digest, path, size, transfer_syntax, kind,
                                             reason, calling_ae, peer, received_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, iif(?2 IS NULL, 'unreadable', 'conflict'), ?8, ?9, ?10, ?11)
                     ON CONFLICT (sop_uid, digest) DO UPDATE SET path = excluded.path, size = excluded.size,
                         received_at = excluded.received_at, removed_at = NULL
                     WHERE removed_at IS NOT NULL",
                    params![
                        object.sop_uid,
                        object.study_uid,
                        object.series_uid,
                        object.digest,
                        object.path,
                        object.size as i64,
                        object.transfer_syntax,
                        object.reason,
                        object.calling_ae,
                        object.peer,
                        object.received_at
                    ],
                )?;
                    let kept: Option<i64> = connection
                        .prepare_cached(
                            "SELECT id FROM instances WHERE study_uid = ?1 AND series_uid = ?2 AND sop_uid = ?3",
                        )?
                        .query_row(params![object.study_uid, object.series_uid, object.sop_uid], |row| row.get(0))
                        .optional()?;
                    let replaced = kept.map_or(Ok(false), |kept| replace_by_quarantined(connection, kept))?;
                    if let (1, false, Some(study_uid)) = (inserted, replaced, &object.study_uid) {
                        // Whoever reads the verdict is told of it, whichever came first.
                        reopen(connection, study_uid)?;
                    }
                    Ok((inserted == 1, replaced))
                })
                .await?;
            if replaced {
                self.queued().notify_waiters();
                self.changed().notify_waiters();
            }
            Ok(inserted)
        })
    }

    fn note_refused(&self, object: Refused) -> Pending<'_, ()> {
        Box::pin(async move {
            self.write(move |connection| note_refused(connection, &object)).await?;
            self.changed().notify_waiters();
            Ok(())
        })
    }

    fn path_of(&self, study_uid: &str, series_uid: &str, sop_uid: &str) -> Result<Option<String>> {
        self.read(|connection| {
            let sql = "SELECT path FROM instances WHERE study_uid = ?1 AND series_uid = ?2 AND sop_uid = ?3";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row([study_uid, series_uid, sop_uid], |row| row.get(0)).optional()?)
        })
    }

    fn transfer_ended(&self) {
        self.changed().notify_waiters();
    }

    fn note_transfer(&self, actor: &Actor, study_uid: String, objects: u64) {
        self.post_deed(Deed {
            actor: actor.clone(),
            name: "study.receive",
            study_uid: Some(study_uid),
            details: json!({ "objects": objects }),
        });
    }

    fn note_broken_off(&self, study_uid: String, is_silent: bool) {
        let shared = self.shared.clone();
        let posted = self.shared.writer.post(
            move |connection| note_broken_off(connection, &study_uid, is_silent),
            move |written| match written {
                Ok(()) => shared.wakeups.changed.notify_waiters(),
                Err(error) => tracing::error!(%error, "that an association was broken off could not be noted"),
            },
        );
        if let Err(error) = posted {
            tracing::error!(%error, "that an association was broken off could not be noted");
        }
    }
}

/// Why a copy that could not be read was set aside.
const REPLACED: &str = "it could not be read; another copy with the same UIDs took its place";

/// Whether nothing of an instance could be read: none of its slices is scored or waits, and not all were put out by the gate or
/// are no head.
fn is_unreadable(connection: &Connection, instance: i64) -> Result<bool> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(sum(state IN ('scored', 'queued')), 0) = 0
                AND coalesce(sum(state = 'failed' OR state = 'ineligible' AND attempts > 0 AND shows IS NULL), 0) > 0
             FROM slices WHERE instance_id = ?1",
        )?
        .query_row([instance], |row| row.get(0))?)
}

/// If nothing of an instance could be read and another copy of it was set aside, that copy takes its place. Returns whether
/// it did. The file stays where it is: only the rows change.
pub(super) fn replace_by_quarantined(connection: &Connection, instance: i64) -> Result<bool> {
    if !is_unreadable(connection, instance)? {
        return Ok(false);
    }
    let copy: Option<(i64, String)> = connection
        .prepare_cached(
            "SELECT q.id, i.study_uid FROM instances i JOIN quarantine q
                 ON q.study_uid = i.study_uid AND q.series_uid = i.series_uid AND q.sop_uid = i.sop_uid
             WHERE i.id = ?1 AND q.kind = 'conflict' AND q.size IS NOT NULL AND q.removed_at IS NULL ORDER BY q.id LIMIT 1",
        )?
        .query_row([instance], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((copy, study_uid)) = copy else { return Ok(false) };
    set_aside_unreadable(connection, instance)?;
    connection.execute(
        "UPDATE instances SET (digest, path, size, transfer_syntax, calling_ae, peer, received_at, removed_at, lost_at) =
             (SELECT digest, path, size, transfer_syntax, calling_ae, peer, received_at, NULL, NULL FROM quarantine WHERE id = ?2)
         WHERE id = ?1",
        params![instance, copy],
    )?;
    connection.execute("DELETE FROM quarantine WHERE id = ?1", [copy])?;
    reopen(connection, &study_uid)?;
    connection.execute(
        "UPDATE slices SET state = 'queued', reason = NULL, attempts = 0, claims = 0, score_id = NULL
         WHERE instance_id = ?1 AND (state = 'failed' OR state = 'ineligible' AND attempts > 0)",
        [instance],
    )?;
    Ok(true)
}

/// Notes the present copy of an instance as one that made room.
fn set_aside_unreadable(connection: &Connection, instance: i64) -> Result<()> {
    connection.execute(
        "INSERT INTO quarantine (sop_uid, study_uid, series_uid, digest, path, size, transfer_syntax, kind, reason,
                                 calling_ae, peer, received_at)
         SELECT sop_uid, study_uid, series_uid, digest, path, size, transfer_syntax, 'replaced', ?2, calling_ae, peer,
                received_at
         FROM instances WHERE id = ?1 ON CONFLICT DO NOTHING",
        params![instance, REPLACED],
    )?;
    Ok(())
}

fn store(connection: &Connection, instance: &NewInstance) -> Result<Stored> {
    if instance.resumes {
        // Whoever broke off has come again.
        connection
            .prepare_cached("UPDATE studies SET broken_off = 0 WHERE study_uid = ?1 AND broken_off")?
            .execute([&instance.study_uid])?;
    }
    let kept: Option<(i64, String)> = connection
        .prepare_cached("SELECT id, digest FROM instances WHERE study_uid = ?1 AND series_uid = ?2 AND sop_uid = ?3")?
        .query_row(params![instance.study_uid, instance.series_uid, instance.sop_uid], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((id, kept_digest)) = kept else {
        note_study(connection, instance)?;
        let id = insert_instance(connection, instance)?;
        insert_slices(connection, id, instance)?;
        connection
            .prepare_cached("DELETE FROM refused WHERE study_uid = ?1 AND series_uid IN (?2, '') AND sop_uid = ?3")?
            .execute(params![instance.study_uid, instance.series_uid, instance.sop_uid])?;
        return Ok(Stored::New);
    };
    if kept_digest == instance.digest {
        // The file at its place was just written again, under the transfer syntax of this time.
        connection
            .prepare_cached("UPDATE instances SET transfer_syntax = ?2 WHERE id = ?1 AND transfer_syntax <> ?2")?
            .execute(params![id, instance.transfer_syntax])?;
        restore_file(connection, id, &instance.path, instance.size, &instance.received_at)?;
        return Ok(if score_what_was_lost(connection, id, instance)? { Stored::Restored } else { Stored::Duplicate });
    }
    let known: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM quarantine WHERE sop_uid = ?1 AND digest = ?2)")?
        .query_row(params![instance.sop_uid, instance.digest], |row| row.get(0))?;
    if !known && is_unreadable(connection, id)? {
        set_aside_unreadable(connection, id)?;
        note_study(connection, instance)?;
        replace_instance(connection, id, instance)?;
        insert_slices(connection, id, instance)?;
        connection.execute(
            "UPDATE slices SET state = 'ineligible', reason = 'not in the copy that could be read', attempts = 0
             WHERE instance_id = ?1 AND frame > ?2",
            params![id, instance.slices.len() as i64],
        )?;
        return Ok(Stored::Replaced);
    }
    // It is not taken in, but what it says of the patient may be a correction, or another patient.
    if note_patient(connection, instance)? {
        reopen(connection, &instance.study_uid)?;
    }
    correct_patient(connection, instance)?;
    add_words(
        connection,
        &instance.study_uid,
        instance.about.patient_name.as_deref(),
        instance.patient_id.as_deref(),
        instance.accession_number.as_deref(),
    )?;
    Ok(Stored::Conflict { kept_digest })
}

/// Rows of the table `refused` that are kept: a sender may try any number of objects. Studies whose rows go are marked
/// (`refused_more`).
const MOST_REFUSED: i64 = 100_000;

fn note_refused(connection: &Connection, object: &Refused) -> Result<()> {
    let noted = connection
        .prepare_cached(
            "INSERT INTO refused (study_uid, series_uid, sop_uid, reason, refused_at)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS
                 (SELECT 1 FROM instances WHERE study_uid = ?1 AND series_uid = ?2 AND sop_uid = ?3)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![object.study_uid, object.series_uid, object.sop_uid, object.reason, now()])?;
    if noted == 0 {
        return Ok(());
    }
    forget_refused(connection, connection.last_insert_rowid() - MOST_REFUSED)?;
    // A study of which nothing else came is to be judged, and told of, too.
    let new = connection
        .prepare_cached(
            "INSERT INTO studies (study_uid, first_received_at, last_received_at, opened_at) VALUES (?1, ?2, ?2, ?2)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![object.study_uid, now()])?;
    if new == 0 {
        reopen(connection, &object.study_uid)?;
    }
    Ok(())
}

/// Removes the rows of `refused` up to this one.
fn forget_refused(connection: &Connection, last: i64) -> Result<()> {
    if last > 0 {
        connection
            .prepare_cached(
                "UPDATE studies SET refused_more = 1
                 WHERE study_uid IN (SELECT study_uid FROM refused WHERE id <= ?1) AND NOT refused_more",
            )?
            .execute([last])?;
        connection.prepare_cached("DELETE FROM refused WHERE id <= ?1")?.execute([last])?;
    }
    Ok(())
}

/// Whether a study was left unflagged, and nothing says how many images it should have.
const UNFLAGGED_AND_UNCOUNTED: &str = "SELECT 1 FROM studies WHERE study_uid = ?1 AND state = 'decided' AND flagged = 0
    AND EXISTS (SELECT 1 FROM slices s JOIN instances i ON i.id = s.instance_id
                WHERE s.study_uid = ?1 AND s.state <> 'ineligible' AND i.images_in_acquisition IS NULL)";

fn note_broken_off(connection: &Connection, study_uid: &str, is_silent: bool) -> Result<()> {
    connection.execute("UPDATE studies SET broken_off = 1 WHERE study_uid = ?1", [study_uid])?;
    // A study that was decided while its association stood still is judged again where something is known to be missing. Where that is not
    // known, what was left unflagged is told with the warning; but not for each sender that leaves its associations open until they are
    // closed for it.
    let is_known = connection.prepare_cached(FEWER_IMAGES)?.exists([study_uid])?;
    if is_known || !is_silent && connection.prepare_cached(UNFLAGGED_AND_UNCOUNTED)?.exists([study_uid])? {
        reopen(connection, study_uid)?;
    }
    Ok(())
}

/// As the reason of a slice that failed because its object's file could not be read begins and goes on; for LIKE.
const FILE_UNREADABLE: &str = "the object % cannot be read: %";

/// Puts the slices of an instance that failed for want of its file into the queue, now that it is there. Returns whether there are any.
fn score_what_was_lost(connection: &Connection, id: i64, instance: &NewInstance) -> Result<bool> {
    let queued = connection
        .prepare_cached(
            "UPDATE slices SET state = 'queued', reason = NULL, attempts = 0, claims = 0, score_id = NULL
             WHERE instance_id = ?1 AND state = 'failed' AND (reason LIKE ?2 OR reason = ?3)",
        )?
        .execute(params![id, FILE_UNREADABLE, FILE_REMOVED])?;
    if queued > 0 {
        reopen(connection, &instance.study_uid)?;
        connection
            .prepare_cached("UPDATE studies SET last_received_at = max(last_received_at, ?2) WHERE study_uid = ?1")?
            .execute(params![instance.study_uid, instance.received_at])?;
    }
    Ok(queued > 0)
}

/// Opens or reopens the study of an instance, and notes what the instance says of it.
fn note_study(connection: &Connection, instance: &NewInstance) -> Result<()> {
    let has_new_words = has_new_words(connection, instance)?;
    note_patient(connection, instance)?;
    let about = &instance.about;
    // The state that comes back is the one before: only reopening changes it.
    let decided: bool = connection
        .prepare_cached(
            "INSERT INTO studies (study_uid, accession_number, patient_id, first_received_at, last_received_at, opened_at,
                 patient_name, birth_date, sex, referring_physician, study_date, study_description, modality,
                 station_name, institution_name, calling_ae, peer)
             VALUES (:study, :accession, :patient, :received, :received, :now, :name, :birth, :sex, :physician, :date,
                 :description, :modality, :station, :institution, :ae, :peer)
             ON CONFLICT (study_uid) DO UPDATE SET
                 accession_number = coalesce(excluded.accession_number, accession_number),
                 patient_id = coalesce(excluded.patient_id, patient_id),
                 patient_name = coalesce(excluded.patient_name, patient_name),
                 birth_date = coalesce(excluded.birth_date, birth_date),
                 sex = coalesce(excluded.sex, sex),
                 referring_physician = coalesce(excluded.referring_physician, referring_physician),
                 study_date = coalesce(excluded.study_date, study_date),
                 study_description = coalesce(excluded.study_description, study_description),
                 modality = coalesce(modality, excluded.modality),
                 station_name = coalesce(excluded.station_name, station_name),
                 institution_name = coalesce(excluded.institution_name, institution_name),
                 calling_ae = excluded.calling_ae, peer = excluded.peer,
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
                ":name": about.patient_name,
                ":birth": about.birth_date,
                ":sex": about.sex,
                ":physician": about.referring_physician,
                ":date": about.study_date,
                ":description": about.study_description,
                ":modality": about.modality,
                ":station": about.station_name,
                ":institution": about.institution_name,
                ":ae": instance.calling_ae,
                ":peer": instance.peer,
            },
            |row| row.get(0),
        )?;
    if has_new_words {
        add_words(
            connection,
            &instance.study_uid,
            about.patient_name.as_deref(),
            instance.patient_id.as_deref(),
            instance.accession_number.as_deref(),
        )?;
    }
    if decided {
        reopen(connection, &instance.study_uid)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO series (study_uid, series_uid, description, kernel) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![instance.study_uid, instance.series_uid, about.series_description, about.kernel])?;
    Ok(())
}

/// Patient ID and accession number as the instance has them; others that the study had before are kept beside, a dozen or more.
/// Returns whether the study is now known to have objects of several patients, and was not before.
fn note_patient(connection: &Connection, instance: &NewInstance) -> Result<bool> {
    let patient: Option<(Patient, bool)> = connection
        .prepare_cached(
            "SELECT patient_id, patient_name, birth_date, several_names OR former_patient_ids IS NOT NULL FROM studies
             WHERE study_uid = ?1",
        )?
        .query_row([&instance.study_uid], |row| {
            Ok((Patient { id: row.get(0)?, name: row.get(1)?, birth_date: row.get(2)? }, row.get(3)?))
        })
        .optional()?;
    let Some((before, was_several)) = patient else { return Ok(false) };
    let has_another_name = before.is_another_by_name(&Patient {
        id: instance.patient_id.clone(),
        name: instance.about.patient_name.clone(),
        birth_date: instance.about.birth_date.clone(),
    });
    if has_another_name {
        connection
            .prepare_cached("UPDATE studies SET several_names = 1 WHERE study_uid = ?1 AND NOT several_names")?
            .execute([&instance.study_uid])?;
    }
    let has_another_id = matches!((&before.id, &instance.patient_id), (Some(before), Some(this)) if before != this);
    connection
        .prepare_cached(
            "UPDATE studies SET
                 former_patient_ids = CASE
                     WHEN ?2 IS NULL OR patient_id IS NULL OR patient_id = ?2 OR length(former_patient_ids) > 1000
                       OR instr(char(10) || coalesce(former_patient_ids, '') || char(10), char(10) || patient_id || char(10)) > 0
                     THEN former_patient_ids
                     ELSE ltrim(coalesce(former_patient_ids, '') || char(10) || patient_id, char(10)) END,
                 former_accession_numbers = CASE
                     WHEN ?3 IS NULL OR accession_number IS NULL OR accession_number = ?3
                       OR length(former_accession_numbers) > 1000
                       OR instr(char(10) || coalesce(former_accession_numbers, '') || char(10),
                                char(10) || accession_number || char(10)) > 0
                     THEN former_accession_numbers
                     ELSE ltrim(coalesce(former_accession_numbers, '') || char(10) || accession_number, char(10)) END,
                 patient_id = coalesce(?2, patient_id), accession_number = coalesce(?3, accession_number)
             WHERE study_uid = ?1 AND (patient_id <> ?2 OR accession_number <> ?3)",
        )?
        .execute(params![instance.study_uid, instance.patient_id, instance.accession_number])?;
    Ok((has_another_id || has_another_name) && !was_several)
}

/// Who a study is of, as far as objects say.
struct Patient {
    id: Option<String>,
    name: Option<String>,
    birth_date: Option<String>,
}

impl Patient {
    /// Whether name and birth date say that another is somebody else, whatever the IDs say: another birth date; or another name, where the
    /// IDs do not say that they are one. A name alone may have been corrected.
    fn is_another_by_name(&self, other: &Patient) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>, plain: &dyn Fn(&str) -> String| match (a, b) {
            (Some(a), Some(b)) if a != b => {
                let (a, b) = (plain(a), plain(b));
                !a.is_empty() && !b.is_empty() && a != b
            }
            _ => false,
        };
        let digits = |date: &str| date.chars().filter(char::is_ascii_digit).collect::<String>();
        // Of the alphabetic group, without what pads it and what divides it.
        let letters = |name: &str| {
            let alphabetic = name.split('=').next().unwrap_or_default();
            alphabetic.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_uppercase).collect::<String>()
        };
        let has_one_id = self.id.is_some() && self.id == other.id;
        differ(&self.birth_date, &other.birth_date, &digits) || !has_one_id && differ(&self.name, &other.name, &letters)
    }
}

/// What an object that is set aside says of the patient goes the way of its ID: all of it, or two people are mixed.
fn correct_patient(connection: &Connection, instance: &NewInstance) -> Result<()> {
    let about = &instance.about;
    connection
        .prepare_cached(
            "UPDATE studies SET patient_name = coalesce(?2, patient_name), birth_date = coalesce(?3, birth_date), sex = coalesce(?4, sex)
             WHERE study_uid = ?1",
        )?
        .execute(params![instance.study_uid, about.patient_name, about.birth_date, about.sex])?;
    Ok(())
}

fn insert_instance(connection: &Connection, instance: &NewInstance) -> Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO instances (sop_uid, sop_class_uid, transfer_syntax, study_uid, series_uid, instance_number,
                                    digest, path, size, calling_ae, peer, received_at, concatenation, concatenation_total,
                                    images_in_acquisition)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
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
            instance.received_at,
            instance.concatenation.as_ref().map(|concatenation| &concatenation.uid),
            instance.concatenation.as_ref().map(|concatenation| concatenation.total),
            instance.images_in_acquisition
        ])?;
    Ok(connection.last_insert_rowid())
}

fn replace_instance(connection: &Connection, id: i64, instance: &NewInstance) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE instances SET sop_class_uid = ?2, transfer_syntax = ?3, instance_number = ?4, digest = ?5, path = ?6,
                 size = ?7, calling_ae = ?8, peer = ?9, received_at = ?10, images_in_acquisition = ?11, removed_at = NULL, lost_at = NULL
             WHERE id = ?1",
        )?
        .execute(params![
            id,
            instance.sop_class_uid,
            instance.transfer_syntax,
            instance.instance_number,
            instance.digest,
            instance.path,
            instance.size as i64,
            instance.calling_ae,
            instance.peer,
            instance.received_at,
            instance.images_in_acquisition
        ])?;
    Ok(())
}

/// The slices of an instance, new or anew.
fn insert_slices(connection: &Connection, id: i64, instance: &NewInstance) -> Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO slices (instance_id, study_uid, frame, state, reason, priority, position, orientation, thickness,
                             doubts, is_substitute, head_check, source, lacking, location)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
         ON CONFLICT (instance_id, frame) DO UPDATE SET state = excluded.state, reason = excluded.reason, source = excluded.source,
             priority = excluded.priority, position = excluded.position, orientation = excluded.orientation,
             thickness = excluded.thickness, doubts = excluded.doubts, is_substitute = excluded.is_substitute,
             head_check = excluded.head_check, lacking = excluded.lacking, location = excluded.location, shows = NULL, attempts = 0, claims = 0, score_id = NULL",
    )?;
    let source = instance.source();
    let priority = match (instance.is_taken_in_again, instance.stat) {
        (true, _) => TAKEN_IN_AGAIN,
        (false, true) => STAT,
        (false, false) => NEW,
    };
    for (frame, slice) in (1i64..).zip(&instance.slices) {
        let (state, reason) = match &slice.start {
            SliceStart::Queued => ("queued", None),
            SliceStart::Ineligible(reason) => ("ineligible", Some(reason)),
        };
        let facts = &slice.facts;
        insert.execute(params![
            id,
            instance.study_uid,
            frame,
            state,
            reason,
            priority,
            facts.position,
            facts.orientation,
            facts.thickness,
            facts.doubts,
            facts.is_substitute,
            facts.head_check,
            source,
            facts.lacking,
            facts.location
        ])?;
    }
    Ok(())
}
