//! Labelled studies and their scores by a card's rule: from scored slices, or from tables that the node or a training wrote.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use triaged_model::{ModelCard, StudyRule};

use super::verdict;
use crate::calibration::Platt;
use crate::data::Slice;

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
        *self.0.entry(why).or_default() += 1;
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
            return Err(table.wrong("it needs a column study_uid or accession_number, and a column label"));
        }
        let mut labels = Self::default();
        for row in &table.rows {
            let label = table.label(row)?;
            for (column, known) in [("study_uid", &mut labels.by_study), ("accession_number", &mut labels.by_accession)]
            {
                let Some(key) = table.get(row, column) else { continue };
                if known.insert(key.to_owned(), label).is_some_and(|other| other != label) {
                    return Err(table.at(row, format!("{column} {key} is labelled 1 and 0")));
                }
            }
        }
        Ok(labels)
    }

    fn of(&self, study: Option<&str>, accession: Option<&str>) -> Option<bool> {
        let by_study = study.and_then(|study| self.by_study.get(study));
        by_study.or_else(|| accession.and_then(|accession| self.by_accession.get(accession))).copied()
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
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(failed)?;
        let header = reader.headers().map_err(failed)?;
        // A spreadsheet begins its file with a byte order mark.
        let columns = header.iter().enumerate().map(|(i, name)| (name.trim_start_matches('\u{feff}').to_owned(), i));
        let columns = columns.collect();
        let rows = reader.records().map(|row| row.map(|row| (row.position().map_or(0, csv::Position::line), row)));
        Ok(Self { path: path.into(), columns, rows: rows.collect::<Result<_, _>>().map_err(failed)? })
    }

    fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
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
///   another threshold than the card's, so by another card.
/// - the view `slice_results`: a row a slice, told by its columns `study_uid` and `probability`. Slices of another model's file are left
///   out.
/// - `scores.csv` of a training, told by its column `side`: the network's own probabilities, which the card's calibration is applied to; a
///   patient is one study.
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
        return Err(
            table.wrong("it has no column label (1 with hemorrhage, 0 without): add one, or give --labels FILE")
        );
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
            return Err(
                table.wrong("it has neither a column score, a row a study, nor a column probability, a row a slice")
            );
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

fn of_study_rows(
    table: &Table,
    labels: Option<&Labels>,
    card: &ModelCard,
    left: &mut Left,
) -> Result<Vec<Labelled>, LabelledError> {
    let mut studies = Vec::new();
    for row in &table.rows {
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
    for row in &table.rows {
        let patient = table.get(row, "patient_id").or(table.get(row, "patient"));
        let Some(name) = table.get(row, "study_uid").or(patient) else {
            return Err(table.at(row, "it names neither a study_uid nor a patient".into()));
        };
        let Some(positive) = label_of(table, row, labels)? else {
            left.add(NO_LABEL);
            continue;
        };
        let Some(probability) = table.number(row, "probability")? else {
            left.add("slices without a probability");
            continue;
        };
        if table.get(row, "model_sha256").is_some_and(|sha256| sha256 != card.sha256) {
            left.add("slices that another model scored");
            continue;
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
    let labelled = |study: Study| Labelled {
        score: score(&card.study_rule, &study.series),
        patient: study.patient,
        early: None,
        unconfirmed: false,
        positive: study.positive,
    };
    Ok(studies.into_values().map(labelled).collect())
}
