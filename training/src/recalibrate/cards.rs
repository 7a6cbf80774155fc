//! The two cards of a model with a site's own threshold.

use serde::{Deserialize, Serialize};
use triaged_model::ModelCard;

use super::choice::{Choice, Wanted};
use super::verdict;
use crate::describe;
use crate::metrics::Interval;
use crate::sequence;

/// The origin of a card's threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The card it was made from.
    pub of: String,
    pub of_version: String,
    pub threshold_before: f64,
    /// That of early alerts, for a card with a sequence network where it is another than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_threshold: Option<f64>,
    pub wanted: Wanted,
    /// The file or folder that the studies were read from, by its name, and the digest of the file.
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<String>,
    /// UTC, ISO 8601.
    pub at: String,
    /// The commit of this program's sources.
    pub commit: String,
    pub choice: Choice,
    pub warnings: Vec<String>,
}

/// Fields of `about` that tell what the verdicts by a threshold were: by the threshold of before, not by the new one.
const BY_THRESHOLD: [&str; 12] = [
    "validation",
    "test",
    "cross_validation",
    "other_sets",
    "sources",
    "department",
    "strata",
    "study_rules",
    "phantoms_unseen",
    "with_test_time_flip",
    "quantized",
    "figures_by_another_threshold",
];

/// Those by the threshold of a sequence network. The others are by the study rule, which stays.
const BY_SEQUENCE: [&str; 3] = ["sequence", "phantoms_unseen", "figures_by_another_threshold"];

/// The title of the section that tells of the change, and what marks figures by another threshold.
const SECTION: &str = "## The site's threshold\n\n";
const MARK: &str = "**All verdicts on studies in this section are by ";

/// The card with the new threshold, of its sequence network or else of its study rule. Networks, transform, slice threshold and rule stay; figures that hold for the threshold of
/// before are kept apart.
pub fn card(of: &ModelCard, name: &str, provenance: &Provenance) -> ModelCard {
    let mut card = ModelCard {
        name: name.into(),
        ..verdict::with_thresholds(of, provenance.choice.threshold, provenance.early_threshold)
    };
    if !card.about.is_object() {
        card.about = serde_json::json!({ "of_the_original": card.about });
    }
    let by_threshold = if of.sequence.is_some() { &BY_SEQUENCE[..] } else { &BY_THRESHOLD };
    if let Some(about) = card.about.as_object_mut() {
        let before: serde_json::Map<String, serde_json::Value> =
            by_threshold.iter().filter_map(|&field| Some((field.to_owned(), about.remove(field)?))).collect();
        if !before.is_empty() {
            about.insert("figures_by_another_threshold".into(), before.into());
        }
        let provenance = serde_json::to_value(provenance).expect("numbers and texts alone");
        about.insert("recalibrated".into(), provenance);
    }
    card
}

/// The card for people: the original's, where there is one, with what changed said before everything else.
pub fn text(original: Option<&str>, of: &ModelCard, name: &str, provenance: &Provenance) -> String {
    let Provenance { choice, .. } = provenance;
    let new = verdict::with_thresholds(of, choice.threshold, provenance.early_threshold);
    let section = section(&new, provenance);
    let title = format!("# {name}, version {}\n\n", of.version);
    let own = format!(
        "Scores a head CT slice for {}. {} with another study threshold. **Not for clinical use.**\n\n",
        of.finding, of.name
    );
    let Some(original) = original else { return format!("{title}{own}{section}") };
    // The former threshold must not stand where a reader looks for the one that counts.
    let body = original.split_once("\n\n").map_or(original, |(_, rest)| rest);
    let body = match &of.sequence {
        None => body.replacen(&describe::rule(&of.study_rule), &describe::rule(&new.study_rule), 1),
        Some(_) => sequence::with_thresholds(body, of, &new, verdict::early_text),
    };
    let figures = "## Figures\n\n";
    let whose = match &of.sequence {
        None => format!(
            "the original's threshold, {}, not by this card's.** \"The site's threshold\" above has this card's.",
            verdict::threshold(of)
        ),
        Some(_) => format!(
            "the study rule, or by the sequence network with the original's threshold, {}, not by this card's.** \"The site's threshold\" above has this card's.",
            verdict::threshold(of)
        ),
    };
    let body = match body.contains(MARK) {
        true => body,
        false => body.replacen(figures, &format!("{figures}{MARK}{whose}\n\n"), 1),
    };
    let body = without_section(&body);
    let sections = body.find("## ").unwrap_or(body.len());
    let (opening, rest) = body.split_at(sections);
    format!("{title}{opening}{section}{rest}")
}

/// A card's text without what an earlier change said of itself.
fn without_section(text: &str) -> String {
    let Some(begin) = text.find(SECTION) else { return text.to_owned() };
    let end = text[begin + SECTION.len()..].find("\n## ").map_or(text.len(), |at| begin + SECTION.len() + at + 1);
    format!("{}{}", &text[..begin], &text[end..])
}

