//! A model's figures, as its card gives them: how training went, what each study rule would give, and how well which bleeds are found.
//! Another card may have none of it; then nothing is drawn.

use serde_json::Value;

use super::plot::{Plot, PlotBar};

/// The figures of a card.
#[derive(Default)]
pub(super) struct Figures {
    /// The loss after each epoch of training.
    pub training: Option<Plot>,
    /// What each study rule gave on patients that were not trained on.
    pub rules: Vec<RulePoint>,
    /// Name, and a value with its interval for slices and for studies.
    pub measures: Vec<[String; 3]>,
    /// Kinds of bleeds: name, slices, sensitivity for slices, studies, sensitivity for studies.
    pub strata: Vec<[String; 5]>,
}

/// A study rule in the plane of sensitivity and false alarms, in percent.
pub(super) struct RulePoint {
    pub false_alarms: f64,
    pub sensitivity: f64,
    pub chosen: bool,
    pub label: String,
}

impl Figures {
    /// From the card's JSON.
    pub fn of(card: &Value) -> Figures {
        let about = &card["about"];
        let pooled = &about["cross_validation"]["pooled"];
        Figures {
            training: training(&about["training"]["history"]),
            rules: list(&about["study_rules"]).iter().filter_map(rule_point).collect(),
            measures: ["auc", "f2", "sensitivity", "specificity", "precision"]
                .into_iter()
                .filter_map(|name| {
                    let values = ["slices", "studies"].map(|of| interval(&pooled[of][name]));
                    let [slices, studies] = values;
                    (slices.is_some() || studies.is_some())
                        .then(|| [named(name).to_owned(), or_dash(slices), or_dash(studies)])
                })
                .collect(),
            strata: list(&about["strata"]).iter().filter_map(stratum).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.training.is_none() && self.rules.is_empty() && self.measures.is_empty() && self.strata.is_empty()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn named(measure: &str) -> &'static str {
    match measure {
        "auc" => "Area under the ROC curve",
        "f2" => "F2 score",
        "sensitivity" => "Sensitivity",
        "specificity" => "Specificity",
        _ => "Precision",
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".into())
}

/// A value with its interval.
fn interval(measure: &Value) -> Option<String> {
    let value = measure["value"].as_f64()?;
    match (measure["low"].as_f64(), measure["high"].as_f64()) {
        (Some(low), Some(high)) => Some(format!("{value:.3} ({low:.3} to {high:.3})")),
        _ => Some(format!("{value:.3}")),
    }
}

fn training(history: &Value) -> Option<Plot> {
    let losses: Vec<(u64, f64)> = list(history)
        .iter()
        .filter_map(|epoch| Some((epoch["epoch"].as_u64()?, epoch["loss"].as_f64().filter(|loss| loss.is_finite())?)))
        .collect();
    let highest = losses.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
    if losses.len() < 2 || highest <= 0.0 {
        return None;
    }
    let bars = losses.iter().enumerate().map(|(n, (epoch, loss))| PlotBar {
        x: n * 10,
        height: (loss * 100.0 / highest).clamp(0.0, 100.0),
        class: "negative",
        label: format!("epoch {epoch}: loss {loss:.4}"),
    });
    Some(Plot {
        title: "Training: loss by epoch".into(),
        bars: bars.collect(),
        places: losses.len(),
        highest: format!("{highest:.3}"),
        caption: format!("{} epochs, the last at {:.4}", losses.len(), losses[losses.len() - 1].1),
    })
}

fn rule_point(rule: &Value) -> Option<RulePoint> {
    let (sensitivity, specificity) = (rule["sensitivity"]["value"].as_f64()?, rule["specificity"]["value"].as_f64()?);
    let share = |value: f64| (0.0..=1.0).contains(&value);
    if !share(sensitivity) || !share(specificity) {
        return None;
    }
    let name = rule["rule"].as_str().unwrap_or("a rule");
    Some(RulePoint {
        false_alarms: (1.0 - specificity) * 100.0,
        sensitivity: sensitivity * 100.0,
        chosen: rule["chosen"] == true,
        label: format!("{name}: sensitivity {sensitivity:.3}, specificity {specificity:.3}"),
    })
}

fn stratum(stratum: &Value) -> Option<[String; 5]> {
    let count = |name: &str| stratum[name].as_u64().map_or_else(|| "–".into(), |count| count.to_string());
    let share = |name: &str| or_dash(interval(&stratum[name]));
    Some([
        stratum["name"].as_str()?.to_owned(),
        count("slices"),
        share("slice_sensitivity"),
        count("studies"),
        share("study_sensitivity"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_shipped_cards_have_figures() {
        for name in ["m10", "m11", "m12", "m12-int8", "m12-open"] {
            let path = format!("{}/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let card: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let figures = Figures::of(&card);
            assert!(figures.training.is_some(), "{name}");
            assert_eq!(figures.rules.iter().filter(|rule| rule.chosen).count(), 1, "{name}");
            assert_eq!(figures.measures[0][0], "Area under the ROC curve", "{name}");
        }
    }

    #[test]
    fn a_card_that_says_otherwise_has_none() {
        for card in
            [json!({}), json!({ "about": 7 }), json!({ "about": { "training": { "history": [{ "loss": "x" }] } } })]
        {
            assert!(Figures::of(&card).is_empty());
        }
        let odd = json!({ "about": { "study_rules": [{ "sensitivity": { "value": 7.0 }, "specificity": { "value": 0.5 } }] } });
        assert!(Figures::of(&odd).rules.is_empty());
    }
}
