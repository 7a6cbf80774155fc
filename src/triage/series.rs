//! Judges a study series by series: a study is flagged if one of its series is.
//!
//! A series' score is made by the card's study rule of its slices' probabilities or, of the final verdict where the card has
//! one, by its sequence network of the whole series. Never are both mixed in one verdict: where the network fails on one series,
//! the rule judges all.

use std::collections::BTreeSet;

use triaged_model::{MadeFor, Sequence, SeriesNetwork, StudyRule, VerdictRule};

use super::gate;
use super::stack::{Stack, slices};
use crate::ledger::{Finding, SeriesVerdict, SliceEvidence, SliceId, SliceState};

/// The judgement of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyJudgement {
    pub finding: Finding,
    /// The highest score of the series that were judged; none where no slice was scored.
    pub score: Option<f64>,
    pub threshold: f64,
    /// Why an incomplete study could not be left unflagged; empty for the others.
    pub missing: Vec<String>,
    pub doubts: Vec<String>,
    /// What is to be told of series that have no part in the verdict, of one that is not flagged or incomplete.
    pub asides: Vec<String>,
    /// Positive places of the series that was flagged with most of them, or of all.
    pub positives: usize,
    pub series: Vec<SeriesVerdict>,
    /// The rule that made the scores.
    pub rule: VerdictRule,
    /// Why the card's sequence network did not, though it was asked.
    pub fallback: Option<String>,
}

/// A card's sequence network, loaded.
#[derive(Clone, Copy)]
pub struct WholeSeries<'a> {
    pub card: &'a Sequence,
    pub network: &'a dyn SeriesNetwork,
}

impl StudyJudgement {
    /// The judgement of a study that lacks something of which no series tells: it is not left unflagged.
    pub fn lacking(mut self, why: String) -> StudyJudgement {
        if self.finding != Finding::Flagged {
            self.finding = Finding::Incomplete;
            self.missing.push(why);
        }
        self
    }
}

/// What makes a series' score.
#[derive(Clone, Copy)]
enum By<'a> {
    Rule(&'a StudyRule),
    Sequence(WholeSeries<'a>),
}

/// A series' score, and how many of its places are positive.
struct Scored {
    score: f64,
    positives: usize,
}

impl By<'_> {
    fn threshold(&self) -> f64 {
        match self {
            By::Rule(rule) => rule.threshold(),
            By::Sequence(sequence) => sequence.card.threshold,
        }
    }

    fn rule(&self) -> VerdictRule {
        match self {
            By::Rule(rule) => VerdictRule::Slices(**rule),
            By::Sequence(sequence) => sequence.card.into(),
        }
    }

    /// The score of a series with a scored slice.
    ///
    /// # Errors
    /// Why the sequence network has none.
    fn score(&self, stack: &Stack) -> Result<Scored, String> {
        match self {
            By::Rule(rule) => {
                let score = rule.judge(&stack.probabilities()).score;
                Ok(Scored { score, positives: stack.positives() })
            }
            By::Sequence(WholeSeries { card, network }) => {
                let input = stack.series_input(card.spacing_mm);
                let scores = network.read(&input)?;
                Ok(Scored { score: scores.series, positives: scores.positives(&input, card.slice_threshold) })
            }
        }
    }
}

/// The judgement of one series.
struct Judged {
    verdict: SeriesVerdict,
    /// It is judged only where the study has no better series that is complete.
    is_substitute: bool,
    /// Something of it is missing that no other series makes good: slices that failed or were not sent.
    is_broken: bool,
    /// The part of what is missing that was there and could not be read, or was not taken: it counts of a substitute, too.
    lost: Vec<String>,
    missing: Vec<String>,
    doubts: Vec<String>,
    /// A better series was judged instead.
    is_set_aside: bool,
    /// What is to be told where it has no part in the verdict.
    aside: Option<String>,
}

impl Judged {
    /// A series that has nothing to judge.
    fn without_score(verdict: SeriesVerdict) -> Judged {
        Judged {
            verdict,
            is_substitute: false,
            is_broken: false,
            lost: Vec::new(),
            missing: Vec::new(),
            doubts: Vec::new(),
            is_set_aside: false,
            aside: None,
        }
    }

    fn is_considered(&self) -> bool {
        self.verdict.finding.is_some() && !self.is_set_aside
    }
}

/// So many series without a part in the verdict are told of one by one.
const MOST_ASIDES: usize = 5;

/// Judges the slices of a study that has none in the queue, or that can wait no longer: by the sequence network where there is one.
/// Where that fails on a series, the study is judged as if there were none, and the judgement says so.
pub fn judge(
    evidence: &[SliceEvidence],
    rule: &StudyRule,
    sequence: Option<WholeSeries<'_>>,
    card: &MadeFor,
) -> StudyJudgement {
    let (mut judged, by, fallback) = match sequence.map(By::Sequence) {
        None => (by_rule(evidence, rule, card), By::Rule(rule), None),
        Some(by) => match judge_all(evidence, by, card) {
            Ok(judged) => (judged, by, None),
            Err(why) => (by_rule(evidence, rule, card), By::Rule(rule), Some(why)),
        },
    };
    set_substitutes_aside(&mut judged);
    StudyJudgement { fallback, ..conclude(judged, by) }
}

fn by_rule(evidence: &[SliceEvidence], rule: &StudyRule, card: &MadeFor) -> Vec<Judged> {
    judge_all(evidence, By::Rule(rule), card).expect("a study rule has a score of any probabilities")
}

