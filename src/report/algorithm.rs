//! What gave the verdict, as groups of the report name it.

use super::codes::dcm;
use super::content::Item;
use crate::ledger::ReportedVerdict;

/// Model, threshold, rule and software: TID 4019.
pub(super) fn algorithm(verdict: &ReportedVerdict) -> [Item; 5] {
    let ReportedVerdict { model, model_sha256, threshold, rule, software, .. } = verdict;
    let parameter = |text: String| Item::text(&dcm("111002", "Algorithm Parameters"), &text);
    [
        Item::text(&dcm("111001", "Algorithm Name"), model),
        Item::text(&dcm("111003", "Algorithm Version"), &format!("SHA-256 {model_sha256}")),
        parameter(format!("threshold {threshold}")),
        parameter(format!("study rule {rule}")),
        parameter(format!("software {software}")),
    ]
}
