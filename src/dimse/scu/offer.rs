//! Presentation contexts: what is offered for a set of objects, and which accepted one carries an object.

use std::collections::BTreeMap;

use dicom_dictionary_std::uids;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::find::Object;

/// A presentation context that the peer accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub id: u8,
    pub abstract_syntax: String,
    pub transfer_syntax: String,
}

/// Presentation context IDs are the odd numbers of a byte (PS3.8 9.3.2.2).
const MOST_CONTEXTS: usize = 128;

/// Transfer syntaxes that objects may be converted to, best first.
const FALLBACKS: [&str; 2] = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN];

/// The presentation contexts for a set of objects: a pair of SOP class and transfer syntax each, so that the peer cannot
/// choose among syntaxes but says for each whether it takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    contexts: Vec<(String, String)>,
}

impl Offer {
    /// Each object's own syntax, then the uncompressed ones for each SOP class. Where that is more than an association
    /// can carry, the pairs of the most objects go first.
    pub fn of(objects: &[Object]) -> Offer {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
        for object in objects {
            *pairs.entry((&object.sop_class_uid, &object.transfer_syntax)).or_default() += 1;
            *classes.entry(&object.sop_class_uid).or_default() += 1;
        }
        let mut own: Vec<((&str, &str), usize)> = pairs.into_iter().collect();
        own.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let mut classes: Vec<(&str, usize)> = classes.into_iter().collect();
        classes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));

        let own = own.into_iter().map(|(pair, _)| pair);
        // Implicit VR Little Endian is the one that every peer must take (PS3.5 10.1), so it goes first here.
        let fallbacks =
            FALLBACKS.iter().rev().flat_map(|syntax| classes.iter().map(move |&(class, _)| (class, *syntax)));
        let mut contexts: Vec<(String, String)> = Vec::new();
        for (class, syntax) in own.chain(fallbacks) {
            if contexts.len() == MOST_CONTEXTS {
                break;
            }
            if !contexts.iter().any(|(c, s)| c == class && s == syntax) {
                contexts.push((class.to_owned(), syntax.to_owned()));
            }
        }
        Offer { contexts }
    }

    /// Pairs of SOP class and transfer syntax; the n-th has the ID 2n+1.
    pub fn contexts(&self) -> &[(String, String)] {
        &self.contexts
    }
}

/// How an object is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub context: u8,
    pub transfer_syntax: String,
}

/// The accepted context for an object: its own syntax if it can be, else an uncompressed one. `Err` says why not.
pub(super) fn choose(object: &Object, accepted: &[Accepted]) -> Result<Choice, String> {
    let of_class = || accepted.iter().filter(|context| context.abstract_syntax == object.sop_class_uid);
    for syntax in std::iter::once(object.transfer_syntax.as_str()).chain(FALLBACKS) {
        if let Some(context) = of_class().find(|context| context.transfer_syntax == syntax) {
            return Ok(Choice { context: context.id, transfer_syntax: syntax.to_owned() });
        }
    }
    Err(match of_class().next() {
        None => format!("the peer accepts no {}", class_name(&object.sop_class_uid)),
        Some(_) => format!(
            "the peer accepts {} neither in {} nor uncompressed",
            class_name(&object.sop_class_uid),
            syntax_name(&object.transfer_syntax)
        ),
    })
}

/// The SOP classes of an offer, for people.
pub(super) fn in_words(contexts: &[(String, String)]) -> String {
    let mut names: Vec<String> = contexts.iter().map(|(class, _)| class_name(class)).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(4);
    names.truncate(4);
    let names = names.join(", ");
    if more > 0 { format!("{names} and {more} more SOP classes") } else { names }
}

/// The classes that people know by name; the dictionary of all would be one more table in the program.
fn class_name(uid: &str) -> String {
    match uid {
        uids::VERIFICATION => "Verification".into(),
        uids::CT_IMAGE_STORAGE => "CT Image Storage".into(),
        uids::ENHANCED_CT_IMAGE_STORAGE => "Enhanced CT Image Storage".into(),
        uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE => "Legacy Converted Enhanced CT Image Storage".into(),
        uids::MR_IMAGE_STORAGE => "MR Image Storage".into(),
        uids::SECONDARY_CAPTURE_IMAGE_STORAGE => "Secondary Capture Image Storage".into(),
        uids::X_RAY_RADIATION_DOSE_SR_STORAGE => "X-Ray Radiation Dose SR Storage".into(),
        uids::ENCAPSULATED_PDF_STORAGE => "Encapsulated PDF Storage".into(),
        _ => format!("SOP class {uid}"),
    }
}

pub(super) fn syntax_name(uid: &str) -> String {
    TransferSyntaxRegistry.get(uid).map_or_else(|| format!("transfer syntax {uid}"), |syntax| syntax.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(class: &str, syntax: &str) -> Object {
        Object {
            path: "x".into(),
            bytes: None,
            sop_class_uid: class.into(),
            sop_instance_uid: "1".into(),
            transfer_syntax: syntax.into(),
        }
    }

    #[test]
    fn an_offer_has_each_objects_own_syntax_and_both_uncompressed_ones() {
        let objects = vec![object(uids::CT_IMAGE_STORAGE, uids::JPEG_LOSSLESS_SV1); 3];
        let offer = Offer::of(&objects);
        let syntaxes: Vec<&str> = offer.contexts().iter().map(|(_, syntax)| syntax.as_str()).collect();
        assert_eq!(
            syntaxes,
            [uids::JPEG_LOSSLESS_SV1, uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN]
        );
        let plain = Offer::of(&[object(uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN)]);
        assert_eq!(plain.contexts().len(), 2);
    }

    #[test]
    fn an_offer_never_exceeds_what_an_association_carries_and_keeps_the_most_wanted() {
        let mut objects: Vec<Object> =
            (0..200).map(|n| object(&format!("1.2.{n}"), uids::EXPLICIT_VR_LITTLE_ENDIAN)).collect();
        objects.push(object("1.2.199", uids::EXPLICIT_VR_LITTLE_ENDIAN));
        let offer = Offer::of(&objects);
        assert_eq!(offer.contexts().len(), 128);
        assert_eq!(offer.contexts()[0].0, "1.2.199");
    }

    #[test]
    fn an_object_goes_as_it_is_where_it_may_and_uncompressed_where_it_must() {
        let context = |id, syntax: &str| Accepted {
            id,
            abstract_syntax: uids::CT_IMAGE_STORAGE.into(),
            transfer_syntax: syntax.into(),
        };
        let jpeg = object(uids::CT_IMAGE_STORAGE, uids::JPEG_LOSSLESS_SV1);
        let all = [
            context(1, uids::IMPLICIT_VR_LITTLE_ENDIAN),
            context(3, uids::EXPLICIT_VR_LITTLE_ENDIAN),
            context(5, uids::JPEG_LOSSLESS_SV1),
        ];
        assert_eq!(choose(&jpeg, &all).unwrap().context, 5);
        assert_eq!(choose(&jpeg, &all[..2]).unwrap().context, 3);
        assert_eq!(choose(&jpeg, &all[..1]).unwrap().context, 1);
        assert!(choose(&jpeg, &[]).unwrap_err().contains("CT Image Storage"));
        assert!(choose(&object(uids::MR_IMAGE_STORAGE, uids::JPEG_LOSSLESS_SV1), &all).is_err());
    }
}