/// Judges each series for itself.
///
/// # Errors
/// Why the sequence network has no score of a series, and of which.
fn judge_all(evidence: &[SliceEvidence], by: By<'_>, card: &MadeFor) -> Result<Vec<Judged>, String> {
    let mut judged: Vec<Judged> = Vec::new();
    let mut uids: Vec<&str> = evidence.iter().map(|slice| slice.series_uid.as_str()).collect();
    uids.sort_unstable();
    uids.dedup();
    for uid in uids {
        let slices: Vec<&SliceEvidence> = evidence.iter().filter(|slice| slice.series_uid == uid).collect();
        judged.push(judge_series(uid, &slices, by, card).map_err(|why| format!("series {uid}: {why}"))?);
    }
    Ok(judged)
}

/// Whether what is scored so far suffices to flag the study, whatever is still to come: by the study rule, whose score no further
/// slice lowers. Substitutes do not suffice: a better series may follow.
pub fn judge_early(evidence: &[SliceEvidence], rule: &StudyRule, card: &MadeFor) -> StudyJudgement {
    let first_choice: Vec<SliceEvidence> = evidence.iter().filter(|slice| !slice.is_substitute).cloned().collect();
    let judged = by_rule(&first_choice, rule, card);
    conclude(judged.into_iter().filter(|series| !series.is_substitute).collect(), By::Rule(rule))
}

/// The slices that were declined, for their pixels are not those of a head, and that lie between slices of one: they are to be scored
/// after all ([`Stack::no_head_within`]).
pub fn declined_within_a_head(evidence: &[SliceEvidence]) -> Vec<SliceId> {
    let uids: BTreeSet<&str> = (evidence.iter().filter(|slice| matches!(slice.state, SliceState::NoHead)))
        .map(|slice| slice.series_uid.as_str())
        .collect();
    let of_series = |uid| evidence.iter().filter(|slice| slice.series_uid == uid).collect::<Vec<_>>();
    uids.into_iter().flat_map(|uid| Stack::new(&of_series(uid)).no_head_within()).collect()
}

fn judge_series(uid: &str, of_series: &[&SliceEvidence], by: By<'_>, card: &MadeFor) -> Result<Judged, String> {
    let count = |is: &dyn Fn(&SliceState) -> bool| of_series.iter().filter(|slice| is(&slice.state)).count();
    let scored = count(&|state| matches!(state, SliceState::Scored { .. }));
    let failed = count(&|state| matches!(state, SliceState::Failed));
    let queued = count(&|state| matches!(state, SliceState::Queued));
    let mut verdict = SeriesVerdict {
        series_uid: uid.to_owned(),
        finding: None,
        score: None,
        threshold: by.threshold(),
        reason: None,
        doubts: None,
        positives: 0,
        slices_received: of_series.len() as i64,
        slices_scored: scored as i64,
        slices_failed: failed as i64,
    };
    let mut doubts: Vec<String> = of_series.iter().filter_map(|slice| slice.doubts.clone()).collect();
    let lacking: BTreeSet<&str> = of_series.iter().filter_map(|slice| slice.lacking.as_deref()).collect();
    let lacking: Vec<String> = lacking.into_iter().map(str::to_owned).collect();
    if scored + failed + queued == 0 && !lacking.is_empty() {
        // What came of it is none of its slices; nobody knows what the rest would have been.
        verdict.finding = Some(Finding::Incomplete);
        verdict.reason = Some(lacking.join("; "));
        return Ok(Judged { is_broken: true, missing: lacking, ..Judged::without_score(verdict) });
    }
    if scored + failed + queued == 0 {
        verdict.reason = Some(most_common_reason(of_series));
        let aside = out_for_no_routine(of_series).map(|why| format!("series {uid} was not judged: {why}"));
        return Ok(Judged { aside, ..Judged::without_score(verdict) });
    }
    let stack = Stack::new(of_series);
    let mut lost = Vec::new();
    if failed > 0 {
        let reason = most_common_reason(
            &of_series.iter().copied().filter(|slice| matches!(slice.state, SliceState::Failed)).collect::<Vec<_>>(),
        );
        lost.push(format!("{failed} of {} failed ({reason})", slices(scored + failed + queued)));
    }
    let mut broken = lost.clone();
    if queued > 0 {
        broken.push(format!("{} not scored yet", slices(queued)));
    }
    broken.extend(stack.gaps());
    broken.extend(stack.empty_within());
    broken.extend(stack.left_out());
    broken.extend(stack.crowded());
    let (thinned_out, perhaps_thinned_out) = stack.thinned_out();
    broken.extend(thinned_out);
    let no_head = stack.no_head();
    broken.extend(without_rescale(of_series, !no_head.is_empty()));
    broken.extend(lacking.iter().cloned());
    lost.extend(lacking);
    let is_broken = !broken.is_empty();
    let missing = [broken, no_head, stack.too_coarse(card), stack.too_short(card)].concat();
    let dynamic = stack.dynamic();
    let is_dynamic = dynamic.is_some();
    doubts.extend(stack.too_thin(card).into_iter().chain(dynamic).chain(perhaps_thinned_out));
    doubts.extend(stack.perhaps_left_out().into_iter().chain(stack.missing_numbers()));
    doubts.sort();
    doubts.dedup();
    if scored > 0 {
        let Scored { score, positives } = by.score(&stack)?;
        verdict.score = Some(score);
        verdict.positives = positives as i64;
        verdict.finding = Some(match (score >= by.threshold(), missing.is_empty()) {
            (true, _) => Finding::Flagged,
            (false, true) => Finding::NotFlagged,
            (false, false) => Finding::Incomplete,
        });
    } else {
        verdict.finding = Some(Finding::Incomplete);
    }
    verdict.reason = (!missing.is_empty()).then(|| missing.join("; "));
    verdict.doubts = (!doubts.is_empty()).then(|| doubts.join("; "));
    // One slice that says contrast agent among thirty that do not is a slip.
    let substitutes = of_series.iter().filter(|slice| slice.is_substitute && slice.state.is_of_interest()).count();
    let is_substitute = is_dynamic || 2 * substitutes >= (scored + failed + queued);
    let is_of_a_head = is_perhaps_of_a_head(of_series, &stack, card) && !is_substitute;
    let aside = (is_of_a_head && !missing.is_empty())
        .then(|| format!("series {uid} is no part of the verdict: {}", missing.join("; ")));
    Ok(Judged { verdict, is_substitute, is_broken, lost, missing, doubts, is_set_aside: false, aside })
}