/// The change, as a section of the card for people.
pub fn section(card: &ModelCard, provenance: &Provenance) -> String {
    let Provenance { of, choice, wanted, source, at, threshold_before, .. } = provenance;
    let cell = |share: Option<Interval>| {
        share.map_or("none of this class".into(), |i| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high))
    };
    let wanted = match (wanted.sensitivity, wanted.specificity) {
        (Some(sensitivity), Some(specificity)) => {
            format!("a sensitivity of {sensitivity} and a specificity of {specificity}")
        }
        (Some(sensitivity), None) => format!("a sensitivity of {sensitivity}"),
        (None, specificity) => format!("a specificity of {}", specificity.unwrap_or_default()),
    };
    let aside = if card.sequence.is_some() { " Early alerts are left aside." } else { "" };
    let department = choice.department.as_ref().map_or(String::new(), |seen| format!("{}\n\n", seen.text()));
    let warnings: String = provenance.warnings.iter().map(|line| format!("- {line}.\n")).collect();
    let warnings = if warnings.is_empty() { warnings } else { format!("To be known:\n\n{warnings}\n") };
    format!(
        "{SECTION}This is {of} with a study threshold of {:.6} instead of {threshold_before:.6}: {} Network, slice threshold and rule are {of}'s. The study threshold was \
         chosen on {at} by `triaged-training recalibrate` for {wanted} in the mean of further studies, on {source}: {} labelled studies, \
         {} of them with hemorrhage ({} patients with, {} without).\n\n\
         | each patient judged by the threshold that the others give | this threshold | {of}'s own |\n|---|---|---|\n\
         | sensitivity | {} | {} |\n| specificity | {} | {} |\n\n\
         In brackets exact 95 % limits (Clopper–Pearson); a patient's several studies count as one.{aside} Study AUC {}.\n\n{department}{warnings}",
        choice.threshold,
        describe::capital(&verdict::text(card)),
        choice.studies,
        choice.positives,
        choice.positive_patients,
        choice.negative_patients,
        cell(choice.sensitivity),
        cell(choice.sensitivity_before),
        cell(choice.specificity),
        cell(choice.specificity_before),
        choice.auc.map_or("none, of one class".into(), |auc| format!("{auc:.3}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recalibrate::Labelled;
    use std::path::Path;

    fn shipped() -> (ModelCard, String) {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let (card, _) = ModelCard::load(&models.join("m11.json")).expect("a card");
        (card, std::fs::read_to_string(models.join("m11.md")).expect("a card for people"))
    }

    fn provenance(of: &ModelCard) -> Provenance {
        let studies: Vec<Labelled> = (0..60)
            .map(|i| Labelled {
                patient: i.to_string(),
                score: f64::from(i + 1) / 100.0,
                early: None,
                unconfirmed: false,
                positive: i >= 40,
            })
            .collect();
        let wanted = Wanted { sensitivity: Some(0.9), specificity: None };
        let before = verdict::threshold(of);
        let choice = Choice::of(&studies, wanted, before).expect("twenty patients");
        Provenance {
            of: of.name.clone(),
            of_version: of.version.clone(),
            threshold_before: before,
            early_threshold: None,
            wanted,
            source: "worklist.csv".into(),
            source_sha256: Some("0".repeat(64)),
            at: "2026-01-02T03:04:05Z".into(),
            commit: "unknown".into(),
            warnings: choice.warnings(wanted),
            choice,
        }
    }

    #[test]
    fn no_figure_by_the_former_threshold_stands_as_one_of_this_card() {
        let (of, people) = shipped();
        let provenance = provenance(&of);
        let card = card(&of, "m11-here", &provenance);
        assert_eq!((card.name.as_str(), card.file.as_str()), ("m11-here", "m11.onnx"));
        assert_eq!(card.study_rule.threshold(), provenance.choice.threshold);
        assert!(card.about.get("cross_validation").is_none() && card.about.get("study_rules").is_none());
        let before = &card.about["figures_by_another_threshold"];
        assert_eq!(before["cross_validation"], of.about["cross_validation"]);
        let read: Provenance = serde_json::from_value(card.about["recalibrated"].clone()).expect("as it was written");
        assert_eq!(read.choice.threshold.to_bits(), provenance.choice.threshold.to_bits());

        let text = text(Some(&people), &of, "m11-here", &provenance);
        assert!(text.starts_with("# m11-here, version 2\n\nScores a head CT slice"), "{text}");
        let (site, whom) = (text.find("## The site's threshold\n\n"), text.find("## For whom"));
        assert!(site.is_some() && site < whom, "{text}");
        assert!(!text.contains(&describe::rule(&of.study_rule)), "the former rule must be gone");
        assert!(text.contains(&describe::rule(&card.study_rule)) && text.contains("are by the original's threshold"));
        // A card made from such a card keeps what is below, once.
        let again = super::card(&card, "m11-there", &Provenance { of: "m11-here".into(), ..provenance });
        assert!(again.about["figures_by_another_threshold"]["figures_by_another_threshold"].is_object());
    }

    #[test]
    fn a_card_that_is_made_again_tells_of_one_change() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for name in ["m11", "m12"] {
            let (of, _) = ModelCard::load(&models.join(format!("{name}.json"))).expect("a card");
            let people = std::fs::read_to_string(models.join(format!("{name}.md"))).expect("a card for people");
            let mut first = provenance(&of);
            first.early_threshold = of.sequence.as_ref().map(|_| 1.0);
            let site = card(&of, "m-site", &first);
            assert_eq!(site.about.get("cross_validation").is_some(), of.sequence.is_some(), "by the rule, which stays");
            assert!(site.about.get("sequence").is_none());
            let once = text(Some(&people), &of, "m-site", &first);
            let mut second = Provenance { of: "m-site".into(), early_threshold: None, ..provenance(&site) };
            second.choice.threshold = 0.123_456;
            let twice = text(Some(&once), &site, "m-there", &second);
            for (words, count) in [(SECTION, 1), (MARK, 1), ("0.123456", 1)] {
                assert_eq!(twice.matches(words).count(), count, "{name}: {words}: {twice}");
            }
            assert_eq!(twice.matches("early alerts are off").count() > 0, of.sequence.is_some(), "{name}");
        }
    }
}
