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
    /// See [`FoldThresholds::early_threshold`].
    pub early_threshold: f64,
    pub folds: Vec<FoldThresholds>,
    pub slices: Compared,
    pub studies: Compared,
    /// A study is flagged by an early alert, so by the study rule, or by the sequence network: what the worklist shows where
    /// early alerts are on, for no flag is taken back.
    pub with_early_alerts: Figures,
    /// Of the studies with the finding: how many are flagged, and how many of those by an early alert. The others' alerts come when
    /// the study is complete.
    pub found: usize,
    pub found_early: usize,
}

/// The thresholds that one fold was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoldThresholds {
    pub slice_threshold: f64,
    pub threshold: f64,
    /// Of the study rule's score, for early alerts: the lowest, and not below the rule's own, from which on the sequence network flags
    /// every study that it was chosen on.
    pub early_threshold: f64,
}

/// A study by both judges.
pub(crate) struct ByBoth {
    /// The study rule's score.
    pub rule: f64,
    /// Whether the sequence network flags it.
    pub flagged: bool,
}

/// The lowest threshold of the study rule's score, not below the rule's own, from which on every study is flagged by the sequence
/// network, too: in the middle between the highest score that is not and the next one above.
pub(crate) fn early_threshold(studies: &[ByBoth], own: f64) -> f64 {
    let unconfirmed = studies.iter().filter(|study| !study.flagged).map(|study| study.rule).fold(0.0, f64::max);
    if unconfirmed < own {
        return own;
    }
    let above = studies.iter().map(|study| study.rule).filter(|score| *score > unconfirmed).fold(1.0, f64::min);
    (unconfirmed + above) / 2.0
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
        let chosen = choose(&others.iter().collect::<Vec<_>>(), choosing, &decision.study_rule);
        thresholds.push(chosen.ok_or(MeasureError::OneClass)?);
        let read_by = |calibration: Option<&Platt>| -> Vec<Read<'_>> {
            own.iter().map(|series| reading(&network, series, calibration, settings)).collect()
        };
        read.push(Fold { own_scale: read_by(calibration), one_scale: read_by(crossed.decision.calibration.as_ref()) });
    }
    let all: Vec<&Series> = folds.iter().flatten().collect();
    let network = train(&all, crossed.decision.calibration.as_ref(), settings)?;
    // The shipped network reads scores that are calibrated on all folds.
    let one_scale: Vec<&Read<'_>> = read.iter().flat_map(|fold| &fold.one_scale).collect();
    let shipped = choose(&one_scale, choosing, &crossed.decision.study_rule).ok_or(MeasureError::OneClass)?;
    let figures = SequenceFigures {
        settings: *settings,
        parameters: SequenceNetwork::<Flex>::parameters(),
        slice_threshold: shipped.slice_threshold,
        threshold: shipped.threshold,
        early_threshold: shipped.early_threshold,
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

/// Slice threshold by F2, series threshold by the operating point, early threshold by both, on read series.
fn choose(read: &[&Read<'_>], choosing: Choosing, rule: &StudyRule) -> Option<FoldThresholds> {
    let slices: Vec<Case> = read.iter().flat_map(|series| series.slices.iter().copied()).collect();
    let mut patients: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    let by_sequence = studies(read.iter().copied(), |series| series.score);
    for (patient, case) in &by_sequence {
        patients.entry(patient).or_default().push(*case);
    }
    let patients: Vec<Vec<Case>> = patients.into_values().collect();
    let threshold = choosing.threshold(&patients)?;
    let by_rule = studies(read.iter().copied(), |series| series.by_rule(rule));
    let by_both = by_sequence.iter().zip(&by_rule);
    let by_both = by_both.map(|((_, s), (_, r))| ByBoth { rule: r.score, flagged: s.score >= threshold });
    Some(FoldThresholds {
        slice_threshold: best_f2_threshold(&slices)?.0,
        threshold,
        early_threshold: early_threshold(&by_both.collect::<Vec<_>>(), rule.threshold()),
    })
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
    let (mut found, mut found_early) = (0, 0);
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
            let by_rule = without.score >= decision.study_rule.threshold();
            let is_early = without.score >= thresholds.early_threshold;
            let answer = |flagged: bool| Case { score: f64::from(u8::from(flagged)), positive: with.positive };
            let patient = patients.entry(name).or_default();
            patient.study_answers.push((answer(is_flagged), answer(by_rule)));
            patient.early_answers.push(answer(is_flagged || is_early));
            if with.positive {
                found += usize::from(is_flagged || is_early);
                found_early += usize::from(is_early);
            }
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
        early_threshold: 0.0,
        folds: thresholds.to_vec(),
        slices: compared(&of(|p| &p.slices), &of(|p| &p.slice_answers), &within[0], seed),
        studies: compared(&studies, &of(|p| &p.study_answers), &within[1], seed),
        with_early_alerts: judged_figures(&one(&studies, |(with, _)| *with), &early, ROUNDS, seed),
        found,
        found_early,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_alerts_begin_where_the_sequence_confirms_all() {
        let studies = |all: &[(f64, bool)]| -> Vec<ByBoth> {
            all.iter().map(|(rule, flagged)| ByBoth { rule: *rule, flagged: *flagged }).collect()
        };
        let mixed = studies(&[(0.1, false), (0.2, true), (0.4, false), (0.6, true), (0.9, true)]);
        assert_eq!(early_threshold(&mixed, 0.3), 0.5);
        assert_eq!(early_threshold(&mixed, 0.45), 0.45, "never below the study rule's own");
        assert_eq!(early_threshold(&studies(&[(0.8, false), (0.5, true)]), 0.3), 0.9, "nothing lies above");
        assert_eq!(early_threshold(&studies(&[(0.8, true)]), 0.3), 0.3);
    }
}