/// Why a series of which the gate put all slices out may have been a scan of the head all the same: by a reason that whole series are
/// not out for every day, and its description names no map or picture.
fn out_for_no_routine(of_series: &[&SliceEvidence]) -> Option<String> {
    let is_odd = |slice: &&&SliceEvidence| {
        let is_routine = slice.reason.as_deref().is_none_or(gate::is_routine);
        matches!(slice.state, SliceState::Out) && !slice.is_substitute && !is_routine
    };
    let odd: Vec<&SliceEvidence> = of_series.iter().filter(is_odd).copied().collect();
    (!odd.is_empty()).then(|| format!("{} not scored ({})", slices(odd.len()), most_common_reason(&odd)))
}

/// Whether a series may be one of a head, as far as that a person should hear that it was not judged. One of which most slices are of
/// another part of the body is none (a spine up to the skull), nor is a single place or a few without a head (waiting for contrast agent).
fn is_perhaps_of_a_head(of_series: &[&SliceEvidence], stack: &Stack, card: &MadeFor) -> bool {
    let no_head = of_series.iter().filter(|slice| matches!(slice.state, SliceState::NoHead)).count();
    let of_interest = of_series.iter().filter(|slice| slice.state.is_of_interest()).count();
    let (places, shows_head) = stack.shows_head();
    no_head < of_interest && places > 1 && (shows_head || places >= card.min_slices as usize)
}

/// Why the values of a series are no Hounsfield units: some of its slices lack what makes them such, or all do and show no head.
fn without_rescale(of_series: &[&SliceEvidence], shows_no_head: bool) -> Option<String> {
    let of_interest = of_series.iter().filter(|slice| slice.state.is_of_interest());
    let lacks =
        |slice: &&&SliceEvidence| slice.doubts.as_deref().is_some_and(|doubts| doubts.contains(gate::NO_RESCALE));
    let (lacking, all) = (of_interest.clone().filter(lacks).count(), of_interest.count());
    (lacking > 0 && (lacking < all || shows_no_head))
        .then(|| format!("{lacking} of {} without rescale slope or intercept", slices(all)))
}

/// If a series that the model was made for is complete, those that are only substitutes are not judged. What they lost is not made good by
/// it, and a score of theirs that would have flagged the study is told: contrast agent looks like blood, and blood is in it, too.
fn set_substitutes_aside(judged: &mut [Judged]) {
    let is_complete =
        |series: &Judged| !series.is_substitute && series.missing.is_empty() && series.verdict.finding.is_some();
    if !judged.iter().any(is_complete) {
        return;
    }
    for series in judged.iter_mut().filter(|series| series.is_substitute) {
        let verdict = &mut series.verdict;
        let (uid, doubts) = (&verdict.series_uid, verdict.doubts.as_deref().unwrap_or("doubtful"));
        series.aside = match (verdict.finding, verdict.score) {
            (Some(Finding::Flagged), Some(score)) => Some(format!(
                "series {uid} was not judged ({doubts}), though its score {score:.2} is above the threshold {:.2}",
                verdict.threshold
            )),
            _ if series.is_broken && series.lost.is_empty() => Some(format!(
                "series {uid} was not judged ({doubts}), and part of it is missing: {}",
                series.missing.join("; ")
            )),
            _ => None,
        };
        let instead = format!("another series of the study was judged instead of this one ({doubts})");
        verdict.finding = (!series.lost.is_empty()).then_some(Finding::Incomplete);
        verdict.reason = Some([std::slice::from_ref(&instead), &series.lost].concat().join("; "));
        series.is_set_aside = true;
    }
}

