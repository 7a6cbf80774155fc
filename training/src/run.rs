//! A run that was scored, read from the files that `fit`, `evaluate` and `cross-validate` left.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cross_validation::CrossValidation;
use crate::data::{self, Index, Slice, Split, SplitBy};
use crate::evaluate::{self, Decision, Evaluation, HeldOut, Study, Supplement};
use crate::files::{FileError, read_json};
use crate::fit::{self, FitConfig, FitError, State};
use crate::metrics::{Case, Confusion, best_f2_threshold};

const SCORES: &str = "scores.csv";
const CROSS_VALIDATION: &str = "cross-validation.json";
const EVALUATION: &str = "evaluation.json";
/// The folder in which `train` keeps the cross-validation of a network that is itself trained on all patients.
const FOLDS: &str = "folds";

/// Why a run's files give no figures.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0} has no figures yet: run `evaluate` or `cross-validate` on it first")]
    NotMeasured(PathBuf),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {source}")]
    Scores { path: PathBuf, source: csv::Error },
    #[error("{path} line {line}: {why}")]
    Row { path: PathBuf, line: u64, why: String },
    #[error("{scores} and {figures} are not of the same scoring: {why}; run `evaluate` or `cross-validate` again")]
    Apart { scores: PathBuf, figures: PathBuf, why: String },
}

/// A trained network, how its training went, and what it scored.
#[derive(Debug, Clone)]
pub struct Run {
    pub config: FitConfig,
    /// One training, or one a fold and, where there is one, that on all patients.
    pub histories: Vec<History>,
    /// How slices and patients are spread.
    pub labels: Vec<LabelCount>,
    pub by: SplitBy,
    /// With the figures over the folds, for a cross-validation.
    pub crossed: Option<CrossValidation>,
    pub supplement: Supplement,
    /// The patients that count first, then, of a held-out run, those that decisions were made on.
    pub measurements: Vec<Measurement>,
}

/// One training's epochs.
#[derive(Debug, Clone)]
pub struct History {
    pub name: String,
    pub state: State,
}

/// Slices and patients of one source on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCount {
    /// Side or fold.
    pub side: String,
    pub source: String,
    /// Without hemorrhage, and with.
    pub slices: [usize; 2],
    /// Without any slice with hemorrhage, and with.
    pub patients: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Test,
    Validation,
    /// All patients of a cross-validation, each scored by the network that has not seen them.
    Folds,
}

impl Side {
    /// As a heading.
    pub fn name(self) -> &'static str {
        match self {
            Side::Test => "test patients",
            Side::Validation => "validation patients",
            Side::Folds => "all patients, out of fold",
        }
    }

    /// How the file names of its figures begin.
    pub fn prefix(self) -> &'static str {
        match self {
            Side::Test | Side::Folds => "",
            Side::Validation => "validation-",
        }
    }
}

/// Scored patients, the decision on their curves, and their figures.
#[derive(Debug, Clone)]
pub struct Measurement {
    pub side: Side,
    pub slices: Vec<Scored>,
    /// In a cross-validation the decision over all folds; each slice carries the one it was judged by.
    pub decision: Decision,
    pub evaluation: Evaluation,
}

/// A slice and what the network said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// `validation`, `test` or `fold-N`.
    pub side: String,
    pub slice: Slice,
    /// Calibrated as it was judged: of a cross-validation by the other folds' calibration.
    pub probability: f64,
    /// Calibrated by the decision over all folds. Areas and curves are of these: scores of folds that are calibrated each for itself cannot be
    /// compared ([`Evaluation::pooled`]).
    pub on_one_scale: f64,
    /// The slice threshold it was judged by.
    pub threshold: f64,
}

impl Scored {
    pub fn is_flagged(&self) -> bool {
        self.probability >= self.threshold
    }

    /// On one scale with all others.
    pub fn case(&self) -> Case {
        Case { score: self.on_one_scale, positive: self.slice.positive }
    }
}

impl Measurement {
    pub fn slice_cases(&self) -> Vec<Case> {
        self.slices.iter().map(Scored::case).collect()
    }

    /// By the decision's study rule.
    pub fn study_cases(&self) -> Vec<Case> {
        studies(&self.slices).iter().map(|study| study.case(&self.decision.study_rule)).collect()
    }

    /// Slices of each fold; none of a held-out run.
    pub fn by_fold(&self) -> Vec<Vec<Case>> {
        if self.side != Side::Folds {
            return Vec::new();
        }
        self.slices.chunk_by(|a, b| a.side == b.side).map(|fold| fold.iter().map(Scored::case).collect()).collect()
    }
}

fn studies(slices: &[Scored]) -> Vec<Study> {
    let (of, scores): (Vec<&Slice>, Vec<f64>) = slices.iter().map(|s| (&s.slice, s.on_one_scale)).unzip();
    Study::group(&of, &scores)
}

