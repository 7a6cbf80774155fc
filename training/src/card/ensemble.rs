//! Several trainings of one network in one file.

use serde::{Deserialize, Serialize};

use crate::fit::Member;
use crate::metrics::Interval;

/// The networks whose logits' mean a file gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// The model's name.
    pub name: String,
    pub members: Vec<Member>,
}

impl Ensemble {
    /// For people.
    pub fn text(&self) -> String {
        format!(
            "The file holds {} networks that were trained by the recipe independently of each other ({}); the probability is that of the \
             mean of their logits. For the figures below each patient was scored by the mean of those networks, one of each training's folds, \
             that have not seen them. Under Training stands the first.",
            self.members.len(),
            members(&self.members)
        )
    }
}

/// Of a network with the mean weights of several, for people.
pub fn mean_of(members: &[Member]) -> String {
    if let [member] = members {
        return format!(
            "The statistics that the network's layers normalise by were taken anew after its training ({}), on draws of the training side; so \
             were those of the networks by which each patient was scored for the figures below, one of the training's folds, that have not seen them.",
            self::members(std::slice::from_ref(member))
        );
    }
    format!(
        "The network has the mean of the weights of {} networks that began with the same weights and were trained by the recipe independently of \
         each other ({}); the statistics that its layers normalise by were taken anew, on draws of the training side. For the figures \
         below each patient was scored by such a mean of those networks, one of each training's folds, that have not seen them. Under Training \
         stands the first.",
        members.len(),
        self::members(members)
    )
}

/// The trainings, each in a line for people.
fn members(members: &[Member]) -> String {
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
    members.iter().map(member).collect::<Vec<_>>().join("; ")
}