fn conclude(judged: Vec<Judged>, by: By<'_>) -> StudyJudgement {
    let considered: Vec<&Judged> = judged.iter().filter(|series| series.is_considered()).collect();
    let having = |finding| considered.iter().filter(move |series| series.verdict.finding == Some(finding));
    // What the model was made for came in part: a substitute does not clear what the rest of it would have shown.
    let has_first_choice = considered.iter().any(|series| !series.is_substitute);
    let one_is_complete = having(Finding::NotFlagged).any(|series| !series.is_substitute || !has_first_choice);
    // A short series beside a complete one is a fragment of no consequence; one with failed slices or gaps is not.
    let lacking: Vec<&&Judged> =
        having(Finding::Incomplete).filter(|series| series.is_broken || !one_is_complete).collect();
    let lost = judged.iter().filter(|series| series.is_set_aside).flat_map(|series| &series.lost);
    let finding = if having(Finding::Flagged).next().is_some() {
        Finding::Flagged
    } else if one_is_complete && lacking.is_empty() && lost.clone().next().is_none() {
        Finding::NotFlagged
    } else {
        Finding::Incomplete
    };
    let missing = match (finding, considered.is_empty()) {
        (Finding::Incomplete, false) => {
            lacking.iter().flat_map(|series| &series.missing).chain(lost).cloned().collect()
        }
        (Finding::Incomplete, true) => nothing_to_judge(&judged),
        _ => Vec::new(),
    };
    let mut doubts: Vec<String> = considered.iter().flat_map(|series| series.doubts.clone()).collect();
    doubts.sort();
    doubts.dedup();
    StudyJudgement {
        finding,
        score: considered.iter().filter_map(|series| series.verdict.score).reduce(f64::max),
        threshold: by.threshold(),
        missing,
        doubts,
        asides: if finding == Finding::Flagged || !one_is_complete { Vec::new() } else { asides(&judged) },
        positives: considered.iter().map(|series| series.verdict.positives).max().unwrap_or(0) as usize,
        series: judged.into_iter().map(|series| series.verdict).collect(),
        rule: by.rule(),
        fallback: None,
    }
}

/// What is to be told of series that have no part in the verdict.
fn asides(judged: &[Judged]) -> Vec<String> {
    let has_no_part = |series: &&Judged| {
        !series.is_considered() || series.verdict.finding == Some(Finding::Incomplete) && !series.is_broken
    };
    let mut asides: Vec<String> = judged.iter().filter(has_no_part).filter_map(|series| series.aside.clone()).collect();
    let more = asides.len().saturating_sub(MOST_ASIDES);
    asides.truncate(MOST_ASIDES);
    asides.extend((more > 0).then(|| format!("and {more} series more have no part in the verdict")));
    asides
}

fn nothing_to_judge(judged: &[Judged]) -> Vec<String> {
    let mut reasons: Vec<String> = judged.iter().filter_map(|series| series.verdict.reason.clone()).collect();
    reasons.dedup();
    const MOST: usize = 3;
    let more = reasons.len().saturating_sub(MOST);
    reasons.truncate(MOST);
    if more > 0 {
        reasons.push(format!("and {more} series more"));
    }
    std::iter::once("no slice could be triaged".to_owned()).chain(reasons).collect()
}

