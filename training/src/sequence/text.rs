//! A sequence network's section of the card that people read.

use triaged_model::ModelCard;

use super::figures::{Compared, SequenceFigures};
use crate::metrics::{Figures, Interval, MeanSd};

const TITLE: &str = "## The sequence network\n\n";
/// The words before its two thresholds.
const FROM: &str = "a series is flagged from probability ";
const EARLY: &str = "The study rule gives early alerts, from a score of ";
/// Why early alerts begin there, where the threshold was chosen with the network.
const REASON: &str = " on: they are never taken back, and so begin at the lowest score, not below the rule's own threshold, from which on this \
                      network confirms all.";
/// The words of a card with a site's thresholds.
const BY_OTHERS: &str =
    "**The figures in this section are by the thresholds that were chosen with the network, not by this card's.** ";
/// The section that it stands before.
const NEXT: &str = "\n## Limits\n";

impl SequenceFigures {
    /// The figures as a table in Markdown.
    pub fn table(&self) -> String {
        let cell = |i: Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
        let or = |i: Option<Interval>| i.map_or("one class only".into(), cell);
        let difference = |compared: &Compared| {
            compared
                .auc_difference
                .map_or("one class only".into(), |i| format!("{:+.3} ({:+.3} to {:+.3})", i.value, i.low, i.high))
        };
        let within =
            |mean: Option<MeanSd>| mean.map_or("one class only".into(), |m| format!("{:.3} ± {:.3}", m.mean, m.sd));
        let (slices, studies) = (&self.slices, &self.studies);
        let mut table = format!(
            "| | slices ({}, {} positive), by their own network | by the sequence | studies ({}, {} positive), by the study rule | by the sequence |\n\
             |---|---|---|---|---|\n",
            slices.with.cases, slices.with.positives, studies.with.cases, studies.with.positives
        );
        type Row = (&'static str, fn(&Figures) -> Option<Interval>);
        let rows: [Row; 6] = [
            ("AUC", |f| f.auc),
            ("F2", |f| f.f2),
            ("sensitivity", |f| f.sensitivity),
            ("specificity", |f| f.specificity),
            ("precision", |f| Some(f.precision)),
            ("accuracy", |f| Some(f.accuracy)),
        ];
        for (name, figure) in rows {
            let cells = [&slices.without, &slices.with, &studies.without, &studies.with].map(|f| or(figure(f)));
            table += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        table += &format!("| AUC, difference | | {} | | {} |\n", difference(slices), difference(studies));
        let cells = [slices, studies].map(|c| [c.auc_within_folds[1], c.auc_within_folds[0]].map(within)).concat();
        table + &format!("| AUC, mean of the folds' own ± sd | {} |\n", cells.join(" | "))
    }

    /// The section, with its heading.
    pub fn section(&self, file: &str) -> String {
        let early = &self.with_early_alerts;
        let share = |i: Option<Interval>| {
            i.map_or("one class only".into(), |i| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high))
        };
        format!(
            "{TITLE}\
             `{file}` reads what the network above said of all slices of a series, in their order along the body, and gives the node's \
             verdict on it: {FROM}{:.4}. {EARLY}{:.4}{REASON} The rule \
             with its own threshold gives the verdict where this network fails. {} parameters: a smoothing over five neighbours, a correction by two convolutions over five \
             bins, a smooth maximum over the series; symmetric, so that the direction of the scan does not matter. Its input are the calibrated \
             logits (-8 to 8) in bins of {} mm, of several slices in one bin the highest, and where bins are empty. It was trained on patients \
             whose slices are 5 mm apart: that thin slices in one bin score as one thick slice was not measured.\n\n\
             Trained on the out-of-fold scores of {} patients; for these figures on those of all folds but one, and judged by \
             thresholds chosen on the same folds, each read by a network that was trained without it. In brackets 95 % intervals, bootstrap over \
             patients. A slice is positive from probability {:.4} of its bin.\n\n{}\n\
             With early alerts a study is flagged if one is given or the sequence does so: sensitivity {}, specificity {}. Of {} studies with \
             the finding that are flagged, {} have an early alert; the others' alerts come when the study is complete.\n",
            self.threshold,
            self.early_threshold,
            self.parameters,
            self.settings.spacing_mm,
            self.patients,
            self.slice_threshold,
            self.table(),
            share(early.sensitivity),
            share(early.specificity),
            self.found,
            self.found_early,
        )
    }
}

/// The card for people with the thresholds of another card of the same networks in this section; `early` says in words when early
/// alerts are given.
pub fn with_thresholds(text: &str, old: &ModelCard, new: &ModelCard, early: impl Fn(&ModelCard) -> String) -> String {
    let Some(begin) = text.find(TITLE) else { return text.to_owned() };
    let threshold = |card: &ModelCard| card.sequence.as_ref().map_or(0.0, |sequence| sequence.threshold);
    let from = |card: &ModelCard| format!("{FROM}{:.4}. ", threshold(card));
    let sites = |card: &ModelCard| format!("{}: they are never taken back.", crate::describe::capital(&early(card)));
    let section = text[begin..].replacen(&from(old), &from(new), 1);
    // As it was written with the network, or for a site before.
    let written = format!("{EARLY}{:.4}{REASON}", old.early_rule().threshold());
    let mut section = section.replacen(&written, &sites(new), 1).replacen(&sites(old), &sites(new), 1);
    if !section.contains(BY_OTHERS) {
        section = section.replacen(TITLE, &format!("{TITLE}{BY_OTHERS}"), 1);
    }
    format!("{}{section}", &text[..begin])
}

/// The card for people with the section, in place of the one it has. None where it is no card as `export` writes them.
pub fn in_text(text: &str, section: &str) -> Option<String> {
    let mut text = text.to_owned();
    if let Some(begin) = text.find(TITLE) {
        let end = text[begin + TITLE.len()..].find("\n## ").map(|at| begin + TITLE.len() + at + 1)?;
        text.replace_range(begin..end, "");
    }
    let place = text.find(NEXT)? + 1;
    text.insert_str(place, &format!("{section}\n"));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_reads_its_own_thresholds() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let (old, _) = ModelCard::load(&models.join("m12.json")).expect("a card");
        let people = std::fs::read_to_string(models.join("m12.md")).expect("a card for people");
        let mut new = old.clone();
        let sequence = new.sequence.as_mut().expect("m12 has one");
        (sequence.threshold, sequence.early_threshold) = (0.4321, Some(0.8765));
        let early = |card: &ModelCard| format!("alerts from {:.4}", card.early_rule().threshold());
        let text = with_thresholds(&people, &old, &new, early);
        assert!(text.contains("flagged from probability 0.4321. Alerts from 0.8765: they are never taken back."));
        assert!(text.contains(BY_OTHERS) && !text.contains(REASON));
        // Once more, for another threshold.
        let mut newer = new.clone();
        newer.sequence.as_mut().expect("m12 has one").early_threshold = Some(0.9999);
        let again = with_thresholds(&text, &new, &newer, early);
        assert_eq!(again, text.replace("0.8765", "0.9999"));
        let former = old.sequence.expect("m12 has one");
        assert!(!text.contains(&format!("{FROM}{:.4}", former.threshold)), "the former threshold is gone");
        assert_eq!(with_thresholds("# mine\n", &new, &new, early), "# mine\n");
    }

    #[test]
    fn the_section_stands_before_the_limits_and_once() {
        let card = "# m12\n\n## Figures\n\nMany.\n\n## Limits\n\nAll.\n";
        let section = format!("{TITLE}Small.\n");
        let once = in_text(card, &section).expect("a card");
        assert_eq!(once, "# m12\n\n## Figures\n\nMany.\n\n## The sequence network\n\nSmall.\n\n## Limits\n\nAll.\n");
        assert_eq!(in_text(&once, &section).as_deref(), Some(once.as_str()));
        assert_eq!(in_text("# mine\n", &section), None);
    }
}