impl Run {
    /// Reads a folder of `fit` and `evaluate`, of `cross-validate`, or of `train`, which may hold both.
    ///
    /// # Errors
    /// [`RunError::NotMeasured`] where nothing was scored, others where the files do not belong together.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let folds = folder.join(FOLDS);
        match () {
            () if folder.join(CROSS_VALIDATION).exists() => Self::crossed(folder),
            () if folder.join(EVALUATION).exists() => Self::held_out(folder),
            () if folds.join(CROSS_VALIDATION).exists() => {
                let mut run = Self::crossed(&folds)?;
                let (config, state) = fit::read_run(folder)?;
                run.config = config;
                run.histories.push(History { name: "all patients".into(), state });
                Ok(run)
            }
            () => Err(RunError::NotMeasured(folder.into())),
        }
    }

    /// The patients that the figures are about first.
    pub fn first(&self) -> &Measurement {
        &self.measurements[0]
    }

    fn held_out(folder: &Path) -> Result<Self, RunError> {
        let (config, state) = fit::read_run(folder)?;
        let index: Index = read_json(&folder.join("index.json"))?;
        let split: Split = read_json(&folder.join("split.json"))?;
        let figures = folder.join(EVALUATION);
        let HeldOut { decision, validation, test, supplement } = read_json(&figures)?;
        let rows = Rows::read(&folder.join(SCORES), &index)?;
        let measurement = |side: Side, name: &str, evaluation: Evaluation| {
            let slices = rows.of(name, &decision, &decision);
            let measurement = Measurement { side, slices, decision, evaluation };
            measurement.check(&rows.path, &figures)?;
            Ok::<Measurement, RunError>(measurement)
        };
        let measurements =
            vec![measurement(Side::Test, "test", test)?, measurement(Side::Validation, "validation", validation)?];
        let sides =
            [(data::Side::Train, "training"), (data::Side::Validation, "validation"), (data::Side::Test, "test")];
        let labels =
            sides.into_iter().flat_map(|(side, name)| label_counts(name, &split.slices(&index, side))).collect();
        let histories = vec![History { name: "training".into(), state }];
        Ok(Self { config, histories, labels, by: split.by, crossed: None, supplement, measurements })
    }

    fn crossed(folder: &Path) -> Result<Self, RunError> {
        let figures = folder.join(CROSS_VALIDATION);
        let crossed: CrossValidation = read_json(&figures)?;
        let scores = folder.join(SCORES);
        let apart = |why: String| RunError::Apart { scores: scores.clone(), figures: figures.clone(), why };
        let names: Vec<String> = (1..=crossed.folds.len()).map(|number| format!("fold-{number}")).collect();
        let Some(first) = names.first() else { return Err(apart("the figures are of no fold".into())) };
        // The folds divide one index.
        let index: Index = read_json(&folder.join(first).join("index.json"))?;
        let split: Split = read_json(&folder.join(first).join("split.json"))?;
        let config: FitConfig = fit::read_run(&folder.join(first))?.0;
        let rows = Rows::read(&scores, &index)?;
        let decisions = match crossed.decisions.len() {
            0 => uncalibrated(&crossed, &names, &rows)
                .ok_or_else(|| apart("the scores of some folds lack a class, the figures do not".into()))?,
            found if found == names.len() => crossed.decisions.clone(),
            found => return Err(apart(format!("the figures have {} folds and {found} decisions", names.len()))),
        };
        let (mut slices, mut labels, mut histories) = (Vec::new(), Vec::new(), Vec::new());
        for (name, decision) in names.iter().zip(decisions) {
            let fold = rows.of(name, &decision, &crossed.decision);
            let about = name.replace('-', " ");
            labels.extend(label_counts(&about, &fold.iter().map(|s| &s.slice).collect::<Vec<_>>()));
            slices.extend(fold);
            histories.push(History { name: about, state: fit::read_run(&folder.join(name))?.1 });
        }
        let only: Vec<&Slice> = index.slices.iter().filter(|slice| split.train_only.contains(&slice.source)).collect();
        labels.extend(label_counts("training only", &only));
        let (decision, evaluation) = (crossed.decision, crossed.pooled.clone());
        let measurement = Measurement { side: Side::Folds, slices, decision, evaluation };
        measurement.check(&scores, &figures)?;
        let (supplement, measurements) = (crossed.supplement.clone(), vec![measurement]);
        Ok(Self { config, histories, labels, by: split.by, crossed: Some(crossed), supplement, measurements })
    }
}

/// The thresholds of each fold in a cross-validation of before decisions were kept, on the network's own
/// scores. None where the folds that are left after taking one out lack a class.
fn uncalibrated(crossed: &CrossValidation, names: &[String], rows: &Rows) -> Option<Vec<Decision>> {
    let raw = Decision { calibration: None, ..crossed.decision };
    let folds: Vec<Vec<Study>> = names.iter().map(|name| studies(&rows.of(name, &raw, &raw))).collect();
    let threshold = |fold| best_f2_threshold(&evaluate::slices(&CrossValidation::others(&folds, fold)));
    (0..folds.len()).map(|fold| Some(Decision { slice_threshold: threshold(fold)?.0, ..raw })).collect()
}

