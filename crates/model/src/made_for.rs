//! The acquisitions that a model was made for, and that its verdicts hold for. The node's acquisition gate reads them from the card.

use serde::{Deserialize, Serialize};

/// The acquisitions a model was made for. Every field has a default, which a card without it gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MadeFor {
    /// A series of fewer slices can flag a study, but not leave it unflagged.
    pub min_slices: u32,
    /// So much of the body's length, in mm, a series must cover to leave a study unflagged. A head takes 120 to 180 mm, an
    /// infant's from 90.
    pub min_coverage_mm: f64,
    /// Slice Thickness in mm. A series with thicker slices can flag a study, but not leave it unflagged; one with thinner
    /// slices is marked as doubtful.
    pub min_thickness_mm: f64,
    pub max_thickness_mm: f64,
    /// Between the planes of neighbouring slices, in mm. A series whose slices lie further apart can flag a study, but not
    /// leave it unflagged.
    pub max_spacing_mm: f64,
    /// Slices of younger patients are not triaged.
    pub min_age_years: f64,
    /// Slices of other tube voltages are not triaged.
    pub min_kvp: f64,
    pub max_kvp: f64,
    /// Series with contrast agent.
    pub contrast: Tolerance,
    /// Series that were reconstructed with a kernel for bone or lung.
    pub sharp_kernel: Tolerance,
}

/// How a series is treated that has something the model may not have been made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// As any other.
    Allowed,
    /// Scored and marked, and judged only where the study has no series without it.
    Doubtful,
    /// Not triaged.
    Excluded,
}

impl Default for MadeFor {
    fn default() -> MadeFor {
        MadeFor {
            min_slices: 8,
            min_coverage_mm: 90.0,
            min_thickness_mm: 0.0,
            max_thickness_mm: 10.0,
            max_spacing_mm: 10.0,
            min_age_years: 0.0,
            min_kvp: 70.0,
            max_kvp: 150.0,
            contrast: Tolerance::Doubtful,
            sharp_kernel: Tolerance::Doubtful,
        }
    }
}

impl MadeFor {
    /// Whether a card need not say it.
    pub fn is_default(&self) -> bool {
        *self == MadeFor::default()
    }

    /// Whether its numbers make sense.
    pub fn check(&self) -> Result<(), String> {
        let ranges =
            [("thickness_mm", self.min_thickness_mm, self.max_thickness_mm), ("kvp", self.min_kvp, self.max_kvp)];
        for (name, min, max) in ranges {
            // Not `min > max`: that is false of a number that is none.
            if !(0.0 <= min && min <= max && max.is_finite()) {
                return Err(format!("made_for: min_{name} {min} and max_{name} {max} are no range"));
            }
        }
        for (name, value) in [
            ("min_coverage_mm", self.min_coverage_mm),
            ("max_spacing_mm", self.max_spacing_mm),
            ("min_age_years", self.min_age_years),
        ] {
            if !(0.0 <= value && value.is_finite()) {
                return Err(format!("made_for: {name} {value} is not a number from 0"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_only_what_differs() {
        assert_eq!(serde_json::from_str::<MadeFor>("{}").expect("all defaults"), MadeFor::default());
        let card = r#"{"min_age_years": 18, "contrast": "excluded"}"#;
        let made_for: MadeFor = serde_json::from_str(card).expect("two fields");
        assert_eq!(made_for.min_age_years, 18.0);
        assert_eq!(made_for.contrast, Tolerance::Excluded);
        assert!(made_for.check().is_ok() && !made_for.is_default());
        assert!(serde_json::from_str::<MadeFor>(r#"{"age": 18}"#).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let nonsense = [
            MadeFor { min_thickness_mm: 6.0, max_thickness_mm: 5.0, ..MadeFor::default() },
            MadeFor { max_kvp: f64::NAN, ..MadeFor::default() },
            MadeFor { min_coverage_mm: -1.0, ..MadeFor::default() },
            MadeFor { max_spacing_mm: f64::INFINITY, ..MadeFor::default() },
        ];
        for made_for in nonsense {
            assert!(made_for.check().is_err(), "{made_for:?}");
        }
    }
}
