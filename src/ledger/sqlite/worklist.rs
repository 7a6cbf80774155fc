//! The worklist, filtered, ordered and in pages. It stays quick with a hundred thousand studies: every order has an index, and
//! what a row shows beyond the study itself is read for the rows of the page alone.

use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, params, params_from_iter};

use super::Reader;
use super::reader::records;
use super::search::words;
use crate::ledger::{Order, Result, StandingCounts, Telling, VerdictFilter, WorklistFilter, WorklistRow};

/// Flagged and not acknowledged, then incomplete and not acknowledged, flagged, incomplete, the rest; the newest first within each.
/// The index `studies_reading_order` has the same expressions.
pub(super) const READING_ORDER: &str = "ORDER BY flagged IS 1 AND acknowledged_at IS NULL DESC, verdict IS 'incomplete' AND acknowledged_at IS NULL DESC, flagged IS 1 DESC,
    verdict IS 'incomplete' DESC, last_received_at DESC";

/// 0 flagged and unread, 1 incomplete and unread, 2 receiving, 3 the rest. The index `studies_working_order` has the same.
const WORKING_GROUP: &str = "CASE WHEN flagged IS 1 AND acknowledged_at IS NULL THEN 0 WHEN verdict IS 'incomplete' AND acknowledged_at IS NULL THEN 1 WHEN state = 'receiving' THEN 2 ELSE 3 END";

/// Rows are counted up to here, and those of a search up to there: to find them costs more.
const MOST_COUNTED: u32 = 10_000;
const MOST_FOUND: u32 = 2_000;

/// A word that more studies have is common.
const COMMON: i64 = 20_000;

/// A page of the worklist.
#[derive(Debug, Clone)]
pub struct WorklistPage {
    pub rows: Vec<WorklistRow>,
    /// Studies that the filter holds for, counted up to 10,000, those of a search up to 2,000.
    pub total: u64,
    /// There are more than were counted.
    pub more_than_total: bool,
}

/// Conditions of a query, with the values for their question marks.
struct Conditions {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push(sql.to_owned());
        self.values.extend(values);
    }

    fn of(connection: &Connection, filter: &WorklistFilter) -> Result<Conditions> {
        let mut all = Conditions { sql: vec!["1".into()], values: Vec::new() };
        let text = |text: &str| Value::Text(text.to_owned());
        if filter.flagged_only {
            all.add("flagged = 1", []);
        }
        match filter.verdict {
            None => {}
            Some(VerdictFilter::Flagged) => all.add("verdict = 'flagged'", []),
            Some(VerdictFilter::Incomplete) => all.add("verdict = 'incomplete'", []),
            Some(VerdictFilter::NotFlagged) => all.add("verdict = 'not flagged'", []),
        }
        if let Some(state) = filter.state {
            all.add("state = ?", [text(state)]);
        }
        match filter.acknowledged {
            None => {}
            Some(true) => all.add("acknowledged_at IS NOT NULL", []),
            Some(false) => all.add("acknowledged_at IS NULL", []),
        }
        // The same in the words of an index.
        match (filter.verdict, filter.acknowledged) {
            (Some(VerdictFilter::Flagged), Some(false)) => all.add(&format!("{WORKING_GROUP} = 0"), []),
            (Some(VerdictFilter::Incomplete), Some(false)) => all.add(&format!("{WORKING_GROUP} IN (0, 1)"), []),
            _ => {}
        }
        if let Some(ae) = &filter.calling_ae {
            all.add("calling_ae = ?", [text(ae)]);
        }
        if let Some(number) = &filter.accession_number {
            all.add("accession_number = ?", [text(number)]);
        }
        if let Some(since) = &filter.since {
            all.add("last_received_at >= ?", [text(since)]);
        }
        if let Some(before) = &filter.before {
            all.add("last_received_at < ?", [text(before)]);
        }
        if let Some(since) = &filter.rest_since {
            all.add(&format!("({WORKING_GROUP} < 3 OR last_received_at >= ?)"), [text(since)]);
        }
        if let Some(search) = &filter.search {
            all.search(connection, search)?;
        }
        Ok(all)
    }

    /// The studies of the rarest word are looked up, and asked for the other words. Where all words are common, that would be to
    /// sort tens of thousands: then the studies are walked in their order, and each is asked, until a page is full.
    fn search(&mut self, connection: &Connection, search: &str) -> Result<()> {
        let search = search.trim();
        let (mut sql, mut values) = (Vec::new(), Vec::new());
        let ranges: Vec<[String; 2]> =
            words(search).into_iter().map(|word| [word.clone(), format!("{word}\u{10FFFF}")]).collect();
        let mut count = connection.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM study_words WHERE word >= ?1 AND word < ?2 LIMIT ?3)",
        )?;
        let mut rarest: Option<(i64, usize)> = None;
        for (place, [begin, end]) in ranges.iter().enumerate() {
            let hits: i64 = count.query_row(params![begin, end, COMMON + 1], |row| row.get(0))?;
            rarest = rarest.into_iter().chain([(hits, place)]).min();
        }
        let looked_up = rarest.filter(|(hits, _)| *hits <= COMMON).map(|(_, place)| place);
        for (place, range) in ranges.into_iter().enumerate() {
            sql.push(match looked_up == Some(place) {
                true => "study_uid IN (SELECT study_uid FROM study_words WHERE word >= ? AND word < ?)",
                false => {
                    "EXISTS (SELECT 1 FROM study_words w WHERE w.study_uid = studies.study_uid AND w.word >= ? AND w.word < ?)"
                }
            });
            values.extend(range.map(Value::Text));
        }
        let of_words = if sql.is_empty() { "1".to_owned() } else { sql.join(" AND ") };
        // Numbers with full stops are the beginning of a UID, or of a patient ID of some countries.
        if search.contains('.') && search.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            // No character of a UID comes after this one.
            values.extend([search.to_owned(), format!("{search}\u{7f}")].map(Value::Text));
            self.add(&format!("({of_words} OR study_uid >= ? AND study_uid < ?)"), values);
        } else {
            self.add(&of_words, values);
        }
        Ok(())
    }

    fn sql(&self) -> String {
        self.sql.join(" AND ")
    }
}

