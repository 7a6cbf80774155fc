//! STAT: whose slices are scored before others.
//!
//! A site knows by the sender's AE title or by an attribute (Requested Procedure Priority (0040,1003), or what its
//! scanners are made to write) that a patient cannot wait.

use crate::config::{self, AttributeValue};
use triaged_imaging::DicomObject;
use triaged_imaging::attributes::values;

/// Which objects are STAT.
#[derive(Debug, Clone, Default)]
pub struct StatRule {
    calling_ae_titles: Vec<String>,
    attributes: Vec<AttributeValue>,
}

impl StatRule {
    pub fn new(settings: &config::Triage) -> StatRule {
        StatRule {
            calling_ae_titles: settings.stat_calling_ae_titles.clone(),
            attributes: settings.stat_attributes.clone(),
        }
    }

    /// Whether an object that this sender brought is STAT.
    pub fn is_stat(&self, calling_ae: &str, object: &DicomObject) -> bool {
        let has = |wanted: &AttributeValue| {
            values(object, wanted.tag).iter().any(|value| value.eq_ignore_ascii_case(&wanted.value))
        };
        self.calling_ae_titles.iter().any(|title| title == calling_ae) || self.attributes.iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::{DataElement, VR};
    use dicom_dictionary_std::tags;
    use triaged_imaging::phantom::{PhantomSpec, series};

    fn rule(titles: &[&str], attributes: &[&str]) -> StatRule {
        StatRule {
            calling_ae_titles: titles.iter().map(|title| title.to_string()).collect(),
            attributes: attributes.iter().map(|entry| entry.to_string().try_into().unwrap()).collect(),
        }
    }

    fn object(priority: Option<&str>) -> DicomObject {
        let mut object = series(&PhantomSpec { slices: 1, lesion: None, seed: 1 }).next().unwrap();
        if let Some(priority) = priority {
            object.put(DataElement::new(tags::REQUESTED_PROCEDURE_PRIORITY, VR::SH, priority));
        }
        object
    }

    #[test]
    fn by_sender_and_by_attribute() {
        let nobody = rule(&[], &[]);
        assert!(!nobody.is_stat("ED_CT", &object(Some("STAT"))));
        let sender = rule(&["ED_CT"], &[]);
        assert!(sender.is_stat("ED_CT", &object(None)));
        assert!(!sender.is_stat("CT2", &object(Some("STAT"))));
        for attribute in ["RequestedProcedurePriority=STAT", "0040,1003 = stat"] {
            let rule = rule(&[], &[attribute]);
            assert!(rule.is_stat("CT2", &object(Some("STAT "))), "{attribute}");
            assert!(!rule.is_stat("CT2", &object(Some("ROUTINE"))), "{attribute}");
            assert!(!rule.is_stat("CT2", &object(None)), "{attribute}");
        }
    }

    #[test]
    fn an_entry_that_names_no_attribute_is_refused() {
        for wrong in ["STAT", "NoSuchKeyword=STAT", "40,1003=STAT", "0040,100G=STAT"] {
            let refused = AttributeValue::try_from(wrong.to_owned()).unwrap_err();
            assert!(refused.contains(wrong), "{refused}");
        }
    }
}
