//! Queries of people about a study: its slices, verdicts and notifications.

use rusqlite::{OptionalExtension, params};

use super::Reader;
use super::reader::records;
use crate::ledger::{NotificationRow, Result, SeriesRow, SetAsideRow, SliceRow, VerdictRow, WorklistRow};

impl Reader {
    /// A study's row of the worklist.
    pub fn study(&self, study_uid: &str) -> Result<Option<WorklistRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM worklist WHERE study_uid = ?1")?;
            Ok(records(&mut statement, [study_uid])?.pop())
        })
    }

    /// The Study Instance UIDs that `named` can mean, the newest first, at most `most`: the study with this UID, else those with
    /// this accession number, else those whose UID begins so.
    pub fn studies_named(&self, named: &str, most: usize) -> Result<Vec<String>> {
        self.read(|connection| {
            for condition in [
                "study_uid = ?1",
                "accession_number = ?1",
                "substr(study_uid, 1, length(?1)) = ?1",
                "length(?1) >= 4 AND substr(study_uid, -length(?1)) = ?1",
            ] {
                let mut statement = connection.prepare_cached(&format!(
                    "SELECT study_uid FROM studies WHERE {condition} ORDER BY last_received_at DESC LIMIT ?2"
                ))?;
                let found = statement.query_map(params![named, most as i64], |row| row.get(0))?;
                let found = found.collect::<rusqlite::Result<Vec<String>>>()?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            Ok(Vec::new())
        })
    }

    /// The slices of a study, ordered by series, instance number and frame.
    pub fn slices(&self, study_uid: &str) -> Result<Vec<SliceRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM slice_results WHERE study_uid = ?1 ORDER BY series_uid, instance_number, sop_uid, frame",
            )?;
            records(&mut statement, [study_uid])
        })
    }

    /// The slice threshold of the newest score of a study.
    pub fn slice_threshold(&self, study_uid: &str) -> Result<Option<f64>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT c.threshold FROM slices s JOIN scores c ON c.id = s.score_id
                 WHERE s.study_uid = ?1 ORDER BY c.id DESC LIMIT 1",
            )?;
            Ok(statement.query_row([study_uid], |row| row.get(0)).optional()?)
        })
    }

    /// The series of a study, each with its verdict or why it has none.
    pub fn series(&self, study_uid: &str) -> Result<Vec<SeriesRow>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM series_results WHERE study_uid = ?1 ORDER BY series_uid")?;
            records(&mut statement, [study_uid])
        })
    }

    /// The objects of a study, or of all, that were kept and not taken in, newest first; at most `most`.
    pub fn set_aside(&self, study_uid: Option<&str>, most: u32) -> Result<Vec<SetAsideRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM set_aside WHERE (?1 IS NULL OR study_uid = ?1) ORDER BY received_at DESC LIMIT ?2",
            )?;
            records(&mut statement, params![study_uid, most])
        })
    }

    /// How many objects are set aside, by why: conflict, replaced, unreadable.
    pub fn count_set_aside(&self) -> Result<[u64; 3]> {
        self.read(|connection| {
            let sql = "SELECT coalesce(sum(kind = 'conflict'), 0), coalesce(sum(kind = 'replaced'), 0),
                              coalesce(sum(kind = 'unreadable'), 0) FROM quarantine";
            let count = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(|count| count as u64);
            let counts = |row: &rusqlite::Row<'_>| Ok([count(row, 0)?, count(row, 1)?, count(row, 2)?]);
            Ok(connection.prepare_cached(sql)?.query_row([], counts)?)
        })
    }

    /// The verdicts on a study, oldest first.
    pub fn verdicts(&self, study_uid: &str) -> Result<Vec<VerdictRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM verdicts WHERE study_uid = ?1 ORDER BY id")?;
            records(&mut statement, [study_uid])
        })
    }

    /// The notifications of one study, or of all, oldest first.
    pub fn notifications(&self, study_uid: Option<&str>) -> Result<Vec<NotificationRow>> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT * FROM notification_log WHERE (?1 IS NULL OR study_uid = ?1) ORDER BY id")?;
            records(&mut statement, [study_uid])
        })
    }

    /// The newest notifications, of one state or of all, newest first.
    pub fn newest_notifications(&self, state: Option<&str>, limit: u32) -> Result<Vec<NotificationRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM notification_log WHERE (?1 IS NULL OR state = ?1) ORDER BY id DESC LIMIT ?2",
            )?;
            records(&mut statement, params![state, limit])
        })
    }
}
