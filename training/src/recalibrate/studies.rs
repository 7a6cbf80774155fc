//! Labelled studies and their scores by a card's rule: from scored slices, or from tables that the node or a training wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use triaged_model::{ModelCard, StudyRule};

use super::verdict;
use crate::calibration::Platt;
use crate::data::Slice;
use crate::files::LineEnds;

/// A study with its score by what judges it, the card's sequence network or study rule, and whether it has hemorrhage.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// Who it is of; where nothing says so, the study itself.
    pub patient: String,
    pub score: f64,
    /// The study rule's score, by which early alerts are given, where the verdict is a sequence network's and the slices are known.
    pub early: Option<f64>,
    /// Whether the node flagged it though this score was below the threshold: by an early alert, which is never taken back.
    pub unconfirmed: bool,
    pub positive: bool,
}

/// Rows that no labelled study came of, by why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Left(BTreeMap<&'static str, usize>);

impl Left {
    fn add(&mut self, why: &'static str) {
        self.add_all(why, 1);
    }

    /// Several of one reason; nothing of none.
    pub fn add_all(&mut self, why: &'static str, count: usize) {
        if count > 0 {
            *self.0.entry(why).or_default() += count;
        }
    }

    /// A line a reason.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(why, count)| format!("{count} left out: {why}"))
    }
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelledError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: csv::Error },
    #[error("{path} line {line}: {why}")]
    Row { path: PathBuf, line: u64, why: String },
    #[error("{path}: {why}")]
    Table { path: PathBuf, why: String },
    #[error("no labelled study with a score is left{0}")]
    Nothing(String),
}

/// The labels of studies, by Study Instance UID or accession number.
#[derive(Debug, Default)]
pub struct Labels {
    by_study: HashMap<String, bool>,
    by_accession: HashMap<String, bool>,
}

impl Labels {
    /// A table with the column `label` (1 with hemorrhage, 0 without) beside `study_uid` or `accession_number`.
    ///
    /// # Errors
    /// [`LabelledError`], also where a study has two labels.
    pub fn read(path: &Path) -> Result<Self, LabelledError> {
        let table = Table::read(path)?;
        if !table.has("study_uid") && !table.has("accession_number") {
            let why = format!(
                "it needs a column study_uid or accession_number, and a column label{}",
                table.remedy("study_uid")
            );
            return Err(table.wrong(&why));
        }
        if !table.has("label") {
            return Err(table.wrong(&format!("it needs a column label, 1 or 0{}", table.remedy("label"))));
        }
        let mut labels = Self::default();
        for row in &table.rows {
            let label = table.label(row)?;
            for (column, known) in [("study_uid", &mut labels.by_study), ("accession_number", &mut labels.by_accession)]
            {
                let Some(key) = table.get(row, column).map(unguarded) else { continue };
                if known.insert(key.to_owned(), label).is_some_and(|other| other != label) {
                    return Err(table.at(row, format!("{column} {key} is labelled 1 and 0")));
                }
            }
        }
        Ok(labels)
    }

    fn of(&self, study: Option<&str>, accession: Option<&str>) -> Option<bool> {
        let accession = accession.map(unguarded);
        let by_study = study.and_then(|study| self.by_study.get(study));
        by_study.or_else(|| accession.and_then(|accession| self.by_accession.get(accession))).copied()
    }
}

/// A cell without the apostrophe that `triaged results --format csv` puts before what a spreadsheet would take for a formula.
fn unguarded(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(['=', '+', '-', '@']) => rest,
        _ => cell,
    }
}

/// A CSV file with a header.
struct Table {
    path: PathBuf,
    columns: HashMap<String, usize>,
    rows: Vec<(u64, csv::StringRecord)>,
}

type Row = (u64, csv::StringRecord);

impl Table {
    fn read(path: &Path) -> Result<Self, LabelledError> {
        let failed = |source| LabelledError::Read { path: path.into(), source };
        let ends = LineEnds::of(path).map_err(|error| failed(error.into()))?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(failed)?;
        let header = reader.headers().map_err(failed)?;
        // A spreadsheet begins its file with a byte order mark.
        let columns = header.iter().enumerate().map(|(i, name)| (name.trim_start_matches('\u{feff}').to_owned(), i));
        let columns = columns.collect();
        let rows = reader.records().map(|row| row.map(|row| (ends.line_of(&row), row)));
        Ok(Self { path: path.into(), columns, rows: rows.collect::<Result<_, _>>().map_err(failed)? })
    }

    fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// What to do where a column is not there and the file looks as if it were, with a space or colon before it; empty otherwise.
    fn remedy(&self, column: &str) -> String {
        let names = || self.columns.keys();
        if let Some(other) = names().find(|name| name.eq_ignore_ascii_case(column)) {
            return format!(": rename the column {other} to {column}");
        }
        match names().any(|name| name.contains(';')) {
            true => "; its columns are set apart by semicolons: save it with commas".into(),
            false => String::new(),
        }
    }

    /// A cell; none where it is empty or there is no such column.
    fn get<'a>(&self, row: &'a Row, column: &str) -> Option<&'a str> {
        row.1.get(*self.columns.get(column)?).filter(|cell| !cell.is_empty())
    }

    fn wrong(&self, why: &str) -> LabelledError {
        LabelledError::Table { path: self.path.clone(), why: why.into() }
    }

    fn at(&self, row: &Row, why: String) -> LabelledError {
        LabelledError::Row { path: self.path.clone(), line: row.0, why }
    }

    fn label(&self, row: &Row) -> Result<bool, LabelledError> {
        match self.get(row, "label") {
            Some("1") => Ok(true),
            Some("0") => Ok(false),
            Some(other @ ("1.0" | "0.0")) => {
                Err(self.at(row, format!("the label is {other:?}; it must be 1 or 0, written without a fraction")))
            }
            other => Err(self.at(row, format!("the label is {:?}; it must be 1 or 0", other.unwrap_or("")))),
        }
    }

    /// A probability or score.
    fn number(&self, row: &Row, column: &str) -> Result<Option<f64>, LabelledError> {
        let Some(text) = self.get(row, column) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if (0.0..=1.0).contains(&value) => Ok(Some(value)),
            _ => Err(self.at(row, format!("{column} is {text:?}, not a number from 0 to 1"))),
        }
    }
}

/// A study's score as the node gives it: the highest of its series', each by the rule.
fn score(rule: &StudyRule, series: &BTreeMap<String, Vec<f64>>) -> f64 {
    series.values().map(|slices| rule.judge(slices).score).fold(0.0, f64::max)
}

/// Studies of scored slices by the study rule, in the order of patient and study.
pub fn of_scored_slices(slices: &[(&Slice, f64)], rule: &StudyRule) -> Vec<Labelled> {
    #[derive(Default)]
    struct Study {
        series: BTreeMap<String, Vec<f64>>,
        positive: bool,
    }
    let mut studies: BTreeMap<(&str, Option<&str>), Study> = BTreeMap::new();
    for (slice, probability) in slices {
        let study = studies.entry((&slice.patient, slice.study.as_deref())).or_default();
        study.series.entry(slice.series.clone().unwrap_or_default()).or_default().push(*probability);
        study.positive |= slice.positive;
    }
    let labelled = |((patient, _), study): ((&str, Option<&str>), Study)| Labelled {
        patient: patient.into(),
        score: score(rule, &study.series),
        early: None,
        unconfirmed: false,
        positive: study.positive,
    };
    studies.into_iter().map(labelled).collect()
}

