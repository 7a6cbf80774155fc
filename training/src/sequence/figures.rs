//! The figures of a sequence network, nested: each fold's patients are read by a network that was trained on the other folds' out-of-fold
//! scores, and judged by thresholds that were chosen on those, each of them read by a network that has not seen them either.

use std::collections::BTreeMap;

use burn::backend::flex::Flex;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use triaged_model::StudyRule;

use super::fit::{Example, Settings, fit};
use super::network::{Logits, SequenceNetwork};
use super::series::{Scored, Series};
use crate::calibration::Platt;
use crate::cross_validation::CrossValidation;
use crate::evaluate::{Choosing, ROUNDS};
use crate::logistic::sigmoid;
use crate::metrics::{
    Case, Figures, Interval, MeanSd, answers, auc, auc_difference, best_f2_threshold, judged_figures,
};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error(
        "{0} folds are too few: to measure and to choose thresholds on patients that a network has not seen takes three at \
         least"
    )]
    Folds(usize),
    #[error("the folds that are left after taking two out lack patients with or without the finding")]
    OneClass,
    #[error("the sequence network's training ended in what is no number")]
    NotFinite,
}

/// The network to ship, trained on all folds' scores, and what networks trained as it say of patients that they have not seen.
pub struct Measured {
    pub network: SequenceNetwork<Flex>,
    pub figures: SequenceFigures,
}

/// Figures with the sequence network, and beside them those of the slices' network with its study rule on the same patients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceFigures {
    pub settings: Settings,
    pub parameters: usize,
    pub patients: usize,
    /// Of the shipped network: chosen on all folds' scores, each by a network that has not seen its patients.
    pub slice_threshold: f64,
    pub threshold: f64,
    pub folds: Vec<FoldThresholds>,
    pub slices: Compared,
    pub studies: Compared,
    /// A study is flagged by the early alert, so by the study rule, or by the sequence network: what the worklist shows where
    /// early alerts are on, for no flag is taken back.
    pub with_early_alerts: Figures,
}

/// The thresholds that one fold was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoldThresholds {
    pub slice_threshold: f64,
    pub threshold: f64,
}

/// One kind of case with the sequence network and without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub with: Figures,
    pub without: Figures,
    /// How much larger the area is with it, patients drawn alike for both.
    pub auc_difference: Option<Interval>,
    /// Mean of the folds' own areas: scores of different folds' networks are not compared.
    pub auc_within_folds: [Option<MeanSd>; 2],
}

/// A series as a network reads it.
struct Read<'a> {
    series: &'a Series,
    /// By the sequence network.
    score: f64,
    /// Each slice by its bin.
    slices: Vec<Case>,
    /// Each slice as the slices' network says, calibrated.
    before: Vec<Case>,
}

impl Read<'_> {
    fn by_rule(&self, rule: &StudyRule) -> f64 {
        rule.judge(&self.before.iter().map(|case| case.score).collect::<Vec<_>>()).score
    }
}

/// Trains and measures. `folds`: the out-of-fold series of each fold of `crossed`.
///
/// # Errors
/// [`MeasureError`].
pub fn measure(
    folds: &[Vec<Series>],
    crossed: &CrossValidation,
    settings: &Settings,
    seed: u64,
) -> Result<Measured, MeasureError> {
    if folds.len() < 3 || folds.len() != crossed.decisions.len() {
        return Err(MeasureError::Folds(folds.len()));
    }
    let choosing = crossed.decision.choosing();
    let (mut thresholds, mut read) = (Vec::new(), Vec::new());
    for (fold, (own, decision)) in folds.iter().zip(&crossed.decisions).enumerate() {
        let calibration = decision.calibration.as_ref();
        let without = |left: &[usize]| -> Vec<&Series> {
            folds.iter().enumerate().filter(|(at, _)| !left.contains(at)).flat_map(|(_, series)| series).collect()
        };
        let network = train(&without(&[fold]), calibration, settings)?;
        let mut others = Vec::new();
        for other in (0..folds.len()).filter(|other| *other != fold) {
            let inner = train(&without(&[fold, other]), calibration, settings)?;
            others.extend(folds[other].iter().map(|series| reading(&inner, series, calibration, settings)));
        }
        thresholds.push(choose(&others.iter().collect::<Vec<_>>(), choosing).ok_or(MeasureError::OneClass)?);
        let read_by = |calibration: Option<&Platt>| -> Vec<Read<'_>> {
            own.iter().map(|series| reading(&network, series, calibration, settings)).collect()
        };
        read.push(Fold { own_scale: read_by(calibration), one_scale: read_by(crossed.decision.calibration.as_ref()) });
    }
    let all: Vec<&Series> = folds.iter().flatten().collect();
    let network = train(&all, crossed.decision.calibration.as_ref(), settings)?;
    // The shipped network reads scores that are calibrated on all folds.
    let one_scale: Vec<&Read<'_>> = read.iter().flat_map(|fold| &fold.one_scale).collect();
    let shipped = choose(&one_scale, choosing).ok_or(MeasureError::OneClass)?;
    let figures = SequenceFigures {
        settings: *settings,
        parameters: SequenceNetwork::<Flex>::parameters(),
        slice_threshold: shipped.slice_threshold,
        threshold: shipped.threshold,
        ..figures(&read, &thresholds, crossed, seed)
    };
    Ok(Measured { network, figures })
}