/// The reason that most of these slices have.
fn most_common_reason(slices: &[&SliceEvidence]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for slice in slices {
        *counts.entry(slice.reason.as_deref().unwrap_or("no reason recorded")).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(|| "no slices".into(), |(reason, _)| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use triaged_model::{SeriesInput, SeriesScores};

    const RULE: StudyRule = StudyRule::KthHighest { k: 2, threshold: 0.5 };

    fn series(uid: &str, probabilities: &[f64]) -> Vec<SliceEvidence> {
        let slice = |(index, probability): (usize, &f64)| SliceEvidence {
            id: 0,
            shows: None,
            lacking: None,
            series_uid: uid.into(),
            state: SliceState::Scored { probability: *probability, positive: *probability >= 0.5 },
            reason: None,
            instance_number: None,
            frame: 1,
            position: Some(index as f64 * 5.0),
            location: None,
            orientation: Some("0,0,50".into()),
            thickness: Some(5.0),
            doubts: None,
            is_substitute: false,
        };
        probabilities.iter().enumerate().map(slice).collect()
    }

    fn negative(uid: &str) -> Vec<SliceEvidence> {
        series(uid, &[0.1; 30])
    }

    fn positive(uid: &str) -> Vec<SliceEvidence> {
        let mut slices = vec![0.1; 30];
        slices[10..14].fill(0.9);
        series(uid, &slices)
    }

    fn verdict(evidence: &[SliceEvidence]) -> StudyJudgement {
        judge(evidence, &RULE, None, &MadeFor::default())
    }

    #[test]
    fn a_study_is_flagged_if_a_series_is_and_evidence_is_not_pooled() {
        assert_eq!(verdict(&negative("1")).finding, Finding::NotFlagged);
        assert_eq!(verdict(&positive("1")).finding, Finding::Flagged);
        assert_eq!(verdict(&[negative("1"), positive("2")].concat()).finding, Finding::Flagged);
        let mut one = vec![0.1; 30];
        one[10] = 0.9;
        let twice = [series("1", &one), series("2", &one)].concat();
        let said = verdict(&twice);
        assert_eq!((said.finding, said.score), (Finding::NotFlagged, Some(0.1)), "one place, reconstructed twice");
    }

    #[test]
    fn a_dynamic_series_counts_only_where_no_other_is_complete() {
        let dynamic = || vec![series("9", &[0.9; 16]); 20].concat();
        let beside = verdict(&[negative("1"), dynamic()].concat());
        assert_eq!(beside.finding, Finding::NotFlagged);
        let reason = beside.series.iter().find(|series| series.series_uid == "9").unwrap().reason.clone().unwrap();
        assert!(reason.contains("each place was imaged 20 times"), "{reason}");
        let alone = verdict(&dynamic());
        assert_eq!(alone.finding, Finding::Flagged, "what may bleed is not passed over");
        assert_eq!(alone.doubts, ["each place was imaged 20 times, as in perfusion"]);
        let early = judge_early(&[series("1", &[0.1; 3]), dynamic()].concat(), &RULE, &MadeFor::default());
        assert_ne!(early.finding, Finding::Flagged, "a better series may follow");
    }

    #[test]
    fn part_of_the_evidence_does_not_leave_a_study_unflagged() {
        let failed = |uid, count| {
            let mut slices = negative(uid);
            for slice in slices.iter_mut().take(count) {
                (slice.state, slice.reason) = (SliceState::Failed, Some("cut off".into()));
            }
            slices
        };
        let said = verdict(&failed("1", 26));
        assert_eq!(said.finding, Finding::Incomplete);
        assert_eq!(said.missing[0], "26 of 30 slices failed (cut off)");
        assert_eq!(verdict(&failed("1", 1)).finding, Finding::Incomplete);
        assert_eq!(verdict(&failed("1", 30)).finding, Finding::Incomplete);
        assert_eq!(verdict(&[negative("1"), failed("2", 5)].concat()).finding, Finding::Incomplete);
        for few in [1, 3, 9] {
            assert_eq!(verdict(&negative("1")[..few]).finding, Finding::Incomplete, "{few} slices");
        }
        let mut gap = negative("1");
        gap.remove(12);
        assert_eq!(verdict(&gap).missing, ["nothing between 55.0 and 65.0 mm"]);
        let fragment = [negative("1"), negative("2")[..3].to_vec()].concat();
        assert_eq!(verdict(&fragment).finding, Finding::NotFlagged, "a fragment beside the whole");
        let mut flagged = positive("1");
        flagged.truncate(14);
        assert_eq!(verdict(&flagged).finding, Finding::Flagged, "flagged wins");
    }

    #[test]
    fn what_an_object_lacks_is_missing_and_a_whole_series_does_not_make_it_good() {
        let mut lacking = negative("2");
        lacking[3].lacking = Some("1 of 3 parts of a concatenation did not come".into());
        let said = verdict(&[negative("1"), lacking.clone()].concat());
        assert_eq!(
            (said.finding, &said.missing[0][..]),
            (Finding::Incomplete, "1 of 3 parts of a concatenation did not come")
        );
        lacking
            .iter_mut()
            .take(3)
            .for_each(|slice| slice.state = SliceState::Scored { probability: 0.9, positive: true });
        assert_eq!(verdict(&lacking).finding, Finding::Flagged);
    }

    fn contrast(mut slices: Vec<SliceEvidence>) -> Vec<SliceEvidence> {
        slices.iter_mut().for_each(|slice| (slice.is_substitute, slice.doubts) = (true, Some("contrast agent".into())));
        slices
    }

    #[test]
    fn a_series_that_was_set_aside_is_told_where_it_would_have_flagged() {
        let said = verdict(&[negative("1"), contrast(positive("2"))].concat());
        assert_eq!((said.finding, said.score), (Finding::NotFlagged, Some(0.1)));
        let expected = "series 2 was not judged (contrast agent), though its score 0.90 is above the threshold 0.50";
        assert_eq!(said.asides, [expected]);
        assert!(verdict(&[negative("1"), contrast(negative("2"))].concat()).asides.is_empty());
        // Of a flagged study nobody needs to be told.
        let flagged = verdict(&[positive("1"), contrast(positive("2"))].concat());
        assert!(flagged.finding == Finding::Flagged && flagged.asides.is_empty());
        let gap = [contrast(negative("2")[..12].to_vec()), contrast(negative("2")[15..].to_vec())].concat();
        let said = verdict(&[negative("1"), gap].concat());
        assert_eq!(said.finding, Finding::NotFlagged);
        assert!(
            said.asides[0].contains("part of it is missing: nothing between 55.0 and 75.0 mm"),
            "{:?}",
            said.asides
        );
    }

    #[test]
    fn a_slice_that_says_contrast_does_not_make_a_series_one_of_contrast() {
        let mut second = positive("2");
        second[0] = contrast(second[..1].to_vec()).remove(0);
        assert_eq!(verdict(&[negative("1"), second.clone()].concat()).finding, Finding::Flagged);
        second = [contrast(second[..20].to_vec()), second[20..].to_vec()].concat();
        assert_eq!(verdict(&[negative("1"), second].concat()).finding, Finding::NotFlagged);
    }

    #[test]
    fn what_a_substitute_lost_is_not_made_good_by_a_better_series() {
        let mut failed = contrast(positive("2"));
        for slice in &mut failed[20..] {
            (slice.state, slice.reason) = (SliceState::Failed, Some("cut off".into()));
        }
        let said = verdict(&[negative("1"), failed].concat());
        assert_eq!(
            (said.finding, &said.missing[..]),
            (Finding::Incomplete, &["10 of 30 slices failed (cut off)".to_owned()][..])
        );
        assert_eq!(said.score, Some(0.1), "its score decides nothing");
        assert!(said.asides[0].contains("though its score 0.90 is above"), "{:?}", said.asides);
        assert_eq!(said.series[1].finding, Some(Finding::Incomplete));
        let mut refused = contrast(negative("2"));
        refused.iter_mut().for_each(|slice| slice.lacking = Some("10 objects of it were refused".into()));
        let said = verdict(&[negative("1"), refused].concat());
        assert_eq!((said.finding, &said.missing[0][..]), (Finding::Incomplete, "10 objects of it were refused"));
    }

    #[test]
    fn slices_that_were_put_out_at_the_end_of_a_series_are_missing() {
        let mut end = negative("1");
        for slice in &mut end[20..] {
            (slice.state, slice.reason) = (SliceState::Out, Some("160 kV".into()));
        }
        let said = verdict(&end);
        assert_eq!(said.missing, ["10 slices of it were not scored (160 kV)"]);
        assert_eq!(verdict(&[negative("2"), end].concat()).finding, Finding::Incomplete);
    }

    #[test]
    fn slices_that_are_missing_or_misplaced_throughout_leave_no_study_unflagged() {
        let mut numbered = series("1", &[0.1; 60]);
        (1..).zip(&mut numbered).for_each(|(number, slice)| slice.instance_number = Some(number));
        assert_eq!(verdict(&numbered).finding, Finding::NotFlagged);
        let every_second: Vec<SliceEvidence> = numbered.iter().step_by(2).cloned().collect();
        assert!(verdict(&every_second).missing[0].contains("in steps of 2"));
        let mut crowded = negative("1");
        crowded[20..].iter_mut().for_each(|slice| {
            (slice.position, slice.state) = (Some(95.0), SliceState::Scored { probability: 0.9, positive: true });
        });
        let said = verdict(&crowded);
        assert_eq!((said.finding, &said.missing[0][..]), (Finding::Incomplete, "11 slices at one position"));
        crowded[20..].iter_mut().for_each(|slice| slice.position = Some(0.0));
        assert_eq!(verdict(&crowded).finding, Finding::Flagged);
    }

    #[test]
    fn slices_without_a_rescale_among_others_are_no_hounsfield_units() {
        let without = |mut slices: Vec<SliceEvidence>, count: usize, shows| {
            let lacking = slices.iter_mut().rev().take(count);
            lacking.for_each(|slice| (slice.doubts, slice.shows) = (Some(gate::NO_RESCALE.into()), shows));
            slices
        };
        let said = verdict(&without(negative("1"), 20, None));
        assert_eq!(said.missing, ["20 of 30 slices without rescale slope or intercept"]);
        let all = verdict(&without(negative("1"), 30, None));
        assert_eq!((all.finding, all.doubts.len()), (Finding::NotFlagged, 1), "all alike: told");
        let body = without(negative("2"), 30, Some(triaged_imaging::Shows::Body));
        assert_eq!(verdict(&[negative("1"), body].concat()).finding, Finding::Incomplete, "and no head: wrong");
    }

    #[test]
    fn a_series_without_a_part_in_the_verdict_is_told() {
        let beside = |second: Vec<SliceEvidence>| {
            let said = verdict(&[negative("1"), second].concat());
            assert_eq!(said.finding, Finding::NotFlagged);
            said.asides
        };
        let changed = |mut slices: Vec<SliceEvidence>, change: &dyn Fn(&mut SliceEvidence)| {
            slices.iter_mut().for_each(change);
            slices
        };
        let out = |reason: &'static str| {
            changed(negative("2"), &|slice| (slice.state, slice.reason) = (SliceState::Out, Some(reason.into())))
        };
        let shows = |shows| changed(negative("2"), &|slice: &mut SliceEvidence| slice.shows = Some(shows));
        let too_short = "series 2 is no part of the verdict: 7 slices, at least 8 are needed; 35 mm covered, at least 90 mm are needed";
        assert_eq!(beside(negative("2")[..7].to_vec()), [too_short]);
        let thick = changed(negative("2"), &|slice| slice.thickness = Some(12.0));
        assert!(beside(thick)[0].contains("12.0 mm thick"));
        assert!(beside(shows(triaged_imaging::Shows::Body))[0].contains("no slice shows a head"));
        let maps = beside(out("no Hounsfield units: rescale type MGML"));
        assert_eq!(maps, ["series 2 was not judged: 30 slices not scored (no Hounsfield units: rescale type MGML)"]);
        assert_eq!(beside(out("160 kV, and the model was made for 70 to 150 kV")).len(), 1);
        // The routine of any study: localizers, reformats, reports, maps that say so, other parts of the body, waiting for contrast agent.
        for routine in [
            "a localizer: image type ORIGINAL\\PRIMARY\\LOCALIZER",
            "not axial: the plane is tilted by 90 degrees",
            "not an original slice: image type DERIVED\\SECONDARY",
            "not a CT image: SOP class 1.2 (radiation dose report)",
            "not slices as they were acquired: image type DERIVED\\PRIMARY\\PERFUSION\\CBF",
            "not the head: anatomic region Chest",
        ] {
            assert!(beside(out(routine)).is_empty(), "{routine}");
        }
        assert!(
            beside(changed(out("no Hounsfield units: rescale type PCT"), &|slice| slice.is_substitute = true))
                .is_empty()
        );
        let spine = changed(negative("2")[..25].to_vec(), &|slice| slice.state = SliceState::NoHead);
        assert!(beside([spine, negative("2")[25..].to_vec()].concat()).is_empty(), "a spine up to the skull");
        assert!(beside(negative("2")[..1].to_vec()).is_empty());
        assert!(beside(shows(triaged_imaging::Shows::Body)[..3].to_vec()).is_empty());
        assert!(beside(vec![shows(triaged_imaging::Shows::Body)[1..2].to_vec(); 20].concat()).is_empty());
        let many: Vec<SliceEvidence> = (2..10).flat_map(|uid| series(&uid.to_string(), &[0.1; 7])).collect();
        let many = beside(many);
        assert_eq!((many.len(), &many[5][..]), (6, "and 3 series more have no part in the verdict"));
        // Of a study that is still received, or flagged, nothing is told.
        let early = judge_early(
            &[negative("1"), negative("2")[..7].to_vec(), positive("3")].concat(),
            &RULE,
            &MadeFor::default(),
        );
        assert!(early.finding == Finding::Flagged && early.asides.is_empty());
    }

    #[test]
    fn a_neck_clears_no_study_and_sets_no_head_aside() {
        use triaged_imaging::Shows::{Body, Head};
        let mut neck = negative("1");
        (0..).zip(&mut neck).for_each(|(index, slice)| slice.shows = Some(if index < 25 { Body } else { Head }));
        assert!(verdict(&neck).missing[0].contains("a head over 20 mm"));
        assert_eq!(verdict(&[neck, contrast(positive("2"))].concat()).finding, Finding::Flagged);
    }

    #[test]
    fn the_routine_of_a_hospital_is_neither_incomplete_nor_worth_a_warning() {
        let out = |mut slices: Vec<SliceEvidence>, orientation: Option<&str>, reason: &str| {
            for slice in &mut slices {
                (slice.state, slice.reason) = (SliceState::Out, Some(reason.into()));
                slice.orientation = orientation.map(str::to_owned);
            }
            slices
        };
        let numbered = |mut slices: Vec<SliceEvidence>| {
            (1..).zip(&mut slices).for_each(|(number, slice)| slice.instance_number = Some(number));
            slices
        };
        let mut thin = series("6", &[0.1; 240]);
        (0..)
            .zip(&mut thin)
            .for_each(|(n, slice)| (slice.position, slice.thickness) = (Some(0.625 * f64::from(n)), Some(0.625)));
        let bone = |mut slices: Vec<SliceEvidence>| {
            slices
                .iter_mut()
                .for_each(|slice| (slice.is_substitute, slice.doubts) = (true, Some("sharp kernel H60s".into())));
            slices
        };
        let study = [
            numbered(negative("1")),
            out(negative("2")[..2].to_vec(), Some("0,50,0"), "a localizer: image type ORIGINAL\\PRIMARY\\LOCALIZER"),
            numbered(bone(negative("3"))),
            out(negative("4"), Some("0,50,0"), "not axial: the plane is tilted by 90 degrees"),
            out(
                negative("5")[..1].to_vec(),
                None,
                "not a CT image: SOP class 1.2.840.10008.5.1.4.1.1.7 (secondary capture)",
            ),
            numbered(thin),
            numbered(contrast(negative("7"))),
            // Perfusion: two thirds of the head, time and again.
            numbered(contrast(vec![series("8", &[0.1; 16]); 20].concat())),
        ];
        let said = verdict(&study.concat());
        assert_eq!(
            (said.finding, said.missing, said.doubts, said.asides),
            (Finding::NotFlagged, vec![], vec![], vec![])
        );
    }

    #[test]
    fn what_was_refused_of_a_series_that_did_not_come_leaves_no_study_unflagged() {
        let refused = || "24 objects of it were refused".to_owned();
        let mut scout = negative("2")[..1].to_vec();
        (scout[0].state, scout[0].lacking) = (SliceState::Out, Some(refused()));
        assert_eq!(verdict(&[negative("1"), scout].concat()).missing, [refused()]);
        assert_eq!(verdict(&negative("1")).lacking(refused()).finding, Finding::Incomplete);
        assert_eq!(verdict(&positive("1")).lacking(refused()).finding, Finding::Flagged);
    }

    #[test]
    fn a_series_of_no_head_is_made_good_by_one_of_a_head() {
        let showing = |uid, shows| {
            let mut slices = negative(uid);
            slices.iter_mut().for_each(|slice| slice.shows = Some(shows));
            slices
        };
        let neck = showing("2", triaged_imaging::Shows::Body);
        assert_eq!(verdict(&neck).finding, Finding::Incomplete);
        let head = showing("1", triaged_imaging::Shows::Head);
        assert_eq!(verdict(&[head, neck].concat()).finding, Finding::NotFlagged);
    }

    #[test]
    fn a_substitute_does_not_clear_what_came_of_a_better_series_in_part() {
        let mut bone = negative("2");
        bone.iter_mut().for_each(|slice| (slice.is_substitute, slice.doubts) = (true, Some("sharp kernel".into())));
        assert_eq!(verdict(&bone).finding, Finding::NotFlagged, "all there is");
        let part = negative("1")[..10].to_vec();
        let said = verdict(&[part, bone.clone()].concat());
        assert_eq!((said.finding, said.missing.len()), (Finding::Incomplete, 1), "{:?}", said.missing);
        assert_eq!(verdict(&[negative("1"), bone].concat()).finding, Finding::NotFlagged);
    }

    #[test]
    fn a_study_without_anything_to_judge_says_why() {
        let mut scouts = negative("1")[..2].to_vec();
        for slice in &mut scouts {
            (slice.state, slice.reason) = (SliceState::Out, Some("a localizer".into()));
        }
        let said = verdict(&scouts);
        assert_eq!(said.finding, Finding::Incomplete);
        assert_eq!(said.missing, ["no slice could be triaged", "a localizer"]);
        assert_eq!(said.series[0].finding, None);
        assert_eq!(said.series[0].reason.as_deref(), Some("a localizer"));
        assert_eq!((said.score, verdict(&[]).finding), (None, Finding::Incomplete));
    }

    #[test]
    fn substitutes_are_judged_where_nothing_better_is_complete() {
        let substitute = |mut slices: Vec<SliceEvidence>| {
            for slice in &mut slices {
                (slice.is_substitute, slice.doubts) = (true, Some("a reformat".into()));
            }
            slices
        };
        let alone = verdict(&substitute(positive("2")));
        assert_eq!((alone.finding, &alone.doubts[..]), (Finding::Flagged, &["a reformat".to_owned()][..]));
        let beside = verdict(&[negative("1"), substitute(positive("2"))].concat());
        assert_eq!(beside.finding, Finding::NotFlagged);
        assert_eq!(beside.series[1].finding, None);
        assert!(beside.doubts.is_empty());
        let broken = verdict(&[negative("1")[..5].to_vec(), substitute(positive("2"))].concat());
        assert_eq!(broken.finding, Finding::Flagged);
        let early = judge_early(&substitute(positive("2")), &RULE, &MadeFor::default());
        assert_ne!(early.finding, Finding::Flagged);
    }

    /// A network that says of each bin what it is told to, and of the series the second highest of them.
    struct Said<F>(F);

    impl<F: Fn(&SeriesInput) -> Result<SeriesScores, String> + Send + Sync> SeriesNetwork for Said<F> {
        fn read(&self, input: &SeriesInput) -> Result<SeriesScores, String> {
            self.0(input)
        }
    }

    fn sequence() -> Sequence {
        Sequence {
            file: "m-sequence.onnx".into(),
            sha256: "0".repeat(64),
            input: "series".into(),
            slice_output: "slices".into(),
            series_output: "whole".into(),
            spacing_mm: 5.0,
            slice_threshold: 0.4,
            threshold: 0.25,
            early_threshold: None,
        }
    }

    fn by_sequence(
        evidence: &[SliceEvidence],
        said: impl Fn(&SeriesInput) -> Result<SeriesScores, String> + Send + Sync,
    ) -> StudyJudgement {
        let (card, network) = (sequence(), Said(said));
        let sequence = WholeSeries { card: &card, network: &network };
        judge(evidence, &RULE, Some(sequence), &MadeFor::default())
    }

    fn says(series: f32) -> impl Fn(&SeriesInput) -> Result<SeriesScores, String> {
        move |input| SeriesScores::new(&vec![0.5; input.len()], &[series], input)
    }

    #[test]
    fn the_sequence_gives_the_final_verdict_and_the_rule_the_early_one() {
        let flagged = by_sequence(&negative("1"), says(0.3));
        assert_eq!((flagged.finding, flagged.threshold), (Finding::Flagged, 0.25));
        assert!((flagged.score.expect("a score") - 0.3).abs() < 1e-6);
        assert_eq!(flagged.positives, 30, "bins from the sequence's own slice threshold");
        assert_eq!(flagged.series[0].threshold, 0.25);
        assert!(matches!(&flagged.rule, VerdictRule::Sequence(rule) if rule.file == "m-sequence.onnx"));
        assert_eq!(flagged.fallback, None);
        assert_eq!(by_sequence(&positive("1"), says(0.2)).finding, Finding::NotFlagged);
        // Part of a series can flag and not clear, as by the rule.
        assert_eq!(by_sequence(&negative("1")[..3], says(0.2)).finding, Finding::Incomplete);
        assert_eq!(by_sequence(&negative("1")[..1], says(0.9)).finding, Finding::Flagged);
        let early = judge_early(&positive("1"), &RULE, &MadeFor::default());
        assert!(early.finding == Finding::Flagged && matches!(early.rule, VerdictRule::Slices(RULE)));
    }

    #[test]
    fn the_sequence_sees_places_in_order_with_what_is_missing_between() {
        let mut slices = series("1", &(0..30).map(|i| f64::from(i) / 30.0).collect::<Vec<_>>());
        slices.reverse();
        slices[10].state = SliceState::Failed;
        slices.remove(20);
        let again = SliceEvidence { position: Some(0.04), ..slices[0].clone() };
        slices.push(again);
        let seen = std::sync::Mutex::new(Vec::new());
        by_sequence(&slices, |input| {
            *seen.lock().expect("one reader") = input.values();
            says(0.1)(input)
        });
        let seen = seen.into_inner().expect("one reader");
        let (logits, present) = seen.split_at(30);
        let empty: Vec<usize> = (0..30).filter(|bin| present[*bin] == 0.0).collect();
        assert_eq!(empty, [9, 19], "the removed slice, and the failed one");
        assert_eq!(logits[0], ((29.0_f64 / 30.0) / (1.0 / 30.0)).ln() as f32, "the copy at the first place is higher");
        assert!(logits[1..9].windows(2).all(|pair| pair[0] < pair[1]), "{logits:?}");
    }

    #[test]
    fn a_sequence_that_fails_on_one_series_leaves_the_whole_study_to_the_rule() {
        let evidence = [negative("1"), positive("2")].concat();
        let fails_on_bleeding = |input: &SeriesInput| match input.values()[10] > 0.0 {
            true => SeriesScores::new(&vec![f32::NAN; input.len()], &[0.1], input),
            false => says(0.1)(input),
        };
        let said = by_sequence(&evidence, fails_on_bleeding);
        assert_eq!((said.finding, said.threshold), (Finding::Flagged, 0.5));
        assert!(matches!(said.rule, VerdictRule::Slices(RULE)));
        assert_eq!(said.fallback.as_deref(), Some("series 2: NaN is not a probability"));
        assert!(said.series.iter().all(|series| series.threshold == 0.5), "no two scales in one verdict");
        // A study of nothing but failed slices asks no network.
        let mut failed = negative("1");
        failed.iter_mut().for_each(|slice| slice.state = SliceState::Failed);
        let said = by_sequence(&failed, |_| panic!("there is nothing to read"));
        assert_eq!((said.finding, said.fallback), (Finding::Incomplete, None));
    }
}