/// Labelled studies of a table that this card's scores are in:
///
/// - `triaged results --format csv`: a row a study, told by its column `score`. Incomplete studies are left out, and those that were judged by
///   another threshold than the card's, so by another card. Of a study's several rows the one of the newest `revision` counts.
/// - the view `slice_results`: a row a slice, told by its columns `study_uid` and `probability`. Slices of another model's file are left
///   out, and studies with slices that failed or wait.
/// - `scores.csv` of a training, told by its column `side`: the network's own probabilities, which the card's calibration is applied to; a
///   patient is one study.
///
/// A row that repeats another counts once; two rows that say different things of one study or slice are refused.
///
/// Labels are those of `labels`, or of a column `label`; of slices a study has hemorrhage where one has.
///
/// # Errors
/// [`LabelledError`].
pub fn read_scores(
    path: &Path,
    labels: Option<&Labels>,
    card: &ModelCard,
) -> Result<(Vec<Labelled>, Left), LabelledError> {
    let table = Table::read(path)?;
    let mut left = Left::default();
    let (of_slices, of_studies) = (table.has("probability"), table.has("score"));
    if labels.is_none() && !table.has("label") {
        let why = "it has no column label (1 with hemorrhage, 0 without): add one, or give --labels FILE";
        return Err(table.wrong(&format!("{why}{}", table.remedy("label"))));
    }
    if of_slices && card.sequence.is_some() {
        return Err(table.wrong(
            "it has a row a slice, and the card's verdicts are its sequence network's, which reads places too: take `triaged results --format \
             csv`, a row a study, or --data FOLDER",
        ));
    }
    if let Some(sequence) = &card.sequence
        && (sequence.threshold - card.study_rule.threshold()).abs() < 1e-9
    {
        return Err(table.wrong(
            "the card's sequence network and study rule have one threshold, so the table does not tell which of them judged a study: take \
             --data FOLDER",
        ));
    }
    let studies = match (of_slices, of_studies) {
        (true, _) => of_slice_rows(&table, labels, card, &mut left)?,
        (_, true) => of_study_rows(&table, labels, card, &mut left)?,
        _ => {
            let why = "it has neither a column score, a row a study, nor a column probability, a row a slice";
            return Err(table.wrong(&format!("{why}{}", table.remedy("score"))));
        }
    };
    if studies.is_empty() {
        let why: Vec<String> = left.lines().collect();
        return Err(LabelledError::Nothing(if why.is_empty() {
            String::new()
        } else {
            format!(": {}", why.join("; "))
        }));
    }
    Ok((studies, left))
}

/// The label of a row's study. None where `labels` do not name it.
fn label_of(table: &Table, row: &Row, labels: Option<&Labels>) -> Result<Option<bool>, LabelledError> {
    match labels {
        Some(labels) => Ok(labels.of(table.get(row, "study_uid"), table.get(row, "accession_number"))),
        None if table.get(row, "label").is_none() => Ok(None),
        None => table.label(row).map(Some),
    }
}

const NO_LABEL: &str = "without a label";

/// The row that counts of each study, in their order: of equal ones one, of several revisions the newest.
fn one_a_study<'a>(table: &'a Table, left: &mut Left) -> Result<Vec<&'a Row>, LabelledError> {
    let mut rows: Vec<&Row> = Vec::with_capacity(table.rows.len());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for row in &table.rows {
        let Some(study) = table.get(row, "study_uid") else {
            rows.push(row);
            continue;
        };
        let place = *places.entry(study).or_insert(rows.len());
        let Some(before) = rows.get(place).copied() else {
            rows.push(row);
            continue;
        };
        if before.1 == row.1 {
            left.add(REPEATED);
            continue;
        }
        let revision = |row: &Row| table.get(row, "revision").and_then(|revision| revision.parse::<u64>().ok());
        match (revision(before), revision(row)) {
            (Some(old), Some(new)) if old != new => {
                left.add("rows of an earlier revision of a study");
                rows[place] = if new > old { row } else { before };
            }
            _ => {
                let why = format!(
                    "the study {study} has another row in line {}, and no column revision tells which of them is newer; leave one",
                    before.0
                );
                return Err(table.at(row, why));
            }
        }
    }
    Ok(rows)
}

const REPEATED: &str = "rows that repeat another";

fn of_study_rows(
    table: &Table,
    labels: Option<&Labels>,
    card: &ModelCard,
    left: &mut Left,
) -> Result<Vec<Labelled>, LabelledError> {
    let mut studies = Vec::new();
    for row in one_a_study(table, left)? {
        let Some(positive) = label_of(table, row, labels)? else {
            left.add(NO_LABEL);
            continue;
        };
        let Some(score) = table.number(row, "score")? else {
            left.add("studies without a score");
            continue;
        };
        let threshold = table.number(row, "threshold")?;
        if threshold.is_some_and(|threshold| (threshold - verdict::threshold(card)).abs() > 1e-9) {
            left.add("studies that were judged by another threshold than the card's, so by another card");
            continue;
        }
        // A flagged study may lack slices too. Left out, flagged or not: else the flagged ones alone would stay.
        let incomplete = table.get(row, "verdict") == Some("incomplete") || table.get(row, "missing").is_some();
        if incomplete || table.get(row, "state").is_some_and(|state| state != "decided") {
            left.add("studies that are incomplete or not decided");
            continue;
        }
        let below = score < verdict::threshold(card);
        let unconfirmed = card.sequence.is_some() && below && table.get(row, "flagged") == Some("1");
        let name = table.get(row, "patient_id").or(table.get(row, "patient")).or(table.get(row, "study_uid"));
        let patient = name.map_or_else(|| format!("line {}", row.0), str::to_owned);
        studies.push(Labelled { patient, score, early: None, unconfirmed, positive });
    }
    Ok(studies)
}