fn train(
    series: &[&Series],
    calibration: Option<&Platt>,
    settings: &Settings,
) -> Result<SequenceNetwork<Flex>, MeasureError> {
    let example = |series: &&Series| {
        let input = series.input(calibration, settings.spacing_mm);
        let mut positive = vec![false; input.len()];
        for (bin, slice) in input.bins().iter().zip(&series.slices) {
            positive[*bin] |= slice.positive;
        }
        Example { input, positive }
    };
    let examples: Vec<Example> = series.iter().map(example).collect();
    let (network, _) = fit(&examples, settings).ok_or(MeasureError::NotFinite)?;
    Ok(network)
}

fn reading<'a>(
    network: &SequenceNetwork<Flex>,
    series: &'a Series,
    calibration: Option<&Platt>,
    settings: &Settings,
) -> Read<'a> {
    let input = series.input(calibration, settings.spacing_mm);
    let values = TensorData::new(input.values(), [1, 2, input.len()]);
    let Logits { bins, series: whole } = network.forward(Tensor::from_data(values, &Default::default()));
    let logits = |tensor: Tensor<Flex, 2>| tensor.into_data().convert::<f32>().to_vec::<f32>().expect("float32");
    let (bins, whole) = (logits(bins), logits(whole)[0]);
    let slice =
        |(slice, bin): (&Scored, &usize)| Case { score: sigmoid(f64::from(bins[*bin])), positive: slice.positive };
    let before = |slice: &Scored| Case {
        score: calibration.map_or(slice.probability, |platt| platt.apply(slice.probability)),
        positive: slice.positive,
    };
    Read {
        series,
        score: sigmoid(f64::from(whole)),
        slices: series.slices.iter().zip(input.bins()).map(slice).collect(),
        before: series.slices.iter().map(before).collect(),
    }
}

/// Slice threshold by F2, series threshold by the operating point, on read series.
fn choose(read: &[&Read<'_>], choosing: Choosing) -> Option<FoldThresholds> {
    let slices: Vec<Case> = read.iter().flat_map(|series| series.slices.iter().copied()).collect();
    let mut patients: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    for (patient, case) in studies(read.iter().copied(), |series| series.score) {
        patients.entry(patient).or_default().push(case);
    }
    let patients: Vec<Vec<Case>> = patients.into_values().collect();
    Some(FoldThresholds { slice_threshold: best_f2_threshold(&slices)?.0, threshold: choosing.threshold(&patients)? })
}

/// Each study with its highest series' score, and whose it is.
fn studies<'a>(read: impl IntoIterator<Item = &'a Read<'a>>, score: impl Fn(&Read<'_>) -> f64) -> Vec<(&'a str, Case)> {
    let mut studies: BTreeMap<(&str, Option<&str>), Case> = BTreeMap::new();
    for series in read {
        let key = (series.series.patient.as_str(), series.series.study.as_deref());
        let case = Case { score: score(series), positive: series.series.is_positive() };
        let there = studies.entry(key).or_insert(case);
        (there.score, there.positive) = (there.score.max(case.score), there.positive || case.positive);
    }
    studies.into_iter().map(|((patient, _), case)| (patient, case)).collect()
}

/// A fold's series, read by the network of the others.
struct Fold<'a> {
    /// Calibrated as the others decided: what verdicts are by.
    own_scale: Vec<Read<'a>>,
    /// Calibrated as all folds decided: what areas over all folds are of ([`Evaluation::pooled`] says why).
    ///
    /// [`Evaluation::pooled`]: crate::evaluate::Evaluation::pooled
    one_scale: Vec<Read<'a>>,
}

