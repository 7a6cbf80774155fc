use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use triaged_model::Tolerance;

use super::*;

type Attribute = (Tag, VR, &'static str);

fn object(attributes: &[(Tag, VR, &str)]) -> DicomObject {
    let elements = attributes.iter().map(|&(tag, vr, value)| DataElement::new(tag, vr, value));
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    InMemDicomObject::from_element_iter(elements).with_meta(meta).expect("a complete meta group")
}

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

fn item(attributes: &[Attribute]) -> InMemDicomObject {
    InMemDicomObject::from_element_iter(attributes.iter().map(|&(tag, vr, value)| DataElement::new(tag, vr, value)))
}

fn assess(object: &DicomObject) -> Assessment {
    Gate::default().assess(object, None).into_iter().next().expect("at least one assessment")
}

/// Why an object of these attributes is out; none where it is triaged.
fn reason(attributes: &[(Tag, VR, &str)]) -> Option<String> {
    match assess(&object(attributes)).decision {
        Decision::Triage => None,
        Decision::Look(claim) => Some(format!("look: {claim}")),
        Decision::Out(reason) => Some(reason),
    }
}

const AXIAL: Attribute = (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0");

#[test]
fn a_phantom_is_triaged_without_a_doubt() {
    use triaged_imaging::phantom::{PhantomSpec, series};
    let slice = series(&PhantomSpec { slices: 30, ..PhantomSpec::default() }).nth(3).expect("a fourth slice");
    let assessment = assess(&slice);
    assert_eq!((assessment.decision, assessment.doubts), (Decision::Triage, Vec::new()));
    assert_eq!(assessment.plane.tilt(), Some(0.0));
    assert!(assessment.plane.place.is_some() && assessment.plane.thickness.is_some());
}

#[test]
fn nothing_absent_or_empty_puts_a_slice_out() {
    assert_eq!(reason(&[(tags::SOP_INSTANCE_UID, VR::UI, "ID_6c5d82413")]), None);
    let empty = [
        (tags::SOP_CLASS_UID, VR::UI, ""),
        (tags::MODALITY, VR::CS, ""),
        (tags::IMAGE_TYPE, VR::CS, ""),
        (tags::BODY_PART_EXAMINED, VR::CS, " "),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, ""),
        (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, ""),
        (tags::IMAGE_POSITION_PATIENT, VR::DS, "0\\0"),
        (tags::SLICE_THICKNESS, VR::DS, "0"),
        (tags::RESCALE_TYPE, VR::LO, ""),
        (tags::KVP, VR::DS, "0"),
        (tags::PATIENT_AGE, VR::AS, "Y"),
        (tags::CONTRAST_BOLUS_AGENT, VR::LO, "NONE"),
        (tags::SERIES_DESCRIPTION, VR::LO, ""),
    ];
    assert_eq!(reason(&empty), None);
    assert_eq!(assess(&object(&empty)).doubts, Vec::<String>::new());
}

#[test]
fn ct_storage_classes_and_private_ones_pass_and_others_do_not() {
    for class in [
        uids::CT_IMAGE_STORAGE,
        uids::ENHANCED_CT_IMAGE_STORAGE,
        uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
        "1.3.12.2.1107.5.9.1",
    ] {
        assert_eq!(reason(&[(tags::SOP_CLASS_UID, VR::UI, class)]), None, "{class}");
    }
    for class in [uids::MR_IMAGE_STORAGE, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, "1.2.840.10008.9.9"] {
        assert!(reason(&[(tags::SOP_CLASS_UID, VR::UI, class)]).is_some(), "{class}");
    }
    let mr = reason(&[(tags::SOP_CLASS_UID, VR::UI, uids::MR_IMAGE_STORAGE)]);
    assert_eq!(mr.as_deref(), Some("not a CT image: SOP class 1.2.840.10008.5.1.4.1.1.4 (MR)"));
    assert_eq!(reason(&[(tags::MODALITY, VR::CS, "MR")]).as_deref(), Some("not CT: modality MR"));
    assert!(reason(&[(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB")]).is_some());
    assert_eq!(reason(&[(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1 ")]), None);
}

#[test]
fn image_types_of_real_scanners() {
    for (image_type, triaged) in [
        ("ORIGINAL\\PRIMARY\\AXIAL", true),
        ("ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI", true),
        ("ORIGINAL\\PRIMARY\\AXIAL\\ADD", true),
        ("ORIGINAL\\PRIMARY\\AXIAL\\HELIX", true),
        ("ORIGINAL\\PRIMARY\\VOLUME\\NONE", true),
        ("DERIVED\\PRIMARY\\AXIAL", true),
        ("ORIGINAL\\SECONDARY\\AXIAL", true),
        ("ORIGINAL\\PRIMARY\\LOCALIZER", false),
        ("original\\primary\\localizer ", false),
        ("ORIGINAL\\PRIMARY\\SCOUT", false),
        ("ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP", false),
        ("ORIGINAL\\PRIMARY\\AXIAL\\SCANO", false),
        ("DERIVED\\SECONDARY\\SCREEN SAVE", false),
        ("DERIVED\\SECONDARY", false),
        ("DERIVED\\SECONDARY\\PROJECTION IMAGE", false),
        ("DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MIP", false),
        ("DERIVED\\SECONDARY\\MPR", false),
        ("DERIVED\\SECONDARY\\3D", false),
        ("DERIVED\\PRIMARY\\PERFUSION\\CBF", false),
        ("DERIVED\\PRIMARY\\AXIAL\\IODINE", false),
        ("DERIVED\\PRIMARY\\AXIAL\\VMI", false),
        ("DERIVED\\PRIMARY\\AXIAL\\DET_MONO_40KEV", false),
        ("DERIVED\\PRIMARY\\AXIAL\\Z_EFF", false),
        ("DERIVED\\PRIMARY\\AXIAL\\EFF_ATOMIC_NUM", false),
    ] {
        let said = reason(&[(tags::IMAGE_TYPE, VR::CS, image_type), AXIAL]);
        assert_eq!(said.is_none(), triaged, "{image_type}: {said:?}");
    }
}

#[test]
fn an_axial_reformat_is_a_substitute_and_another_is_out() {
    let reformat = (tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE");
    let axial = assess(&object(&[reformat, AXIAL]));
    assert_eq!((&axial.decision, axial.is_substitute), (&Decision::Triage, true));
    assert_eq!(axial.doubts, ["a reformat: image type DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE"]);
    let coronal = (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0\\-1");
    assert_eq!(reason(&[reformat, coronal]).as_deref(), Some("not axial: the plane is tilted by 90 degrees"));
    assert!(reason(&[reformat]).is_some(), "without an orientation it may be of any plane");
}

#[test]
fn words_that_a_plain_scan_may_have_in_its_description_make_it_no_substitute() {
    let described = |said: &str| assess(&object(&[(tags::SERIES_DESCRIPTION, VR::LO, said), AXIAL]));
    for said in [
        "HEAD LOW DOSE 5.0",
        "Head 5mm MOTION REPEAT",
        "Head 5.0 3D",
        "Hirn MPR ax 4.0",
        "HEAD NC PRE CTA",
        "Kopf nativ vor CTA",
        "CTA w/o contrast",
    ] {
        let assessment = described(said);
        assert_eq!((assessment.is_substitute, assessment.doubts), (false, Vec::new()), "{said}");
    }
    for said in [
        "Dose Report",
        "AX MIP 10mm",
        "Iodine 5.0",
        "Eff Z",
        "Monoenergetic 40 keV",
        "CBF",
        "CTA head",
        "CTA w/o and w contrast",
        "Head bone 3D",
    ] {
        assert!(described(said).is_substitute, "{said}");
    }
    let given = object(&[
        (tags::SERIES_DESCRIPTION, VR::LO, "Kopf nativ"),
        (tags::CONTRAST_BOLUS_AGENT, VR::LO, "Ultravist 370"),
    ]);
    assert!(assess(&given).is_substitute, "the attribute is believed");
}

#[test]
fn a_ct_image_without_rescale_is_marked() {
    let class = (tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
    let (slope, intercept) = ((tags::RESCALE_SLOPE, VR::DS, "1"), (tags::RESCALE_INTERCEPT, VR::DS, "-1024"));
    assert!(assess(&object(&[class, slope, intercept])).doubts.is_empty());
    assert_eq!(assess(&object(&[class])).doubts, [NO_RESCALE]);
    assert_eq!(assess(&object(&[class, slope])).doubts, [NO_RESCALE]);
    assert!(assess(&object(&[])).doubts.is_empty(), "whoever leaves out the class leaves out more");
    let mut lut = object(&[class]);
    lut.put(sequence(tags::MODALITY_LUT_SEQUENCE, vec![item(&[(tags::MODALITY_LUT_TYPE, VR::LO, "HU")])]));
    assert!(assess(&lut).doubts.is_empty());
    let mut enhanced = object(&[(tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_CT_IMAGE_STORAGE)]);
    let transformation = sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![item(&[slope, intercept])]);
    let shared = InMemDicomObject::from_element_iter([transformation]);
    enhanced.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]));
    assert!(assess(&enhanced).doubts.is_empty());
}

#[test]
fn reasons_of_the_routine_are_known_as_such() {
    for routine in [
        vec![(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER")],
        vec![(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0\\-1")],
        vec![(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\SCREEN SAVE")],
        vec![(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY")],
        vec![(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE)],
        vec![(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB")],
    ] {
        let reason = reason(&routine).expect("out");
        assert!(is_routine(&reason), "{reason}");
    }
    for odd in [
        vec![(tags::RESCALE_TYPE, VR::LO, "MGML")],
        vec![(tags::KVP, VR::DS, "160")],
        vec![(tags::MODALITY, VR::CS, "OT")],
        vec![(tags::QUALITY_CONTROL_IMAGE, VR::CS, "YES")],
    ] {
        let reason = reason(&odd).expect("out");
        assert!(!is_routine(&reason), "{reason}");
    }
    let excluding = MadeFor { contrast: Tolerance::Excluded, sharp_kernel: Tolerance::Excluded, ..MadeFor::default() };
    let gate = Gate::new(&config::Gate::default(), &excluding);
    for excluded in [(tags::CONTRAST_BOLUS_AGENT, VR::LO, "Ultravist"), (tags::CONVOLUTION_KERNEL, VR::SH, "H60s")] {
        let decision = gate.assess(&object(&[excluded]), None).remove(0).decision;
        assert!(matches!(&decision, Decision::Out(reason) if is_routine(reason)), "{decision:?}");
    }
}

#[test]
fn localizers_by_their_descriptions_and_planes() {
    for description in
        ["Topogram 0.6 T20f", "SCOUT", "Surview", "Scanogram", "Localizers", "Lateral Radiograph", "Dual Scano"]
    {
        let said = reason(&[(tags::SERIES_DESCRIPTION, VR::LO, description), AXIAL]);
        assert!(said.is_some_and(|said| said.starts_with("a localizer")), "{description}");
    }
    let sagittal = (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0\\1\\0\\0\\0\\-1");
    assert!(reason(&[sagittal]).is_some());
    for tilted in ["1\\0\\0\\0\\0.8660254\\-0.5", "-1\\0\\0\\0\\-1\\0"] {
        assert_eq!(reason(&[(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, tilted)]), None, "{tilted}");
    }
    let oblique = (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0.5\\-0.8660254");
    assert!(reason(&[oblique]).is_some());
    assert!(reason(&[(tags::SERIES_DESCRIPTION, VR::LO, "HEAD COR")]).is_some());
    assert_eq!(reason(&[(tags::SERIES_DESCRIPTION, VR::LO, "HEAD COR"), AXIAL]), None, "the orientation is believed");
}

#[test]
fn values_that_are_no_hounsfield_units_are_out() {
    for (rescale_type, triaged) in [
        ("HU", true),
        ("hu ", true),
        ("H.U.", true),
        ("Hounsfield Units", true),
        ("US", true),
        ("UNSPECIFIED", true),
        ("MGML", false),
        ("PCT", false),
        ("Z_EFF", false),
        ("ED", false),
        ("EDW", false),
        ("HU_MOD", false),
        ("OD", false),
        ("ML/100G/MIN", false),
    ] {
        let said = reason(&[(tags::RESCALE_TYPE, VR::LO, rescale_type)]);
        assert_eq!(said.is_none(), triaged, "{rescale_type}: {said:?}");
    }
    let mut lut = object(&[]);
    lut.put(sequence(tags::MODALITY_LUT_SEQUENCE, vec![item(&[(tags::MODALITY_LUT_TYPE, VR::LO, "OD")])]));
    assert!(matches!(assess(&lut).decision, Decision::Out(_)));
}

#[test]
fn body_parts_that_are_no_head_have_the_pixels_looked_at() {
    for part in ["HEAD", "Schädel", "UNKNOWN", "?", "CABECA"] {
        assert_eq!(reason(&[(tags::BODY_PART_EXAMINED, VR::CS, part)]), None, "{part}");
    }
    for part in ["CHEST", "WHOLEBODY", "TRAUMA", "NECK", "FEMORAL HEAD"] {
        let said = reason(&[(tags::BODY_PART_EXAMINED, VR::CS, part)]);
        assert_eq!(said, Some(format!("look: body part {part}")));
    }
    assert!(reason(&[(tags::BODY_PART_EXAMINED, VR::CS, "PHANTOM")]).is_some_and(|said| said.starts_with("a phantom")));
    let described = reason(&[(tags::STUDY_DESCRIPTION, VR::LO, "CT THORAX")]);
    assert_eq!(described.as_deref(), Some("look: study description CT THORAX"));
    let both = [(tags::STUDY_DESCRIPTION, VR::LO, "TRAUMA SPINE"), (tags::SERIES_DESCRIPTION, VR::LO, "HEAD 5mm")];
    assert_eq!(reason(&both), None, "the series is nearer than the study");
}

fn region(scheme: &'static str, value: &'static str) -> DataElement<InMemDicomObject> {
    let code = [(tags::CODE_VALUE, VR::SH, value), (tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme)];
    sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![item(&code)])
}

#[test]
fn codes_of_the_region_decide() {
    for (scheme, value, triaged) in [
        ("SCT", "69536005", true),
        ("SRT", "T-D1100", true),
        ("SNM3", "T-A0100", true),
        ("SCT", "774007", true),
        ("SCT", "51185008", false),
        ("SRT", "T-D3000", false),
        ("SCT", "816094009", false),
        ("SRT", "T-D4000", false),
        ("99LOCAL", "T-D3000", true),
        ("SCT", "1", true),
    ] {
        let mut coded = object(&[AXIAL]);
        coded.put(region(scheme, value));
        let decision = assess(&coded).decision;
        assert_eq!(decision == Decision::Triage, triaged, "{scheme} {value}: {decision:?}");
    }
    let mut chest = object(&[]);
    chest.put(region("SCT", "51185008"));
    assert_eq!(assess(&chest).decision, Decision::Out("not the head: anatomic region Chest".into()));
    let mut contradicting = object(&[(tags::BODY_PART_EXAMINED, VR::CS, "HEAD")]);
    contradicting.put(region("SCT", "51185008"));
    assert_eq!(assess(&contradicting).decision, Decision::Look("anatomic region Chest".into()));
    let mut body = object(&[]);
    body.put(region("SCT", "38266002"));
    assert_eq!(assess(&body).decision, Decision::Look("anatomic region Entire body".into()));
}

#[test]
fn frames_of_an_enhanced_object_are_judged_one_by_one() {
    let place = |z: &'static str| {
        sequence(tags::PLANE_POSITION_SEQUENCE, vec![item(&[(tags::IMAGE_POSITION_PATIENT, VR::DS, z)])])
    };
    let kind = |frame_type: &'static str| {
        sequence(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, vec![item(&[(tags::FRAME_TYPE, VR::CS, frame_type)])])
    };
    let per_frame = [
        vec![place("0\\0\\10"), kind("ORIGINAL\\PRIMARY\\VOLUME\\NONE")],
        vec![place("0\\0\\15"), kind("ORIGINAL\\PRIMARY\\LOCALIZER\\NONE")],
        vec![place("0\\0\\20"), kind("DERIVED\\PRIMARY\\VOLUME\\MAXIMUM")],
    ];
    let anatomy = |value| {
        let mut anatomy = InMemDicomObject::new_empty();
        anatomy.put(region("SCT", value));
        sequence(tags::FRAME_ANATOMY_SEQUENCE, vec![anatomy])
    };
    let enhanced = |value| {
        let mut object = object(&[
            (tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_CT_IMAGE_STORAGE),
            (tags::NUMBER_OF_FRAMES, VR::IS, "3"),
        ]);
        let plane = sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![item(&[AXIAL])]);
        let shared = InMemDicomObject::from_element_iter([anatomy(value), plane]);
        object.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]));
        let frames = per_frame.iter().map(|groups| InMemDicomObject::from_element_iter(groups.iter().cloned()));
        object.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames.collect()));
        Gate::default().assess(&object, None)
    };
    let head = enhanced("69536005");
    assert_eq!(head.iter().map(|slice| slice.plane.place).collect::<Vec<_>>(), [Some(10.0), Some(15.0), Some(20.0)]);
    assert_eq!(head[0].decision, Decision::Triage);
    let out = |slice: &Assessment| matches!(&slice.decision, Decision::Out(_));
    assert!(out(&head[1]) && out(&head[2]), "{head:?}");
    assert!(enhanced("51185008").iter().all(out));
}

#[test]
fn contrast_agent_and_sharp_kernels_are_as_the_card_says() {
    let contrast = object(&[(tags::CONTRAST_BOLUS_AGENT, VR::LO, "Ultravist 370")]);
    let kernel = object(&[(tags::CONVOLUTION_KERNEL, VR::SH, "H60s")]);
    for marked in [&contrast, &kernel] {
        let assessment = assess(marked);
        assert_eq!(
            (assessment.decision, assessment.is_substitute, assessment.doubts.len()),
            (Decision::Triage, true, 1)
        );
    }
    let card = MadeFor { contrast: Tolerance::Excluded, sharp_kernel: Tolerance::Allowed, ..MadeFor::default() };
    let strict = Gate::new(&config::Gate::default(), &card);
    let said = strict.assess(&contrast, None).remove(0).decision;
    let expected = "contrast agent Ultravist 370, and the model was not made for contrast agent";
    assert_eq!(said, Decision::Out(expected.into()));
    assert!(strict.assess(&kernel, None).remove(0).doubts.is_empty());
    for none in ["NONE", "no", "W/O", "ohne KM", "nativ", "Sans injection", "SIN CONTRASTE", "-", "00"] {
        assert_eq!(assess(&object(&[(tags::CONTRAST_BOLUS_AGENT, VR::LO, none)])).doubts.len(), 0, "{none}");
    }
    for (kernel, sharp) in [
        ("H31s", false),
        ("H60s", true),
        ("Hr40f", false),
        ("Hr64h", true),
        ("J40s", false),
        ("STANDARD", false),
        ("SOFT", false),
        ("BONEPLUS", true),
        ("BONE", true),
        ("FC26", false),
        ("FC68", false),
        ("FC81", true),
        ("UB", false),
        ("BRAIN", false),
        ("STD+", false),
    ] {
        let doubts = assess(&object(&[(tags::CONVOLUTION_KERNEL, VR::SH, kernel)])).doubts;
        assert_eq!(!doubts.is_empty(), sharp, "{kernel}: {doubts:?}");
    }
}

#[test]
fn tube_voltage_and_age_are_as_the_card_says() {
    assert!(reason(&[(tags::KVP, VR::DS, "40")]).is_some());
    assert_eq!(reason(&[(tags::KVP, VR::DS, "100")]), None);
    let card = MadeFor { min_age_years: 18.0, ..MadeFor::default() };
    let adults = Gate::new(&config::Gate::default(), &card);
    let born = |date: &'static str| {
        object(&[(tags::STUDY_DATE, VR::DA, "20260601"), (tags::PATIENT_BIRTH_DATE, VR::DA, date)])
    };
    for (patient, triaged) in [
        (object(&[(tags::PATIENT_AGE, VR::AS, "045Y")]), true),
        (object(&[(tags::PATIENT_AGE, VR::AS, "017Y")]), false),
        (object(&[(tags::PATIENT_AGE, VR::AS, "006M")]), false),
        (object(&[(tags::PATIENT_AGE, VR::AS, "012D")]), false),
        (object(&[(tags::PATIENT_AGE, VR::AS, "x")]), true),
        (born("19700101"), true),
        (born("20200101"), false),
        (born("19000101"), true),
        (born("2020"), true),
        (object(&[]), true),
    ] {
        assert_eq!(adults.assess(&patient, None).remove(0).decision == Decision::Triage, triaged, "{patient:?}");
    }
}

#[test]
fn phantoms_for_quality_checks_are_out() {
    for attribute in [
        (tags::QUALITY_CONTROL_IMAGE, VR::CS, "YES"),
        (tags::SERIES_DESCRIPTION, VR::LO, "Daily QA"),
        (tags::STUDY_DESCRIPTION, VR::LO, "Catphan 600"),
        (tags::PROTOCOL_NAME, VR::LO, "Water Phantom"),
    ] {
        assert!(reason(&[attribute]).is_some_and(|said| said.starts_with("a phantom")), "{attribute:?}");
    }
}

#[test]
fn words_for_phantoms_and_localizers_in_the_description_of_a_head_leave_it_to_the_pixels() {
    let head = (tags::BODY_PART_EXAMINED, VR::CS, "HEAD");
    for (tag, said) in [
        (tags::STUDY_DESCRIPTION, "CT CEREBRAL - CHU QUEBEC, QC"),
        (tags::STUDY_DESCRIPTION, "CT HEAD STEREOTACTIC CALIBRATION"),
        (tags::PROTOCOL_NAME, "Head QA approved"),
    ] {
        let reason = reason(&[head, (tag, VR::LO, said)]).unwrap_or_default();
        assert_eq!(reason, format!("look: perhaps a phantom for quality checks: {said}"));
    }
    for said in ["HEAD QA PHANTOM", "Daily QA"] {
        let reason = reason(&[head, (tags::SERIES_DESCRIPTION, VR::LO, said)]).unwrap_or_default();
        assert!(reason.starts_with("a phantom for quality checks"), "{reason}");
    }
    for said in ["HEAD 5.0 H31s (SCOUT REF)", "Pilot trial head", "Hirn ohne KM, Topo-angle"] {
        let series = (tags::SERIES_DESCRIPTION, VR::LO, said);
        let axial = [head, series, (tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL")];
        assert_eq!(reason(&axial), None, "{said}");
        assert!(assess(&object(&axial)).doubts[0].contains("perhaps a localizer"));
        assert!(reason(&[head, series]).is_some_and(|reason| reason.starts_with("a localizer")), "{said}");
    }
}

#[test]
fn a_position_of_zeros_is_none_where_the_slice_location_says_more() {
    let place = |position: &'static str, location: &'static str| {
        let attributes =
            [AXIAL, (tags::IMAGE_POSITION_PATIENT, VR::DS, position), (tags::SLICE_LOCATION, VR::DS, location)];
        assess(&object(&attributes)).plane.place
    };
    assert_eq!(place("0\\0\\0", "35.5"), Some(35.5));
    assert_eq!(place("0\\0\\0", ""), Some(0.0));
    assert_eq!(place("-125\\-125\\0", "35.5"), Some(0.0));
}

#[test]
fn an_object_that_is_no_ct_is_one_row_whatever_its_frames() {
    let capture = object(&[
        (tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE),
        (tags::NUMBER_OF_FRAMES, VR::IS, "900"),
    ]);
    assert_eq!(Gate::default().assess(&capture, None).len(), 1);
    let frames = object(&[(tags::NUMBER_OF_FRAMES, VR::IS, "many")]);
    assert!(matches!(assess(&frames).decision, Decision::Out(_)));
}

#[test]
fn a_reason_repeats_little_of_an_attribute_and_ends_at_a_word() {
    let long = reason(&[(tags::MODALITY, VR::LO, &"X\u{7}".repeat(500))]).expect("out");
    assert!(long.len() < 100 && !long.contains('\u{7}'));
    let words = "ABDOMEN WITH A LONG DESCRIPTION THAT GOES ON AND ON UNTIL NOBODY READS IT ANY MORE";
    let claim = reason(&[(tags::BODY_PART_EXAMINED, VR::LO, words)]).expect("to be looked at");
    let kept = claim.trim_start_matches("look: body part ").trim_end_matches(" …");
    assert!(claim.ends_with(" …") && words.split_at(kept.len()).1.starts_with(' '), "{claim}");
}

#[test]
fn the_real_heads_are_triaged() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folders = [("ge-head", 28), ("ct-ich/stage_2_train", 1565)];
    for (folder, expected) in folders {
        let Ok(files) = std::fs::read_dir(data.join(folder)) else {
            println!("SKIP {folder} of the shared data is absent");
            continue;
        };
        let objects = files.filter_map(|file| triaged_imaging::read_header(file.expect("an entry").path()).ok());
        let triaged = objects.filter(|object| {
            let assessment = assess(object);
            assessment.decision == Decision::Triage && assessment.doubts.is_empty()
        });
        assert_eq!(triaged.count(), expected, "{folder}");
    }
}

#[test]
fn the_cases_of_regions_rescale_types_and_body_parts_come_right() {
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases");
    for (file, triaged) in [
        ("f06-enhanced-ct-of-the-chest.dcm", false),
        ("f06-ct-anatomic-region-chest.dcm", false),
        ("f07-rescale-type-mgml.dcm", false),
        ("f07-rescale-type-pct.dcm", false),
        ("f08-body-part-tete-in-utf-8.dcm", true),
        ("f08-body-part-schaedel-in-utf-8.dcm", true),
        ("f08-body-part-cabeca.dcm", true),
        ("f08-body-part-head-radiology.dcm", true),
    ] {
        let Ok(object) = triaged_imaging::read_header(cases.join(file)) else {
            println!("SKIP {file} of the shared cases is absent");
            continue;
        };
        let decision = assess(&object).decision;
        assert_eq!(decision == Decision::Triage, triaged, "{file}: {decision:?}");
        assert_eq!(matches!(decision, Decision::Out(_)), !triaged, "{file}: {decision:?}");
    }
}