fn of_slice_rows(
    table: &Table,
    labels: Option<&Labels>,
    card: &ModelCard,
    left: &mut Left,
) -> Result<Vec<Labelled>, LabelledError> {
    struct Study {
        patient: String,
        series: BTreeMap<String, Vec<f64>>,
        positive: bool,
    }
    let own = table.has("side");
    let calibration: Option<Platt> = match own {
        true => serde_json::from_value(card.about["calibration"].clone()).ok(),
        false => None,
    };
    let mut studies: BTreeMap<String, Study> = BTreeMap::new();
    // A network that could not read a slice may have missed what is on it.
    let mut unfinished: BTreeSet<&str> = BTreeSet::new();
    // By study (or folder), series, object and frame: a slice counts once.
    let mut seen: HashMap<[&str; 4], &Row> = HashMap::new();
    for row in &table.rows {
        let patient = table.get(row, "patient_id").or(table.get(row, "patient"));
        let Some(name) = table.get(row, "study_uid").or(patient) else {
            return Err(table.at(row, "it names neither a study_uid nor a patient".into()));
        };
        let Some(positive) = label_of(table, row, labels)? else {
            left.add(NO_LABEL);
            continue;
        };
        if matches!(table.get(row, "state"), Some("failed" | "queued")) {
            unfinished.insert(name);
            continue;
        }
        let Some(probability) = table.number(row, "probability")? else {
            left.add("slices without a probability");
            continue;
        };
        if table.get(row, "model_sha256").is_some_and(|sha256| sha256 != card.sha256) {
            left.add("slices that another model scored");
            continue;
        }
        if let Some(slice) = table.get(row, "sop_uid").or(table.get(row, "id")) {
            let of = |column| table.get(row, column).unwrap_or_default();
            let (of_study, series) = if own { (of("source"), name) } else { (name, of("series_uid")) };
            match seen.insert([of_study, series, slice, of("frame")], row) {
                Some(before) if before.1 == row.1 => {
                    left.add(REPEATED);
                    continue;
                }
                Some(before) => {
                    return Err(
                        table.at(row, format!("the slice {slice} has another row in line {}; leave one", before.0))
                    );
                }
                None => {}
            }
        }
        let study = studies.entry(name.to_owned()).or_insert_with(|| Study {
            patient: patient.unwrap_or(name).to_owned(),
            series: BTreeMap::new(),
            positive: false,
        });
        let series = table.get(row, "series_uid").unwrap_or_default().to_owned();
        let probability = calibration.map_or(probability, |platt| platt.apply(probability));
        study.series.entry(series).or_default().push(probability);
        study.positive |= positive;
    }
    let all = studies.len();
    studies.retain(|name, _| !unfinished.contains(name.as_str()));
    left.add_all("studies with slices that failed or wait to be scored", all - studies.len());
    let labelled = |study: Study| Labelled {
        score: score(&card.study_rule, &study.series),
        patient: study.patient,
        early: None,
        unconfirmed: false,
        positive: study.positive,
    };
    Ok(studies.into_values().map(labelled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accession_number_that_a_spreadsheet_must_not_compute_is_the_same_with_and_without_its_apostrophe() {
        assert_eq!((unguarded("'-123"), unguarded("-123"), unguarded("'A1")), ("-123", "-123", "'A1"));
        let labels = Labels { by_accession: [("-123".to_owned(), true)].into(), ..Labels::default() };
        assert_eq!(labels.of(None, Some("'-123")), Some(true));
    }
}