/// A patient's cases, with the sequence network and without.
#[derive(Default)]
struct Patient {
    slices: Vec<(Case, Case)>,
    slice_answers: Vec<(Case, Case)>,
    studies: Vec<(Case, Case)>,
    study_answers: Vec<(Case, Case)>,
    early_answers: Vec<Case>,
}

/// Cases of patients, with the network and without.
type Pairs = Vec<Vec<(Case, Case)>>;

fn figures(read: &[Fold<'_>], thresholds: &[FoldThresholds], crossed: &CrossValidation, seed: u64) -> SequenceFigures {
    let mut patients: BTreeMap<&str, Patient> = BTreeMap::new();
    let mut within: [Vec<[Option<f64>; 2]>; 2] = Default::default();
    let areas = |pairs: &[(Case, Case)]| {
        let (with, without): (Vec<Case>, Vec<Case>) = pairs.iter().copied().unzip();
        [auc(&with), auc(&without)]
    };
    for ((fold, thresholds), decision) in read.iter().zip(thresholds).zip(&crossed.decisions) {
        let (mut of_slices, mut of_studies) = (Vec::new(), Vec::new());
        for series in &fold.one_scale {
            let pairs: Vec<(Case, Case)> = series.slices.iter().copied().zip(series.before.iter().copied()).collect();
            of_slices.extend(pairs.iter().copied());
            patients.entry(&series.series.patient).or_default().slices.extend(pairs);
        }
        for series in &fold.own_scale {
            let with = answers(&series.slices, thresholds.slice_threshold);
            let without = answers(&series.before, decision.slice_threshold);
            let patient = patients.entry(&series.series.patient).or_default();
            patient.slice_answers.extend(with.into_iter().zip(without));
        }
        // Areas are of one rule over all folds, verdicts by the fold's own, as in the cross-validation.
        let with = studies(&fold.one_scale, |series| series.score);
        let without = studies(&fold.one_scale, |series| series.by_rule(&crossed.decision.study_rule));
        for ((name, with), (_, without)) in with.into_iter().zip(without) {
            of_studies.push((with, without));
            patients.entry(name).or_default().studies.push((with, without));
        }
        let with = studies(&fold.own_scale, |series| series.score);
        let without = studies(&fold.own_scale, |series| series.by_rule(&decision.study_rule));
        for ((name, with), (_, without)) in with.into_iter().zip(without) {
            let is_flagged = with.score >= thresholds.threshold;
            let is_early = without.score >= decision.study_rule.threshold();
            let answer = |flagged: bool| Case { score: f64::from(u8::from(flagged)), positive: with.positive };
            let patient = patients.entry(name).or_default();
            patient.study_answers.push((answer(is_flagged), answer(is_early)));
            patient.early_answers.push(answer(is_flagged || is_early));
        }
        within[0].push(areas(&of_slices));
        within[1].push(areas(&of_studies));
    }
    let patients: Vec<Patient> = patients.into_values().collect();
    let of =
        |cases: fn(&Patient) -> &Vec<(Case, Case)>| -> Pairs { patients.iter().map(|p| cases(p).clone()).collect() };
    let (studies, early) = (of(|p| &p.studies), patients.iter().map(|p| p.early_answers.clone()).collect::<Vec<_>>());
    SequenceFigures {
        settings: Settings::default(),
        parameters: 0,
        patients: patients.len(),
        slice_threshold: 0.0,
        threshold: 0.0,
        folds: thresholds.to_vec(),
        slices: compared(&of(|p| &p.slices), &of(|p| &p.slice_answers), &within[0], seed),
        studies: compared(&studies, &of(|p| &p.study_answers), &within[1], seed),
        with_early_alerts: judged_figures(&one(&studies, |(with, _)| *with), &early, ROUNDS, seed),
    }
}

fn one(pairs: &Pairs, which: fn(&(Case, Case)) -> Case) -> Vec<Vec<Case>> {
    pairs.iter().map(|pairs| pairs.iter().map(which).collect()).collect()
}

fn compared(cases: &Pairs, answers: &Pairs, within: &[[Option<f64>; 2]], seed: u64) -> Compared {
    let figures =
        |which: fn(&(Case, Case)) -> Case| judged_figures(&one(cases, which), &one(answers, which), ROUNDS, seed);
    let mean = |which: usize| MeanSd::of(&within.iter().filter_map(|areas| areas[which]).collect::<Vec<f64>>());
    Compared {
        with: figures(|(with, _)| *with),
        without: figures(|(_, without)| *without),
        auc_difference: auc_difference(cases, ROUNDS, seed),
        auc_within_folds: [mean(0), mean(1)],
    }
}