fn order(order: Order) -> String {
    match order {
        Order::Reading => READING_ORDER.to_owned(),
        Order::Working => format!("ORDER BY {WORKING_GROUP}, last_received_at DESC"),
        Order::Newest => "ORDER BY last_received_at DESC".to_owned(),
        Order::Oldest => "ORDER BY last_received_at".to_owned(),
        Order::Score => "ORDER BY score DESC".to_owned(),
        Order::Name => "ORDER BY patient_name COLLATE NOCASE".to_owned(),
        Order::PatientId => "ORDER BY patient_id".to_owned(),
        Order::AccessionNumber => "ORDER BY accession_number".to_owned(),
        Order::StudyDate => "ORDER BY study_date DESC".to_owned(),
    }
}

impl Reader {
    /// The studies that a filter holds for, in its order.
    pub fn worklist(&self, filter: &WorklistFilter) -> Result<Vec<WorklistRow>> {
        self.read(|connection| rows(connection, filter))
    }

    /// The same, and how many there are without limit and offset.
    pub fn worklist_page(&self, filter: &WorklistFilter) -> Result<WorklistPage> {
        self.read(|connection| {
            let conditions = Conditions::of(connection, filter)?;
            let most = if filter.search.is_some() { MOST_FOUND } else { MOST_COUNTED };
            let sql =
                format!("SELECT count(*) FROM (SELECT 1 FROM studies WHERE {} LIMIT {})", conditions.sql(), most + 1);
            let counted: u32 =
                connection.prepare_cached(&sql)?.query_row(params_from_iter(&conditions.values), |row| row.get(0))?;
            let rows = rows(connection, filter)?;
            Ok(WorklistPage { rows, total: counted.min(most).into(), more_than_total: counted > most })
        })
    }

    /// How many studies wait for a person or for slices.
    pub fn standing_counts(&self) -> Result<StandingCounts> {
        self.read(|connection| {
            let sql = format!(
                "SELECT total({WORKING_GROUP} = 0), total({WORKING_GROUP} = 1), total({WORKING_GROUP} = 2)
                 FROM studies WHERE {WORKING_GROUP} < 3"
            );
            let count = |row: &rusqlite::Row<'_>, column| row.get::<_, f64>(column).map(|count| count as u64);
            Ok(connection.prepare_cached(&sql)?.query_row([], |row| {
                Ok(StandingCounts { flagged: count(row, 0)?, incomplete: count(row, 1)?, receiving: count(row, 2)? })
            })?)
        })
    }

    /// The studies that are flagged and not acknowledged, the newest first; at most `most`.
    pub fn unread_flags(&self, most: u32) -> Result<Vec<String>> {
        self.read(|connection| {
            let sql = format!(
                "SELECT study_uid FROM studies WHERE {WORKING_GROUP} = 0 ORDER BY {WORKING_GROUP}, last_received_at DESC
                 LIMIT ?1"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_map([most], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// What becomes of the messages of a study of which none was delivered to people yet.
    pub fn telling(&self, study_uid: &str) -> Result<Telling> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM outbox WHERE study_uid = ?1 AND state = 'pending')
                           OR EXISTS (SELECT 1 FROM escalations WHERE study_uid = ?1 AND state = 'waiting'),
                       EXISTS (SELECT 1 FROM outbox WHERE study_uid = ?1 AND state = 'dead')";
            let found: (bool, bool) =
                connection.prepare_cached(sql)?.query_row([study_uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(match found {
                (true, _) => Telling::ToCome,
                (false, true) => Telling::GivenUp,
                (false, false) => Telling::Nobody,
            })
        })
    }

    /// The AE titles that sent studies, in order; at most `most`.
    pub fn senders(&self, most: u32) -> Result<Vec<String>> {
        self.read(|connection| {
            // Steps from one to the next in the index instead of reading all of it.
            let sql = "WITH RECURSIVE sender (ae) AS (
                           SELECT min(calling_ae) FROM studies
                           UNION ALL
                           SELECT (SELECT min(calling_ae) FROM studies WHERE calling_ae > ae) FROM sender WHERE ae IS NOT NULL)
                       SELECT ae FROM sender WHERE ae IS NOT NULL LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_map([most], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
    }
}

fn rows(connection: &Connection, filter: &WorklistFilter) -> Result<Vec<WorklistRow>> {
    let conditions = Conditions::of(connection, filter)?;
    let sql =
        format!("SELECT study_uid FROM studies WHERE {} {} LIMIT ? OFFSET ?", conditions.sql(), order(filter.order));
    let (limit, offset) = (filter.limit.map_or(-1, i64::from), i64::from(filter.offset));
    let values = conditions.values.iter().map(|value| value as &dyn ToSql).chain([&limit as &dyn ToSql, &offset]);
    let mut statement = connection.prepare_cached(&sql)?;
    let uids = statement.query_map(params_from_iter(values), |row| row.get(0))?;
    let uids: Vec<String> = uids.collect::<rusqlite::Result<_>>()?;
    let mut row = connection.prepare_cached("SELECT * FROM worklist WHERE study_uid = ?1")?;
    let mut all = Vec::with_capacity(uids.len());
    for uid in uids {
        all.extend(records(&mut row, [uid])?);
    }
    Ok(all)
}
