//! The sentences in which a document tells a verdict. Promise 7: nothing here reads as a clearance.

use crate::event::NOTICE;
use crate::ledger::{EvidenceSlice, ReportedVerdict};

/// The verdict in a few words, for a title.
///
/// `was_flagged`: by an earlier verdict.
pub(super) fn title(verdict: &ReportedVerdict, finding: &str, was_flagged: bool) -> String {
    let stage = if verdict.provisional { ", still receiving" } else { "" };
    match verdict.verdict.as_str() {
        other if was_flagged && other != "flagged" => {
            format!("FLAGGED by an earlier verdict, which stands. This one: {other}")
        }
        "flagged" => format!("FLAGGED: suspected {finding}{stage}"),
        "not flagged" => "Not flagged (no clearance)".to_owned(),
        _ => "INCOMPLETE: not triaged, or only in part".to_owned(),
    }
}

/// The score and what it is compared with.
pub(super) fn score(verdict: &ReportedVerdict) -> String {
    match verdict.score {
        Some(score) => format!("Score {score:.3}, flagged from {:.3}.", verdict.threshold),
        None => format!("No score: no slice was scored. Flagged from {:.3}.", verdict.threshold),
    }
}

/// Everything that a reader must know, a sentence or more each, the most important first.
pub(super) fn sentences(
    verdict: &ReportedVerdict,
    finding: &str,
    was_flagged: bool,
    top: &[&EvidenceSlice],
) -> Vec<String> {
    let mut sentences = vec![format!("{}. {}", title(verdict, finding, was_flagged), score(verdict))];
    if let Some(missing) = &verdict.missing {
        sentences.push(format!("Missing: {missing}."));
    }
    if let Some(warnings) = &verdict.warnings {
        sentences.push(format!("Doubtful: {warnings}."));
    }
    if !top.is_empty() {
        let slices: Vec<String> = top.iter().map(|slice| slice_in_words(slice)).collect();
        sentences.push(format!("Most suspicious slices: {}.", slices.join("; ")));
    }
    sentences.push(format!(
        "Slices: {} scored, {} ineligible, {} failed.",
        verdict.slices_scored, verdict.slices_ineligible, verdict.slices_failed
    ));
    if verdict.provisional {
        sentences.push("The study was still being received; another report follows.".to_owned());
    }
    sentences.push(NOTICE.to_owned());
    sentences
}

/// A slice with its probability.
pub(super) fn slice_in_words(slice: &EvidenceSlice) -> String {
    let number = slice.instance_number.map_or_else(|| "without a number".to_owned(), |number| number.to_string());
    let frame = if slice.multi_frame { format!(", frame {}", slice.frame) } else { String::new() };
    match slice.probability {
        Some(probability) => format!("instance {number}{frame} (probability {probability:.2})"),
        None => format!("instance {number}{frame}"),
    }
}
