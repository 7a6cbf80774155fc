//! A model as a department sees it: alerts, false alarms and missed bleeds among a hundred studies, at a share of
//! bleeding ones that is usual there and not that of the data.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::evaluation::ROUNDS;
use crate::metrics::{Case, Interval};

/// About one of ten head CT studies of an emergency department bleeds.
pub const PREVALENCE: f64 = 0.1;

/// Numbers per hundred studies, `prevalence` of which bleed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Department {
    pub prevalence: f64,
    pub alerts: Interval,
    pub false_alarms: Interval,
    pub missed: Interval,
}

impl Department {
    /// From patients' studies, each scored 1 where it was flagged and 0 where not; intervals from bootstrap samples of
    /// whole patients. None where there are not both classes.
    pub fn of(patients: &[Vec<Case>], seed: u64) -> Option<Self> {
        let all: Vec<&Vec<Case>> = patients.iter().collect();
        let [alerts, false_alarms, missed] = numbers(&all)?;
        let mut samples: [Vec<f64>; 3] = Default::default();
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..ROUNDS {
            let drawn: Vec<&Vec<Case>> =
                (0..patients.len()).map(|_| &patients[rng.random_range(0..patients.len())]).collect();
            if let Some(drawn) = numbers(&drawn) {
                samples.iter_mut().zip(drawn).for_each(|(samples, value)| samples.push(value));
            }
        }
        let [of_alerts, of_false, of_missed] = samples;
        let with = |class: bool| patients.iter().filter(|own| own.iter().any(|case| case.positive == class)).count();
        let (bleeding, others) = (100.0 * PREVALENCE, 100.0 * (1.0 - PREVALENCE));
        // As of the shares themselves: of few patients the bootstrap is too narrow.
        let widened = |value: f64, samples: Vec<f64>, whole: f64, patients: usize| {
            let Interval { value, low, high } = Interval::of(value, samples);
            let share = Interval { value: value / whole, low: low / whole, high: high / whole }.widened(patients);
            Interval { value, low: share.low * whole, high: share.high * whole }
        };
        let false_alarms = widened(false_alarms, of_false, others, with(false));
        let missed = widened(missed, of_missed, bleeding, with(true));
        let mut alerts = Interval::of(alerts, of_alerts);
        // More misses are fewer alerts, more false alarms are more.
        alerts.low = alerts.low.min(alerts.value + missed.value - missed.high);
        alerts.high = alerts.high.max(alerts.value + false_alarms.high - false_alarms.value);
        Some(Self { prevalence: PREVALENCE, alerts, false_alarms, missed })
    }

    /// A sentence for people.
    pub fn text(&self) -> String {
        let number = |i: Interval| format!("{:.1} ({:.1} to {:.1})", i.value, i.low, i.high);
        format!(
            "In a department where {:.0} of 100 studies bleed and are as those here, 100 studies would give {} alerts, {} of \
             them false, and {} bleeding studies would not be flagged.",
            100.0 * self.prevalence,
            number(self.alerts),
            number(self.false_alarms),
            number(self.missed)
        )
    }
}

/// Alerts, false alarms and missed bleeds. None where there are not both classes.
fn numbers(patients: &[&Vec<Case>]) -> Option<[f64; 3]> {
    let share = |positive: bool| {
        let own: Vec<f64> = patients
            .iter()
            .copied()
            .flatten()
            .filter(|case| case.positive == positive)
            .map(|case| case.score)
            .collect();
        (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
    };
    let (bleeding, others) = (100.0 * PREVALENCE, 100.0 * (1.0 - PREVALENCE));
    let (found, false_alarms) = (bleeding * share(true)?, others * share(false)?);
    Some([found + false_alarms, false_alarms, bleeding - found])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_departments_share_and_not_of_the_datas() {
        let case = |flagged: bool, positive| vec![Case { score: f64::from(u8::from(flagged)), positive }];
        // Four of five bleeding studies flagged, one of four others.
        let bleeding = (0..5).map(|i| case(i > 0, true));
        let patients: Vec<Vec<Case>> = bleeding.chain((0..4).map(|i| case(i == 0, false))).collect();
        let found = Department::of(&patients, 1).expect("both classes");
        let near = |interval: Interval, value: f64| {
            assert!((interval.value - value).abs() < 1e-9, "{interval:?}");
            assert!(interval.low <= value && value <= interval.high, "{interval:?}");
        };
        near(found.false_alarms, 22.5);
        near(found.missed, 2.0);
        near(found.alerts, 30.5);
        assert!(found.text().contains("where 10 of 100 studies bleed"), "{}", found.text());
        assert_eq!(Department::of(&patients[..5], 1), None);
    }
}
