//! The structured report: Comprehensive 3D SR by template 1500, as IHE AI Results (AIR) asks for a qualitative finding and for
//! regions.

use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::algorithm::algorithm;
use super::codes::{
    Code, computed_tomography, dcm, english, finding, not_flagged, own_scheme, qualitative_evaluations, sct,
};
use super::content::{Item, Relationship, put_items, put_text, reference};
use super::words::sentences;
use super::{Basis, Moment, regions, uids};
use crate::ledger::EvidenceSlice;

/// Comprehensive 3D SR Storage.
pub(super) const SOP_CLASS: &str = "1.2.840.10008.5.1.4.1.1.88.34";

/// Series Number of all reports: a viewer that sorts by it shows them behind the images.
const SERIES_NUMBER: &str = "9901";

/// The word that makes their UIDs differ from those of other documents.
const KIND: &str = "report";

/// Makes the report of a verdict.
pub(super) fn report(basis: &Basis<'_>) -> InMemDicomObject {
    let verdict = basis.verdict;
    let mut object = basis.context.clone();
    basis.put_common(&mut object, SOP_CLASS, &uids::instance(KIND, verdict));
    let moment = Moment::of(&verdict.decided_at, basis.zone);
    let text = put_text;
    put_items(&mut object, tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, vec![own_scheme()]);
    text(&mut object, tags::MODALITY, VR::CS, "SR");
    text(&mut object, tags::SERIES_INSTANCE_UID, VR::UI, &uids::series(KIND, basis.first));
    text(&mut object, tags::SERIES_NUMBER, VR::IS, SERIES_NUMBER);
    text(&mut object, tags::SERIES_DESCRIPTION, VR::LO, "triaged report, for prioritisation only");
    put_items(&mut object, tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, vec![]);
    text(&mut object, tags::INSTANCE_NUMBER, VR::IS, &basis.ordinal.to_string());
    text(&mut object, tags::CONTENT_DATE, VR::DA, &moment.date);
    text(&mut object, tags::CONTENT_TIME, VR::TM, &moment.time);
    // A machine's word is preliminary until a person reports, as in HL7 (P, never F).
    text(&mut object, tags::PRELIMINARY_FLAG, VR::CS, "PRELIMINARY");
    text(&mut object, tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED");
    text(&mut object, tags::COMPLETION_FLAG, VR::CS, if verdict.provisional { "PARTIAL" } else { "COMPLETE" });
    if verdict.provisional {
        text(&mut object, tags::COMPLETION_FLAG_DESCRIPTION, VR::LO, "The study was still being received");
    }
    put_items(&mut object, tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![]);
    if let Some(predecessor) = basis.predecessor {
        let series = uids::series(KIND, basis.first);
        let instance = reference(SOP_CLASS, &uids::instance(KIND, predecessor), None);
        let study = of_study(&verdict.study_uid, vec![of_series(&series, vec![instance])]);
        put_items(&mut object, tags::PREDECESSOR_DOCUMENTS_SEQUENCE, vec![study]);
    }
    let evidence = evidence(basis);
    if !evidence.is_empty() {
        let study = of_study(&verdict.study_uid, evidence);
        put_items(&mut object, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![study]);
    }
    for element in tree(basis).into_object() {
        object.put(element);
    }
    object
}

/// The series with the instances that the verdict rests on: those that were scored, or all where none was.
fn evidence(basis: &Basis<'_>) -> Vec<InMemDicomObject> {
    let scored = basis.slices.iter().any(|slice| slice.probability.is_some());
    let mut all: Vec<(&str, Vec<InMemDicomObject>)> = Vec::new();
    let mut last = None;
    for slice in basis.slices.iter().filter(|slice| !scored || slice.probability.is_some()) {
        let instance = (&slice.series_uid, &slice.sop_uid);
        if last == Some(instance) {
            continue;
        }
        last = Some(instance);
        let item = reference(&slice.sop_class_uid, &slice.sop_uid, None);
        match all.last_mut() {
            Some((series, items)) if *series == slice.series_uid => items.push(item),
            _ => all.push((&slice.series_uid, vec![item])),
        }
    }
    all.into_iter().map(|(series, items)| of_series(series, items)).collect()
}

fn of_study(study_uid: &str, series: Vec<InMemDicomObject>) -> InMemDicomObject {
    let mut study = InMemDicomObject::new_empty();
    put_items(&mut study, tags::REFERENCED_SERIES_SEQUENCE, series);
    put_text(&mut study, tags::STUDY_INSTANCE_UID, VR::UI, study_uid);
    study
}

fn of_series(series_uid: &str, instances: Vec<InMemDicomObject>) -> InMemDicomObject {
    let mut series = InMemDicomObject::new_empty();
    put_items(&mut series, tags::REFERENCED_SOP_SEQUENCE, instances);
    put_text(&mut series, tags::SERIES_INSTANCE_UID, VR::UI, series_uid);
    series
}

/// The content tree: TID 1500.
fn tree(basis: &Basis<'_>) -> Item {
    let device = [
        Item::code(&dcm("121005", "Observer Type"), &dcm("121007", "Device")),
        Item::uid(&dcm("121012", "Device Observer UID"), &uids::uid(&["device", &basis.verdict.model_sha256])),
        Item::text(&dcm("121013", "Device Observer Name"), "triaged"),
        Item::text(&dcm("121014", "Device Observer Manufacturer"), super::MANUFACTURER),
        Item::text(&dcm("121015", "Device Observer Model Name"), &basis.verdict.model),
    ];
    let comments = sentences(basis.verdict, basis.finding, basis.was_flagged, &basis.top());
    let comments = comments.iter().map(|sentence| Item::text(&dcm("121106", "Comment"), sentence));
    let measurements = Item::container(&dcm("126010", "Imaging Measurements"), None)
        .with(Relationship::Contains, [measurement_group(basis)])
        .with(Relationship::Contains, regions::groups(basis));
    let evaluations = Item::container(&qualitative_evaluations(), None).with(Relationship::Contains, comments);
    Item::container(&dcm("126000", "Imaging Measurement Report"), Some("1500"))
        .with(
            Relationship::HasConceptModifier,
            [Item::code(&dcm("121049", "Language of Content Item and Descendants"), &english())],
        )
        .with(Relationship::HasObservationContext, device)
        .with(
            Relationship::HasConceptModifier,
            [Item::code(&dcm("121058", "Procedure reported"), &computed_tomography())],
        )
        .with(Relationship::Contains, library(basis))
        .with(Relationship::Contains, [measurements, evaluations])
}

/// The images that the report points at: TID 1600. None where no slice was scored.
fn library(basis: &Basis<'_>) -> Option<Item> {
    let images: Vec<Item> = basis.top().into_iter().map(|slice| image(slice, None)).collect();
    if images.is_empty() {
        return None;
    }
    let group = Item::container(&dcm("126200", "Image Library Group"), None)
        .with(
            Relationship::HasAcquisitionContext,
            [
                Item::code(&dcm("121139", "Modality"), &dcm("CT", "Computed Tomography")),
                Item::code(&dcm("123014", "Target Region"), &sct("69536005", "Head")),
            ],
        )
        .with(Relationship::Contains, images);
    Some(Item::container(&dcm("111028", "Image Library"), None).with(Relationship::Contains, [group]))
}

fn image(slice: &EvidenceSlice, name: Option<&Code>) -> Item {
    Item::image(name, &slice.sop_class_uid, &slice.sop_uid, slice.multi_frame.then_some(slice.frame))
}

/// The finding with its evaluation, score and algorithm: TID 1501.
fn measurement_group(basis: &Basis<'_>) -> Item {
    let concept = finding(basis.finding);
    let tracking = uids::uid(&["tracking", &uids::identity(basis.first)]);
    let evaluation = match basis.verdict.verdict.as_str() {
        "flagged" => sct("52101004", "Present"),
        "not flagged" if !basis.was_flagged => not_flagged(),
        _ => sct("82334004", "Indeterminate"),
    };
    let source = dcm("121112", "Source of Measurement");
    let score = basis.verdict.score.map(|score| Item::percent(&dcm("111012", "Certainty of Finding"), score));
    Item::container(&dcm("125007", "Measurement Group"), Some("1501"))
        .with(
            Relationship::HasObservationContext,
            [
                Item::text(&dcm("112039", "Tracking Identifier"), &format!("study: {}", basis.finding)),
                Item::uid(&dcm("112040", "Tracking Unique Identifier"), &tracking),
            ],
        )
        .with(Relationship::Contains, [Item::code(&dcm("121071", "Finding"), &concept)])
        .with(Relationship::HasConceptModifier, algorithm(basis.verdict))
        .with(Relationship::Contains, basis.top().into_iter().map(|slice| image(slice, Some(&source))))
        .with(Relationship::Contains, score)
        .with(Relationship::Contains, [Item::code(&concept, &evaluation)])
}
