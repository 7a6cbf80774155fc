//! Which part of the body a slice shows, by its codes and words.
//!
//! Codes (Anatomic Region Sequence, Frame Anatomy Sequence) decide. Words do not: a head is sent as CHEST, and WHOLEBODY or
//! TRAUMA may hold one, so a word that names no head has the pixels looked at.

use std::collections::HashMap;
use std::sync::LazyLock;

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use triaged_imaging::attributes::text;

use super::frame::Frame;
use super::words::{Part, names_another_part, part};
use super::{Decision, NOT_THE_HEAD, shown};
use crate::config;

/// `conf/anatomic-regions.csv`: the codes of CID 4 (PS3.16) and those that earlier editions had, by SNOMED CT and by SNOMED RT.
const REGIONS: &str = include_str!("../../../conf/anatomic-regions.csv");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Region {
    Head,
    /// It may hold the head, or be a part of it in whose images the brain is cut off.
    Pixels,
    Phantom,
    Other,
}

/// By code value, of either scheme: SNOMED CT's are numbers, SNOMED RT's are not.
static BY_CODE: LazyLock<HashMap<&'static str, (Region, &'static str)>> = LazyLock::new(|| {
    let mut regions = HashMap::new();
    for line in REGIONS.lines().skip(1) {
        let mut fields = line.splitn(4, ',');
        let mut next = || fields.next().unwrap_or("");
        let (kind, sct, srt, meaning) = (next(), next(), next(), next());
        let region = match kind {
            "head" => Region::Head,
            "pixels" => Region::Pixels,
            "phantom" => Region::Phantom,
            _ => Region::Other,
        };
        for code in [sct, srt].into_iter().filter(|code| !code.is_empty()) {
            regions.insert(code, (region, meaning));
        }
    }
    regions
});

pub(super) fn decide(frame: &Frame, rules: &config::Gate) -> Decision {
    let coded = coded(frame);
    let words = frame.text(tags::FRAME_ANATOMY_SEQUENCE, tags::BODY_PART_EXAMINED);
    let worded = words.as_deref().map(|words| part(words, &rules.head_words));
    let body_part = || format!("body part {}", shown(words.as_deref().unwrap_or_default()));
    if coded.iter().any(|(region, _)| *region == Region::Phantom) || worded == Some(Part::Phantom) {
        return Decision::Out("a phantom for quality checks, by its anatomic region or body part".into());
    }
    if coded.iter().any(|(region, _)| *region == Region::Head) {
        return Decision::Triage;
    }
    if let Some((_, meaning)) = coded.iter().find(|(region, _)| *region == Region::Other) {
        let claim = format!("anatomic region {meaning}");
        // Two attributes that contradict each other: neither is believed.
        return if worded == Some(Part::Head) {
            Decision::Look(claim)
        } else {
            Decision::Out(format!("{NOT_THE_HEAD}: {claim}"))
        };
    }
    match (worded, coded.first()) {
        (Some(Part::Head), _) => Decision::Triage,
        (Some(Part::Other), _) => Decision::Look(body_part()),
        (_, Some((_, meaning))) => Decision::Look(format!("anatomic region {meaning}")),
        (_, None) => described(frame, rules),
    }
}

/// The regions that codes name; codes that are not known here count as absent.
fn coded(frame: &Frame) -> Vec<(Region, &'static str)> {
    let anatomy = frame.macros(tags::FRAME_ANATOMY_SEQUENCE);
    let places = anatomy.chain(std::iter::once(&**frame.object()));
    let items = |place: &InMemDicomObject| {
        let items = place.get(tags::ANATOMIC_REGION_SEQUENCE).and_then(|element| element.items());
        items.unwrap_or_default().iter().filter_map(region).collect::<Vec<_>>()
    };
    places.map(items).find(|regions| !regions.is_empty()).unwrap_or_default()
}

fn region(code: &InMemDicomObject) -> Option<(Region, &'static str)> {
    let value = text(code, tags::CODE_VALUE).or_else(|| text(code, tags::LONG_CODE_VALUE))?;
    let scheme = text(code, tags::CODING_SCHEME_DESIGNATOR).unwrap_or_default();
    let snomed = matches!(scheme.to_ascii_uppercase().as_str(), "SCT" | "SRT" | "SNM3" | "99SDM" | "");
    BY_CODE.get(value.as_str()).copied().filter(|_| snomed)
}

/// Without codes and body part, a description that names another part has the pixels looked at.
fn described(frame: &Frame, rules: &config::Gate) -> Decision {
    for (tag, name) in [
        (tags::SERIES_DESCRIPTION, "series description"),
        (tags::PROTOCOL_NAME, "protocol"),
        (tags::STUDY_DESCRIPTION, "study description"),
    ] {
        if let Some(description) = text(frame.object(), tag) {
            if names_another_part(&description, &rules.head_words) {
                return Decision::Look(format!("{name} {}", shown(&description)));
            }
            if part(&description, &rules.head_words) == Part::Head {
                return Decision::Triage;
            }
        }
    }
    Decision::Triage
}
