//! Several trainings of one network in one file.

use serde::{Deserialize, Serialize};

use crate::metrics::Interval;

/// The networks whose logits' mean a file gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// The model's name.
    pub name: String,
    pub members: Vec<Member>,
}

/// One training, and what its folds say alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Whether it has not seen the patients of one fold; else it was trained on all.
    #[serde(default)]
    pub is_of_a_fold: bool,
    pub epochs: usize,
    pub draws_per_epoch: Option<usize>,
    pub seed: u64,
    pub seconds: f64,
    /// The sources that it was only trained on, beside those that are measured.
    #[serde(default)]
    pub train_only: Vec<String>,
    pub slice_auc: Option<Interval>,
    /// By the study rule that its own folds chose.
    pub study_auc: Option<Interval>,
}

impl Ensemble {
    /// For people.
    pub fn text(&self) -> String {
        let auc = |auc: Option<Interval>| auc.map_or("one class only".into(), |auc| format!("{:.3}", auc.value));
        let member = |member: &Member| {
            let draws = member.draws_per_epoch.map_or("every slice".into(), |draws| format!("{draws} draws"));
            let with = match member.train_only.is_empty() {
                true => String::new(),
                false => format!(", trained on {} beside the patients below", member.train_only.join(", ")),
            };
            format!(
                "{} epochs of {draws}{}{with}, {:.0} s, out of fold alone a slice AUC of {} and a study AUC of {}",
                member.epochs,
                if member.is_of_a_fold { " on all patients but one fold's" } else { "" },
                member.seconds,
                auc(member.slice_auc),
                auc(member.study_auc)
            )
        };
        let members: Vec<String> = self.members.iter().map(member).collect();
        format!(
            "The file holds {} networks that were trained by the recipe independently of each other ({}); the probability is that of the \
             mean of their logits. For the figures below each patient was scored by the mean of those networks, one of each training's folds, \
             that have not seen them. Under Training stands the first.",
            self.members.len(),
            members.join("; ")
        )
    }
}
