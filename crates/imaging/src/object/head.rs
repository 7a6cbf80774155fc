//! The header of an element: tag, VR and length (PS3.5 section 7.1), in all the forms in which it is written.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Length, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

/// Group of the item and delimitation tags (PS3.5 section 7.5).
pub(super) const DELIMITERS: u16 = 0xFFFE;
pub(super) const ITEM: Tag = Tag(DELIMITERS, 0xE000);
pub(super) const ITEM_END: Tag = Tag(DELIMITERS, 0xE00D);
pub(super) const SEQUENCE_END: Tag = Tag(DELIMITERS, 0xE0DD);

/// A header as it was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head {
    pub tag: Tag,
    pub vr: VR,
    pub length: Length,
    /// Bytes of the header itself.
    pub size: u64,
}

impl Head {
    /// The byte behind the value of the element that begins at byte `at`; `None` if its length is undefined.
    pub fn end(&self, at: u64) -> Option<u64> {
        self.length.get().map(|length| at + self.size + u64::from(length))
    }
}

/// How a header can be written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// Explicit VR, one that the standard knows.
    Explicit,
    /// No VR and a length of 32 bits.
    Implicit,
    /// Two bytes that are no VR, and a length of 16 bits.
    UnknownShort,
    /// Two bytes that are no VR, two of padding, and a length of 32 bits. PS3.5 section 7.1.2 gives this form to all VRs to come.
    UnknownLong,
    /// A VR whose length has 32 bits, written with one of 16 bits, as toolkits of before 1995 did.
    Narrow,
}

/// A header of that form at the begin of `bytes`.
pub(super) fn parse(bytes: &[u8], form: Form, big: bool) -> Option<Head> {
    let short = |at: usize| {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let tag = Tag(short(0)?, short(2)?);
    let known = VR::from_binary([*bytes.get(4)?, *bytes.get(5)?]);
    let (vr, length, size) = match (form, known) {
        (Form::Implicit, _) => (dictionary_vr(tag), long(4)?, 8),
        (Form::Explicit, Some(vr)) if is_long(vr) => (vr, long(8)?, 12),
        (Form::Explicit, Some(vr)) => (vr, short(6)?.into(), 8),
        (Form::Narrow, Some(vr)) if is_long(vr) && short(6)? != 0 => (vr, short(6)?.into(), 8),
        (Form::UnknownShort, None) => (dictionary_vr(tag), short(6)?.into(), 8),
        (Form::UnknownLong, None) if short(6)? == 0 => (dictionary_vr(tag), long(8)?, 12),
        _ => return None,
    };
    Some(Head { tag, vr, length: Length(length), size })
}

/// Whether the length of an element of this VR has 32 bits in explicit VR.
pub(super) fn is_long(vr: VR) -> bool {
    use VR::{OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV};
    matches!(vr, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
}

/// The VR of an element that does not say it; `UN` if the dictionary does not know the tag.
pub(super) fn dictionary_vr(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// Whether the dictionary knows the tag.
pub(super) fn is_known(tag: Tag) -> bool {
    StandardDataDictionary.by_tag(tag).is_some()
}

/// Whether an element of this VR is what the dictionary expects at the tag.
pub(super) fn agrees(tag: Tag, vr: VR) -> bool {
    let Some(entry) = StandardDataDictionary.by_tag(tag) else { return false };
    match entry.vr() {
        VirtualVr::Exact(expected) => vr == expected || vr == VR::UN,
        _ => matches!(vr, VR::US | VR::SS | VR::OW | VR::OB | VR::UN),
    }
}

/// Whether the node takes anything from the element: such an element is never left out, whatever is wrong with it.
///
/// The rescale of an enhanced object is in its functional groups; without them its pixels would silently be others.
pub(super) fn is_used(tag: Tag) -> bool {
    let image = matches!(tag.group(), 0x0028 | 0x5200 | 0x7FE0);
    image
        || matches!(
            tag,
            tags::SPECIFIC_CHARACTER_SET
                | tags::IMAGE_TYPE
                | tags::SOP_CLASS_UID
                | tags::SOP_INSTANCE_UID
                | tags::STUDY_DATE
                | tags::ACCESSION_NUMBER
                | tags::MODALITY
                | tags::ANATOMIC_REGION_SEQUENCE
                | tags::PATIENT_NAME
                | tags::PATIENT_ID
                | tags::PATIENT_BIRTH_DATE
                | tags::PATIENT_AGE
                | tags::BODY_PART_EXAMINED
                | tags::SLICE_THICKNESS
                | tags::KVP
                | tags::STUDY_INSTANCE_UID
                | tags::SERIES_INSTANCE_UID
                | tags::INSTANCE_NUMBER
                | tags::IMAGE_POSITION_PATIENT
                | tags::IMAGE_ORIENTATION_PATIENT
        )
}
