//! Coded concepts (PS3.16) that the documents use, and items that hold a code.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use sha2::{Digest, Sha256};

/// A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 8.1 to 8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    value: String,
    scheme: &'static str,
    meaning: String,
}

/// A code of the DICOM Controlled Terminology (PS3.16 annex D).
pub(super) fn dcm(value: &str, meaning: &str) -> Code {
    Code { value: value.into(), scheme: "DCM", meaning: meaning.into() }
}

/// A SNOMED CT code.
pub(super) fn sct(value: &str, meaning: &str) -> Code {
    Code { value: value.into(), scheme: "SCT", meaning: meaning.into() }
}

/// The imaging procedure. TID 1500 takes one of CID 100, which has none for the head; Target Region names that.
pub(super) fn computed_tomography() -> Code {
    Code { value: "25045-6".into(), scheme: "LN", meaning: "CT unspecified body region".into() }
}

/// The language of everything that the node writes.
pub(super) fn english() -> Code {
    Code { value: "en".into(), scheme: "RFC5646", meaning: "English".into() }
}

/// The container of evaluations in words (TID 1500).
pub(super) fn qualitative_evaluations() -> Code {
    Code { value: "C0034375".into(), scheme: "UMLS", meaning: "Qualitative Evaluations".into() }
}

pub(super) fn percent() -> Code {
    Code { value: "%".into(), scheme: "UCUM", meaning: "Percent".into() }
}

/// The designator of the node's own codes, which the document explains ([`own_scheme`]).
const OWN: &str = "99TRIAGED";

/// The evaluation of a study that was not flagged. SNOMED CT's "absent" would be a clearance for every program that reads the code
/// and not its meaning, and its "indeterminate" is said of what could not be judged. So it has a code of its own: a program that
/// does not know the code shows the meaning, and counts it as neither.
pub(super) fn not_flagged() -> Code {
    Code { value: "NOT-FLAGGED".into(), scheme: OWN, meaning: "Not flagged".into() }
}

/// The item of Coding Scheme Identification Sequence (PS3.3 C.12.1.1.1) that explains the node's own codes.
pub(super) fn own_scheme() -> InMemDicomObject {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    InMemDicomObject::from_element_iter([
        text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, OWN),
        text(tags::CODING_SCHEME_NAME, VR::ST, "Private codes of the program triaged"),
        text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, "triaged"),
    ])
}

/// The code of a positive result, as the model card words it. A finding that has no code here gets one of the node's own.
pub(super) fn finding(words: &str) -> Code {
    match words.trim().to_lowercase().as_str() {
        "intracranial hemorrhage" | "intracranial haemorrhage" => sct("1386000", "Intracranial hemorrhage"),
        other => {
            // Code Value has 16 characters.
            let value = hex::encode(&Sha256::digest(other.as_bytes())[..8]);
            let meaning: String = other.chars().filter(|c| c.is_ascii() && !c.is_control()).take(64).collect();
            let meaning = if meaning.trim().is_empty() { "finding of the model".into() } else { meaning };
            Code { value, scheme: OWN, meaning: meaning.replace('\\', "/") }
        }
    }
}

impl Code {
    /// The item of a code sequence.
    pub fn item(&self) -> InMemDicomObject {
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        InMemDicomObject::from_element_iter([
            text(tags::CODE_VALUE, VR::SH, &self.value),
            text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, self.scheme),
            text(tags::CODE_MEANING, VR::LO, &self.meaning),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_without_a_code_gets_a_valid_one_of_its_own() {
        assert_eq!(finding("Intracranial hemorrhage").value, "1386000");
        let own = finding("large vessel occlusion\\x");
        assert_eq!((own.scheme, own.value.len(), own.meaning.as_str()), (OWN, 16, "large vessel occlusion/x"));
        assert_eq!(own, finding("large vessel occlusion\\x"));
        assert!(!finding("\u{0}é").meaning.is_empty());
    }
}