impl Measurement {
    /// That the scores give the counts that the figures state.
    fn check(&self, scores: &Path, figures: &Path) -> Result<(), RunError> {
        let mut counts = Confusion::default();
        for scored in &self.slices {
            match (scored.slice.positive, scored.is_flagged()) {
                (false, false) => counts.tn += 1,
                (false, true) => counts.fp += 1,
                (true, false) => counts.fn_ += 1,
                (true, true) => counts.tp += 1,
            }
        }
        let stated = self.evaluation.slices.confusion;
        if counts == stated {
            return Ok(());
        }
        let text = |c: Confusion| format!("{} TN, {} FP, {} FN, {} TP", c.tn, c.fp, c.fn_, c.tp);
        let why = format!("{} make {}, the figures say {}", self.side.name(), text(counts), text(stated));
        Err(RunError::Apart { scores: scores.into(), figures: figures.into(), why })
    }
}

/// The slices of a finished cross-validation's folder, each with the fold it was scored in and the network's own probability, not
/// calibrated, in the order of `scores.csv`.
///
/// # Errors
/// [`RunError`] where files cannot be read or do not belong together.
pub fn out_of_fold(folder: &Path) -> Result<Vec<(String, Slice, f64)>, RunError> {
    let index: Index = read_json(&folder.join("fold-1").join("index.json"))?;
    out_of_fold_by(folder, &index)
}

/// As [`out_of_fold`], of a folder without an index of its own, as `ensemble` leaves one.
///
/// # Errors
/// [`RunError`], also where the index lacks a slice.
pub fn out_of_fold_by(folder: &Path, index: &Index) -> Result<Vec<(String, Slice, f64)>, RunError> {
    Ok(Rows::read(&folder.join(SCORES), index)?.rows)
}

/// A line of `scores.csv`.
#[derive(Deserialize)]
struct Row {
    side: String,
    source: String,
    id: String,
    label: u8,
    probability: f64,
}

/// The lines of a `scores.csv`, joined with the index.
struct Rows {
    path: PathBuf,
    rows: Vec<(String, Slice, f64)>,
}

impl Rows {
    fn read(path: &Path, index: &Index) -> Result<Self, RunError> {
        let failed = |source| RunError::Scores { path: path.into(), source };
        let known: HashMap<(&str, &str), &Slice> =
            index.slices.iter().map(|slice| ((slice.source.as_str(), slice.id.as_str()), slice)).collect();
        let mut reader = csv::Reader::from_path(path).map_err(failed)?;
        let mut rows = Vec::new();
        for (line, row) in (2..).zip(reader.deserialize()) {
            let Row { side, source, id, label, probability } = row.map_err(failed)?;
            let wrong = |why: String| RunError::Row { path: path.into(), line, why };
            let slice = *known
                .get(&(source.as_str(), id.as_str()))
                .ok_or_else(|| wrong(format!("the index has no slice {id} of {source}")))?;
            if label != u8::from(slice.positive) {
                return Err(wrong(format!("{id} is labelled {label} here and otherwise in the index")));
            }
            if !(0.0..=1.0).contains(&probability) {
                return Err(wrong(format!("{id} has the probability {probability}, not one from 0 to 1")));
            }
            rows.push((side, slice.clone(), probability));
        }
        Ok(Self { path: path.into(), rows })
    }

    /// One side's slices, as calibrated and judged by `decision`; `overall` is the decision over all folds.
    fn of(&self, side: &str, decision: &Decision, overall: &Decision) -> Vec<Scored> {
        let calibrated =
            |by: &Decision, probability: f64| by.calibration.map_or(probability, |platt| platt.apply(probability));
        let scored = |(side, slice, probability): &(String, Slice, f64)| Scored {
            side: side.clone(),
            slice: slice.clone(),
            probability: calibrated(decision, *probability),
            on_one_scale: calibrated(overall, *probability),
            threshold: decision.slice_threshold,
        };
        self.rows.iter().filter(|(of, ..)| of == side).map(scored).collect()
    }
}

/// A line a source, in the order of their names.
fn label_counts(side: &str, slices: &[&Slice]) -> Vec<LabelCount> {
    let mut sources: BTreeMap<&str, ([usize; 2], BTreeMap<&str, bool>)> = BTreeMap::new();
    for slice in slices {
        let (counts, patients) = sources.entry(&slice.source).or_default();
        counts[usize::from(slice.positive)] += 1;
        *patients.entry(&slice.patient).or_default() |= slice.positive;
    }
    sources
        .into_iter()
        .map(|(source, (slices, patients))| {
            let positive = patients.values().filter(|positive| **positive).count();
            let patients = [patients.len() - positive, positive];
            LabelCount { side: side.into(), source: source.into(), slices, patients }
        })
        .collect()
}
