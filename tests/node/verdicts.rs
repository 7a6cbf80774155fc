//! Verdicts that are safe: what is said of a study rests on all of it, and nothing that was acknowledged hides what came later.

use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use triaged_imaging::DicomObject;

use crate::support::raw_store::{EXPLICIT, Sender};
use crate::support::{Node, Receiver, card, dicom_files, has, phantoms, storescu};

/// Flags a series of which so many places are scored, whatever their probabilities.
fn node_that_flags_from(places: u32, settings: &[(&str, &str)]) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let rule = serde_json::json!({ "kind": "kth_highest", "k": places, "threshold": 1e-12 });
    let card = card(folder.path(), |card| card["study_rule"] = rule);
    let mut all = vec![("TRIAGED__INFERENCE__MODEL", card.as_str()), ("TRIAGED__TRIAGE__QUIET_SECONDS", "1")];
    all.extend(settings);
    (Node::start(&all), folder)
}

/// A card that never flags.
fn node_that_never_flags() -> (Node, tempfile::TempDir) {
    node_that_flags_from(1000, &[])
}

/// The slices of a bleeding phantom in an own study, changed.
fn slices(number: u64, mut change: impl FnMut(usize, &mut DicomObject)) -> Vec<DicomObject> {
    let mut objects = phantoms::study(&["--slices", "30", "--lesion", "epidural", "--seed", "2"], number);
    objects.iter_mut().enumerate().for_each(|(index, object)| change(index, object));
    objects
}

fn put(object: &mut DicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, value));
}

/// Cuts an object's pixel data short, as an interrupted writer leaves them.
fn cut_short(object: &mut DicomObject) {
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(vec![7_u16; 1000].into())));
}

fn send(node: &Node, objects: &[DicomObject]) {
    let folder = tempfile::tempdir().unwrap();
    for (index, object) in objects.iter().enumerate() {
        object.write_to_file(folder.path().join(format!("{index:04}.dcm"))).unwrap();
    }
    storescu(node, &[], &dicom_files(folder.path())).unwrap();
}

fn study_of(objects: &[DicomObject]) -> String {
    objects[0].element(tags::STUDY_INSTANCE_UID).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned()
}

/// The worklist's words for a study once it is decided: verdict and what is missing.
fn decided(node: &Node, study: &str) -> (String, String) {
    node.wait_until(&format!(
        "SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist WHERE study_uid = '{study}'"
    ));
    let column = |column: &str| {
        node.query::<String>(&format!("SELECT coalesce({column}, '') FROM worklist WHERE study_uid = '{study}'"))
    };
    assert_eq!(
        node.query::<Option<i64>>(&format!("SELECT flagged FROM worklist WHERE study_uid = '{study}'")),
        match column("verdict").as_str() {
            "flagged" => Some(1),
            "not flagged" => Some(0),
            _ => None,
        }
    );
    (column("verdict"), column("missing"))
}

#[test]
fn what_becomes_flagged_is_unread_again_whatever_was_acknowledged_before() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(12, &[]);
    let objects = slices(1, |_, _| {});
    let study = study_of(&objects);
    send(&node, &objects[..9]);
    assert_eq!(decided(&node, &study).0, "incomplete");
    assert!(node.cli(&["ack", &study, "--by", "Dr Early"]).status.success());
    let acknowledged = "SELECT coalesce(acknowledged_by, '') FROM worklist";
    assert_eq!(node.query::<String>(acknowledged), "Dr Early");
    send(&node, &objects[9..]);
    node.wait_until("SELECT flagged = 1 AND state = 'decided' FROM worklist");
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NULL FROM worklist"), 1, "flagged and already read");
    let (_, page) = node.get("/");
    assert!(page.contains("<strong>1</strong> flagged, unread") && page.contains("Acknowledge</button>"), "{page}");
    assert!(node.cli(&["ack", &study, "--by", "Dr Late", "--note", "called the ward"]).status.success());
    let log =
        "SELECT group_concat(actor || ' ' || verdict || coalesce(' ' || note, ''), '; ') FROM acknowledgement_log";
    assert_eq!(node.query::<String>(log), "Dr Early incomplete; Dr Late flagged called the ward");
    // The same again adds nothing, and rescoring finds the same: both leave it read.
    assert!(node.cli(&["rescore", &study]).status.success());
    node.wait_until("SELECT state = 'decided' AND revision > 2 FROM worklist");
    assert_eq!(node.query::<String>(acknowledged), "Dr Late");
    assert!(node.cli(&["ack", &study, "--undo", "--by", "Dr Late"]).status.success());
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NULL FROM worklist"), 1);
    assert!(!node.cli(&["ack", &study, "--undo"]).status.success());
}

#[test]
fn more_evidence_makes_a_flagged_study_unread_and_little_does_not() {
    if !has("storescu") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let card = card(folder.path(), |card| {
        card["study_rule"] = serde_json::json!({ "kind": "kth_highest", "k": 2, "threshold": 1e-12 });
        card["slice_threshold"] = serde_json::json!(0.0);
    });
    let settings = [("TRIAGED__INFERENCE__MODEL", card.as_str()), ("TRIAGED__TRIAGE__QUIET_SECONDS", "1")];
    let node = Node::start(&settings);
    let objects = slices(2, |_, _| {});
    let study = study_of(&objects);
    send(&node, &objects[..10]);
    assert_eq!(decided(&node, &study).0, "flagged");
    assert!(node.cli(&["ack", &study]).status.success());
    send(&node, &objects[10..11]);
    node.wait_until("SELECT state = 'decided' AND slices_scored = 11 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NOT NULL FROM worklist"), 1, "a slice more of the same");
    send(&node, &objects[11..]);
    node.wait_until("SELECT state = 'decided' AND slices_scored = 30 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NULL FROM worklist"), 1, "three times as many positives");
}

#[test]
fn part_of_the_evidence_is_incomplete_and_never_not_flagged() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let whole = slices(10, |_, _| {});
    send(&node, &whole);
    let study = study_of(&whole);
    assert_eq!(decided(&node, &study), ("not flagged".into(), String::new()));
    // A study that is not flagged is not offered for acknowledging, and may be marked as seen.
    let (_, page) = node.get("/");
    assert!(!page.contains("Acknowledge</button>"));
    assert!(node.cli(&["ack", &study]).status.success());
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NULL AND seen_at IS NOT NULL FROM worklist"), 1);

    let failed = slices(11, |index, object| {
        if index >= 5 {
            cut_short(object)
        }
    });
    let mut gap = slices(12, |_, _| {});
    gap.remove(14);
    let three = slices(13, |_, _| {})[10..13].to_vec();
    let one = slices(14, |_, _| {})[10..11].to_vec();
    let short = slices(15, |_, _| {})[..12].to_vec();
    let scouts = slices(16, |_, object| put(object, tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER"));
    let coronal = slices(17, |_, object| {
        put(object, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0\\-1");
    });
    for (objects, missing) in [
        (failed, "25 of 30 slices failed"),
        (gap, "nothing between"),
        (three, "3 slices, at least 8 are needed"),
        (one, "1 slice, at least 8 are needed"),
        (short, "mm covered"),
        (scouts[..2].to_vec(), "a localizer"),
        (coronal, "not axial"),
    ] {
        send(&node, &objects);
        let (verdict, said) = decided(&node, &study_of(&objects));
        assert!(verdict == "incomplete" && said.contains(missing), "{missing}: {verdict}, {said}");
    }
    // Incomplete ranks above not flagged.
    let (_, page) = node.get("/");
    assert!(page.find("incomplete").unwrap() < page.rfind("not flagged").unwrap());
    assert!(page.contains("<strong>7</strong> incomplete, unread"), "{page}");
}

#[test]
fn another_series_or_study_with_the_same_sop_instance_uids_is_new() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(20, &[]);
    // A bone series first, every second slice of it, then the brain series under the same SOP Instance UIDs.
    let bone = slices(20, |_, object| put(object, tags::SERIES_DESCRIPTION, VR::LO, "AX BONE"));
    let bone: Vec<DicomObject> = bone.into_iter().step_by(2).collect();
    let study = study_of(&bone);
    send(&node, &bone);
    assert_ne!(decided(&node, &study).0, "flagged");
    send(&node, &slices(20, |_, object| put(object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.4")));
    node.wait_until("SELECT flagged = 1 AND state = 'decided' FROM worklist");
    assert_eq!(node.query::<i64>("SELECT slices_scored FROM worklist"), 45);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM series_results WHERE verdict = 'flagged'"), 1);
    // The PACS moves the study to the right patient: a new Study UID, the same SOP Instance UIDs.
    send(
        &node,
        &slices(20, |_, object| {
            put(object, tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3.5");
            put(object, tags::PATIENT_ID, VR::LO, "RIGHT");
        }),
    );
    assert_eq!(decided(&node, "1.2.3.5").0, "flagged");
    assert_eq!(node.query::<i64>("SELECT slices_scored FROM worklist WHERE study_uid = '1.2.3.5'"), 30);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 0);
}

#[test]
fn a_readable_copy_replaces_one_that_could_not_be_read_in_either_order() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(20, &[]);
    let cut = slices(21, |_, object| cut_short(object));
    let study = study_of(&cut);
    send(&node, &cut);
    assert_eq!(decided(&node, &study).0, "incomplete");
    send(&node, &slices(21, |_, _| {}));
    node.wait_until("SELECT flagged = 1 AND slices_scored = 30 AND state = 'decided' FROM worklist");
    assert_eq!(node.query::<i64>("SELECT set_aside FROM worklist"), 0);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM set_aside WHERE kind = 'replaced'"), 30);
    // The copies that cannot be read come again: nothing changes.
    send(&node, &cut);
    assert_eq!(node.query::<i64>("SELECT slices_scored FROM worklist"), 30);
    // Both copies come before the first is decoded.
    let both: Vec<DicomObject> =
        slices(22, |_, object| cut_short(object)).into_iter().chain(slices(22, |_, _| {})).collect();
    send(&node, &both);
    let study = study_of(&both);
    node.wait_until(&format!("SELECT flagged = 1 AND slices_scored = 30 FROM worklist WHERE study_uid = '{study}'"));
}

#[test]
fn other_readable_content_under_the_same_uids_is_set_aside_and_shown() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let objects = slices(23, |_, _| {});
    let study = study_of(&objects);
    send(&node, &objects);
    decided(&node, &study);
    let other = slices(23, |_, object| put(object, tags::SERIES_DESCRIPTION, VR::LO, "CHANGED"));
    send(&node, &other[..2]);
    assert_eq!(node.query::<i64>("SELECT set_aside FROM worklist"), 2);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM set_aside WHERE kind = 'conflict' AND length(reason) > 20"), 2);
    let (_, page) = node.get("/");
    assert!(page.contains("2 set aside") && page.contains("2 objects were set aside"), "{page}");
    let (_, page) = node.get(&format!("/studies/{study}"));
    assert!(page.contains("received before with other content"));
    node.wait_for_metric("triaged_set_aside_objects{kind=\"conflict\"} 2");
    let check = node.cli(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("2 objects are set aside"), "{said}");
}

#[test]
fn corrections_reach_the_worklist_and_two_patients_under_one_study_are_a_warning() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let objects = slices(24, |index, object| {
        if index >= 15 {
            put(object, tags::PATIENT_ID, VR::LO, "CORRECT");
            put(object, tags::ACCESSION_NUMBER, VR::SH, "ACC-2");
        } else {
            put(object, tags::PATIENT_ID, VR::LO, "WRONG");
            put(object, tags::ACCESSION_NUMBER, VR::SH, "ACC-1");
        }
    });
    send(&node, &objects);
    decided(&node, &study_of(&objects));
    let row =
        "SELECT patient_id || ' ' || former_patient_ids || ' ' || accession_number || ' ' || former_accession_numbers
               FROM worklist";
    assert_eq!(node.query::<String>(row), "CORRECT WRONG ACC-2 ACC-1");
    assert!(node.query::<String>("SELECT warnings FROM worklist").contains("several patient IDs"));
    assert!(!node.log().contains("WRONG") && !node.log().contains("CORRECT"));
    // A correction of what is there already: the objects are set aside, the accession number is the new one.
    send(
        &node,
        &slices(24, |_, object| {
            put(object, tags::PATIENT_ID, VR::LO, "CORRECT");
            put(object, tags::ACCESSION_NUMBER, VR::SH, "ACC-3");
        })[..1],
    );
    assert_eq!(node.query::<String>("SELECT accession_number FROM worklist"), "ACC-3");
}

#[test]
fn evidence_of_two_reconstructions_is_not_pooled() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(40, &[]);
    let once = slices(25, |_, _| {});
    let study = study_of(&once);
    send(&node, &once);
    assert_eq!(decided(&node, &study).0, "not flagged");
    send(
        &node,
        &slices(25, |_, object| {
            let sop =
                object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned();
            put(object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.9");
            let sop = format!("{}9", &sop[..sop.len().min(62)]);
            put(object, tags::SOP_INSTANCE_UID, VR::UI, &sop);
            object.meta_mut().media_storage_sop_instance_uid = sop;
        }),
    );
    node.wait_until("SELECT state = 'decided' AND slices_scored = 60 FROM worklist");
    assert_eq!(decided(&node, &study).0, "not flagged");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM series_results WHERE verdict = 'not flagged'"), 2);
}

/// The same slices as another series of the study.
fn as_second_series(object: &mut DicomObject) {
    let sop = object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned();
    let sop = format!("{}7", &sop[..sop.len().min(62)]);
    put(object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.7");
    put(object, tags::SOP_INSTANCE_UID, VR::UI, &sop);
    object.meta_mut().media_storage_sop_instance_uid = sop;
}

#[test]
fn a_second_scan_that_would_flag_is_not_passed_over_for_its_description_or_in_silence() {
    if !has("storescu") {
        return;
    }
    // The first scan has too few places to flag.
    let (node, _card) = node_that_flags_from(25, &[]);
    let scans = |number: u64, tag: Tag, said: &str| {
        let second = slices(number, |_, object| {
            as_second_series(object);
            put(object, tag, VR::LO, said);
        });
        [slices(number, |_, _| {})[..22].to_vec(), second].concat()
    };
    for (number, said) in [(50, "HEAD LOW DOSE 5.0"), (51, "Head 5mm MOTION REPEAT"), (52, "Kopf nativ vor CTA")] {
        let study = scans(number, tags::SERIES_DESCRIPTION, said);
        send(&node, &study);
        assert_eq!(decided(&node, &study_of(&study)).0, "flagged", "{said}");
    }
    let contrast = scans(53, tags::CONTRAST_BOLUS_AGENT, "IOHEXOL");
    send(&node, &contrast);
    assert_eq!(decided(&node, &study_of(&contrast)), ("not flagged".into(), String::new()));
    let sql = format!("SELECT warnings FROM worklist WHERE study_uid = '{}'", study_of(&contrast));
    let warnings = node.query::<String>(&sql);
    assert!(
        warnings.contains("series 1.2.3.7 was not judged (contrast agent IOHEXOL), though its score"),
        "{warnings}"
    );
}

#[test]
fn what_cannot_be_read_of_a_contrast_series_is_not_made_good_by_a_plain_one() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let contrast = slices(54, |index, object| {
        as_second_series(object);
        put(object, tags::CONTRAST_BOLUS_AGENT, VR::LO, "IOHEXOL");
        if index >= 20 {
            cut_short(object);
        }
    });
    let study = [slices(54, |_, _| {}), contrast].concat();
    send(&node, &study);
    let (verdict, missing) = decided(&node, &study_of(&study));
    assert!(verdict == "incomplete" && missing.contains("10 of 30 slices failed"), "{verdict}, {missing}");
}

#[test]
fn slices_that_are_out_or_did_not_come_all_along_a_series_leave_no_study_unflagged() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let at_the_end = slices(55, |index, object| {
        if index >= 20 {
            put(object, tags::KVP, VR::DS, "160");
        }
    });
    let every_second: Vec<DicomObject> = slices(56, |_, _| {}).into_iter().step_by(2).collect();
    let without_rescale = slices(57, |index, object| {
        if index >= 10 {
            object.remove_element(tags::RESCALE_INTERCEPT);
            object.remove_element(tags::RESCALE_SLOPE);
        }
    });
    for (objects, why) in [
        (at_the_end, "10 slices of it were not scored (160 kV"),
        (every_second, "with instance numbers in steps of 2: those between did not come"),
        (without_rescale, "20 of 30 slices without rescale slope or intercept"),
    ] {
        send(&node, &objects);
        let (verdict, missing) = decided(&node, &study_of(&objects));
        assert!(verdict == "incomplete" && missing.contains(why), "{why}: {verdict}, {missing}");
    }
}

#[test]
fn a_later_scan_that_has_no_part_in_the_verdict_is_told() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let maps = slices(58, |_, object| {
        as_second_series(object);
        put(object, tags::RESCALE_TYPE, VR::LO, "MGML");
    });
    let study = [slices(58, |_, _| {}), maps].concat();
    send(&node, &study);
    assert_eq!(decided(&node, &study_of(&study)), ("not flagged".into(), String::new()));
    let warnings = node.query::<String>("SELECT warnings FROM worklist");
    assert!(
        warnings.contains("series 1.2.3.7 was not judged: 30 slices not scored (no Hounsfield units"),
        "{warnings}"
    );
}

#[test]
fn a_head_that_is_called_chest_is_scored_and_a_body_is_not() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let head = slices(26, |_, object| put(object, tags::BODY_PART_EXAMINED, VR::CS, "CHEST"));
    send(&node, &head);
    let (verdict, missing) = decided(&node, &study_of(&head));
    assert_eq!(verdict, "not flagged", "{missing}");
    assert!(node.query::<String>("SELECT warnings FROM worklist").contains("body part CHEST"));
    let body = slices(27, |_, object| {
        put(object, tags::BODY_PART_EXAMINED, VR::CS, "WHOLEBODY");
        let water: Vec<u16> = (0..512 * 512)
            .map(|index| {
                let (y, x) = ((index / 512) as f32 - 256.0, (index % 512) as f32 - 256.0);
                if (x / 220.0).powi(2) + (y / 160.0).powi(2) <= 1.0 { 1064 } else { 24 }
            })
            .collect();
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(water.into())));
    });
    send(&node, &body[..4]);
    let study = study_of(&body);
    assert_eq!(decided(&node, &study).0, "incomplete");
    let out = format!(
        "SELECT count(*) FROM slice_results WHERE study_uid = '{study}' AND state = 'ineligible'
                       AND reason LIKE 'not the head: body part WHOLEBODY%'"
    );
    assert_eq!(node.query::<i64>(&out), 4);
}

/// A slice's Hounsfield units, changed, in place of its own. The phantom's are stored with an intercept of -1024.
fn repaint(object: &mut DicomObject, change: impl Fn(usize, usize, i32) -> i32) {
    let frame = triaged_imaging::decode_frame(object, 0).unwrap();
    let (columns, stored) = (frame.columns as usize, frame.stored.iter().enumerate());
    let pixels: Vec<u16> = stored
        .map(|(index, stored)| (change(index / columns, index % columns, stored - 1024) + 1024).clamp(0, 4095) as u16)
        .collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())));
}

#[test]
fn slices_within_a_head_that_do_not_look_like_one_are_scored_after_all() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let opened = slices(28, |index, object| {
        put(object, tags::BODY_PART_EXAMINED, VR::CS, "STROKE");
        if (14..20).contains(&index) {
            // Half of the skull was removed.
            repaint(object, |_, x, hu| if x > 256 && hu > 100 { 30 } else { hu });
        }
    });
    send(&node, &opened);
    assert_eq!(decided(&node, &study_of(&opened)), ("not flagged".into(), String::new()));
    let scored = "SELECT count(*) FROM slice_results WHERE state = 'scored' AND instance_number BETWEEN 15 AND 20";
    assert_eq!(node.query::<i64>(scored), 6);
    node.wait_for_log("slices within a head are scored after all");
}

#[test]
fn pixels_that_are_no_head_in_hounsfield_units_leave_no_study_unflagged() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    type Change<'c> = &'c dyn Fn(usize, &mut DicomObject);
    let cases: [(&str, Change); 4] = [
        ("no slice shows a head in Hounsfield units", &|_, object| {
            object.remove_element(tags::RESCALE_INTERCEPT);
            object.remove_element(tags::RESCALE_SLOPE);
        }),
        ("no slice shows a head in Hounsfield units", &|_, object| repaint(object, |_, _, _| -1024)),
        ("no slice shows a head in Hounsfield units", &|_, object| {
            repaint(object, |y, _, hu| if y > 170 { -1024 } else { hu })
        }),
        ("3 slices between those of the head without anything in the image", &|index, object| {
            if (12..15).contains(&index) {
                repaint(object, |_, _, _| -1024);
            }
        }),
    ];
    for (number, (why, change)) in (29..).zip(cases) {
        let objects = slices(number, |index, object| change(index, object));
        send(&node, &objects);
        let (verdict, missing) = decided(&node, &study_of(&objects));
        assert!(verdict == "incomplete" && missing.contains(why), "{number}: {verdict}, {missing}");
    }
}

#[test]
fn a_study_of_which_the_node_refused_objects_is_incomplete_until_they_come() {
    if !has("storescu") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let card = card(folder.path(), |card| {
        card["study_rule"] = serde_json::json!({ "kind": "kth_highest", "k": 1000, "threshold": 1e-12 });
    });
    let settings = [
        ("TRIAGED__INFERENCE__MODEL", card.as_str()),
        ("TRIAGED__TRIAGE__QUIET_SECONDS", "1"),
        ("TRIAGED__DIMSE__MAX_OBJECT_MIB", "1"),
    ];
    let mut node = Node::start(&settings);
    let objects = slices(33, |index, object| {
        if index >= 24 {
            // A private element makes it too large.
            let long = vec![0_u8; 1 << 20];
            object.put(DataElement::new(Tag(0x0029, 0x1010), VR::OB, PrimitiveValue::from(long)));
        }
    });
    let study = study_of(&objects);
    send(&node, &objects[..24]);
    let sent = tempfile::tempdir().unwrap();
    for (index, object) in objects[24..].iter().enumerate() {
        object.write_to_file(sent.path().join(format!("{index}.dcm"))).unwrap();
        let _ = storescu(&node, &[], &dicom_files(sent.path()));
        std::fs::remove_file(sent.path().join(format!("{index}.dcm"))).unwrap();
    }
    node.wait_until("SELECT verdict = 'incomplete' FROM worklist");
    let (_, missing) = decided(&node, &study);
    assert!(missing.contains("6 objects of it were not taken and did not come since"), "{missing}");
    node.restart_with(&[("TRIAGED__DIMSE__MAX_OBJECT_MIB", "4")]);
    send(&node, &objects);
    node.wait_until("SELECT verdict = 'not flagged' AND slices_received = 30 FROM worklist");
}

/// The data set of an object in explicit VR little endian, and its SOP Instance UID.
fn bytes_of(object: &DicomObject) -> (String, Vec<u8>) {
    let syntax = TransferSyntaxRegistry.get(EXPLICIT).expect("explicit VR little endian");
    let mut bytes = Vec::new();
    object.write_dataset_with_ts(&mut bytes, syntax).unwrap();
    (object.meta().media_storage_sop_instance_uid().to_owned(), bytes)
}

#[test]
fn a_study_whose_association_was_broken_off_is_not_left_unflagged_while_more_belongs_to_it() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(1000, &[]);
    // Each says how many images its acquisition has; the association ends between two of them.
    let objects = slices(38, |_, object| {
        object.put(DataElement::new(tags::IMAGES_IN_ACQUISITION, VR::IS, PrimitiveValue::from("30")));
    });
    let study = study_of(&objects);
    let mut sender = Sender::associate(&node, "CT1", EXPLICIT);
    for object in &objects[..24] {
        let (uid, bytes) = bytes_of(object);
        assert_eq!(sender.store(&uid, &bytes), 0);
    }
    drop(sender);
    let (verdict, missing) = decided(&node, &study);
    assert!(
        verdict == "incomplete" && missing.contains("only 24 of the 30 images of the acquisition came"),
        "{verdict}, {missing}"
    );
    let warnings = node.query::<String>("SELECT warnings FROM verdicts ORDER BY id DESC LIMIT 1");
    assert!(warnings.contains("the association that brought its last object was broken off"), "{warnings}");
    // The sender tries the rest again, and says when it has ended.
    send(&node, &objects[24..]);
    node.wait_until("SELECT verdict = 'not flagged' AND slices_received = 30 FROM worklist");
    assert_eq!(node.query::<Option<String>>("SELECT warnings FROM verdicts ORDER BY id DESC LIMIT 1"), None);
}

#[test]
fn an_object_that_was_being_sent_when_its_association_was_broken_off_is_missing() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(1000, &[]);
    let objects = slices(39, |_, _| {});
    let study = study_of(&objects);
    let mut sender = Sender::associate(&node, "CT1", EXPLICIT);
    for object in &objects[..29] {
        let (uid, bytes) = bytes_of(object);
        assert_eq!(sender.store(&uid, &bytes), 0);
    }
    let (uid, bytes) = bytes_of(&objects[29]);
    sender.break_off(&uid, &bytes[..16 << 10]);
    let (verdict, missing) = decided(&node, &study);
    let said = "1 object of it was not taken and did not come since (the association was broken off while it was sent)";
    assert!(verdict == "incomplete" && missing.contains(said), "{verdict}, {missing}");
    send(&node, &objects[29..]);
    node.wait_until("SELECT verdict = 'not flagged' AND slices_received = 30 FROM worklist");
}

#[test]
fn a_study_that_was_whole_before_the_association_was_broken_off_is_left_alone() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(1000, &[]);
    // Each says that its acquisition has more images than a study gets: a second reconstruction that is not sent.
    let of = |number: u64| {
        slices(number, |_, object| {
            object.put(DataElement::new(tags::IMAGES_IN_ACQUISITION, VR::IS, PrimitiveValue::from("60")));
        })
    };
    let (whole, begun) = (of(46), of(47));
    let mut sender = Sender::associate(&node, "CT1", EXPLICIT);
    for object in &whole {
        let (uid, bytes) = bytes_of(object);
        assert_eq!(sender.store(&uid, &bytes), 0);
    }
    let (uid, bytes) = bytes_of(&begun[0]);
    sender.break_off(&uid, &bytes[..16 << 10]);
    assert_eq!(decided(&node, &study_of(&begun)).0, "incomplete");
    assert_eq!(decided(&node, &study_of(&whole)).0, "not flagged");
    let sql =
        format!("SELECT warnings FROM verdicts WHERE study_uid = '{}' ORDER BY id DESC LIMIT 1", study_of(&whole));
    let warnings = node.query::<String>(&sql);
    assert!(!warnings.contains("broken off"), "{warnings}");
    // A sender that stops between two associations breaks none off: what it says is told.
    assert!(
        warnings.contains("only 30 of the 60 images of the acquisition came (Images in Acquisition)"),
        "{warnings}"
    );
}

#[test]
fn what_a_full_disk_refused_leaves_no_study_unflagged() {
    if !has("storescu") {
        return;
    }
    let (mut node, _card) = node_that_flags_from(1000, &[]);
    let objects = slices(36, |_, _| {});
    send(&node, &objects[..24]);
    assert_eq!(decided(&node, &study_of(&objects)).0, "not flagged");
    // More than any disk has.
    node.restart_with(&[("TRIAGED__ARCHIVE__MIN_FREE_MIB", "1000000000")]);
    let sent = tempfile::tempdir().unwrap();
    for (index, object) in objects[24..].iter().enumerate() {
        object.write_to_file(sent.path().join(format!("{index}.dcm"))).unwrap();
    }
    for file in dicom_files(sent.path()) {
        let _ = storescu(&node, &[], &[file]);
    }
    node.wait_until("SELECT verdict = 'incomplete' FROM worklist");
    let missing = node.query::<String>("SELECT missing FROM worklist");
    assert!(missing.contains("6 objects of it were not taken and did not come since"), "{missing}");
}

#[test]
fn what_was_refused_while_the_ledger_could_not_be_written_is_noted_when_it_can() {
    if !has("storescu") {
        return;
    }
    for is_restarted in [false, true] {
        let (mut node, _card) = node_that_flags_from(1000, &[("TRIAGED__DIMSE__MAX_OBJECT_MIB", "1")]);
        let objects = slices(37, |index, object| {
            if index == 29 {
                let long = vec![0_u8; 1 << 20];
                object.put(DataElement::new(Tag(0x0029, 0x1010), VR::OB, PrimitiveValue::from(long)));
            }
        });
        send(&node, &objects[..29]);
        assert_eq!(decided(&node, &study_of(&objects)).0, "not flagged");
        let other = node.meddle();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let folder = tempfile::tempdir().unwrap();
        objects[29].write_to_file(folder.path().join("29.dcm")).unwrap();
        let _ = storescu(&node, &[], &dicom_files(folder.path()));
        if is_restarted {
            // Its sender has its answer; whoever starts the node anew must not make it forget.
            node.kill();
            other.execute_batch("ROLLBACK").unwrap();
            drop(other);
            node.restart();
        } else {
            node.wait_for_log("that it was refused cannot be noted yet");
            other.execute_batch("ROLLBACK").unwrap();
        }
        // Nothing else comes.
        node.wait_until("SELECT verdict = 'incomplete' FROM worklist");
    }
}

#[test]
fn a_study_of_which_everything_was_refused_is_on_the_worklist() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(1000, &[("TRIAGED__DIMSE__MAX_OBJECT_MIB", "1")]);
    let objects = slices(40, |_, object| {
        let long = vec![0_u8; 1 << 20];
        object.put(DataElement::new(Tag(0x0029, 0x1010), VR::OB, PrimitiveValue::from(long)));
    });
    let folder = tempfile::tempdir().unwrap();
    objects[0].write_to_file(folder.path().join("0.dcm")).unwrap();
    let _ = storescu(&node, &[], &dicom_files(folder.path()));
    let (verdict, missing) = decided(&node, &study_of(&objects));
    assert!(verdict == "incomplete" && missing.contains("1 of its objects were refused"), "{verdict}, {missing}");
    let (status, _) = node.get(&format!("/studies/{}", study_of(&objects)));
    assert_eq!(status, 200);
}

#[test]
fn whatever_an_object_is_refused_for_its_study_lacks_it() {
    let (node, _card) = node_that_flags_from(1000, &[]);
    let objects = slices(41, |_, _| {});
    let mut sender = Sender::associate(&node, "CT1", EXPLICIT);
    let (uid, whole) = bytes_of(&objects[0]);
    let changed = |number: &str, change: &dyn Fn(&mut DicomObject)| {
        let mut object = objects[0].clone();
        put(&mut object, tags::STUDY_INSTANCE_UID, VR::UI, &format!("1.2.826.9.{number}"));
        change(&mut object);
        bytes_of(&object).1
    };
    // A900: no series, or none that is an identity. C000: cut off behind whose it is. 0122 is another class than the context's.
    let no_series = changed("1", &|object| drop(object.take_element(tags::SERIES_INSTANCE_UID)));
    let long_series = changed("2", &|object| put(object, tags::SERIES_INSTANCE_UID, VR::UI, &"1.2".repeat(22)));
    let rows = changed("3", &|_| {});
    let at = rows.windows(4).position(|bytes| bytes == [0x28, 0, 0x10, 0]).expect("Rows");
    let other_sop = changed("4", &|object| put(object, tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.4.5"));
    assert_eq!(sender.store(&uid, &no_series), 0xA900);
    assert_eq!(sender.store(&uid, &long_series), 0xA900);
    assert_eq!(sender.store(&uid, &rows[..at + 9]), 0xC000);
    assert_eq!(sender.store(&uid, &other_sop), 0xA900);
    let other_class = changed("5", &|_| {});
    assert_eq!(sender.store_as("1.2.840.10008.5.1.4.1.1.2.1", &uid, &other_class), 0x0122);
    drop(whole);
    for number in 1..=5 {
        let (verdict, missing) = decided(&node, &format!("1.2.826.9.{number}"));
        assert!(verdict == "incomplete" && missing.contains("refused"), "{number}: {verdict}, {missing}");
    }
}

#[test]
fn slices_that_cannot_be_decoded_are_no_other_part_of_the_body() {
    if !has("storescu") {
        return;
    }
    let node = node_that_never_flags().0;
    for (number, word) in [(42, "HEAD"), (43, "TRAUMA"), (44, "WHOLEBODY")] {
        let objects = slices(number, |index, object| {
            put(object, tags::BODY_PART_EXAMINED, VR::CS, word);
            if index >= 20 {
                put(object, tags::RESCALE_SLOPE, VR::DS, "0");
            }
        });
        send(&node, &objects);
        let (verdict, missing) = decided(&node, &study_of(&objects));
        assert!(verdict == "incomplete" && missing.contains("10 of 30 slices failed"), "{word}: {verdict}, {missing}");
    }
}

#[test]
fn other_content_that_comes_after_the_verdict_is_told_with_it() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let mut objects = slices(45, |_, _| {});
    send(&node, &objects);
    assert_eq!(decided(&node, &study_of(&objects)).0, "not flagged");
    repaint(&mut objects[15], |_, _, hu| if hu > 20 && hu < 60 { 70 } else { hu });
    send(&node, &objects[15..16]);
    node.wait_until("SELECT revision = 2 AND state = 'decided' FROM worklist");
    let warnings = node.query::<String>("SELECT warnings FROM verdicts ORDER BY id DESC LIMIT 1");
    assert!(warnings.contains("1 of its objects were set aside"), "{warnings}");
}

#[test]
fn the_same_object_in_another_uncompressed_encoding_is_nothing_new() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_never_flags();
    let objects = slices(35, |_, _| {});
    send(&node, &objects[..3]);
    let folder = tempfile::tempdir().unwrap();
    for (index, object) in objects[..3].iter().enumerate() {
        object.write_to_file(folder.path().join(format!("{index}.dcm"))).unwrap();
    }
    storescu(&node, &["-xi"], &dicom_files(folder.path())).unwrap();
    assert_eq!(node.query::<i64>("SELECT count(*) FROM set_aside"), 0);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances"), 3);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM instances WHERE transfer_syntax = '1.2.840.10008.1.2'"), 0);
}

#[test]
fn a_lost_file_that_is_sent_again_is_scored() {
    if !has("storescu") {
        return;
    }
    let (node, _card) = node_that_flags_from(1000, &[("TRIAGED__INFERENCE__MAX_ATTEMPTS", "1")]);
    let objects = slices(34, |_, _| {});
    send(&node, &objects);
    assert_eq!(decided(&node, &study_of(&objects)).0, "not flagged");
    let path = node.query::<String>("SELECT path FROM instances WHERE instance_number = 7");
    // Nobody knows yet that it is lost: a file that a start has missed is not scored again (`sqlite/tests/again.rs`).
    std::fs::remove_file(node.folder.path().join(path)).unwrap();
    let rescored = node.cli(&["rescore", &study_of(&objects)]);
    assert!(String::from_utf8_lossy(&rescored.stderr).contains("1 slice failed"));
    node.wait_until("SELECT verdict = 'incomplete' AND state = 'decided' FROM worklist");
    let reason = node.query::<String>("SELECT reason FROM slice_results WHERE state = 'failed'");
    assert!(reason.contains("cannot be read"), "{reason}");
    send(&node, &objects[6..7]);
    node.wait_until("SELECT verdict = 'not flagged' AND state = 'decided' FROM worklist");
}

#[test]
fn the_data_folder_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start(&[]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let data = node.folder.path();
    for folder in ["archive", "incoming", "quarantine"] {
        assert_eq!(mode(&data.join(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(&data.join("triaged.db")), 0o600);
}

#[test]
fn whoever_hears_of_flagged_studies_hears_of_failed_slices_and_from_which_station() {
    if !has("storescu") {
        return;
    }
    let receiver = Receiver::start(&[]);
    let (node, _card) = node_that_flags_from(1000, &[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    // Not eligible, so incomplete as well: nobody is called, for nothing failed.
    let scouts = slices(40, |_, object| put(object, tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER"));
    send(&node, &scouts[..2]);
    assert_eq!(decided(&node, &study_of(&scouts)).0, "incomplete");
    let failed = slices(41, |index, object| {
        put(object, tags::STATION_NAME, VR::SH, "ROOM 2");
        if index == 14 {
            cut_short(object)
        }
    });
    send(&node, &failed);
    let told = receiver.wait_for(1).remove(0);
    let body: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!((&body["study_uid"], &body["station_name"]), (&study_of(&failed).into(), &"ROOM 2".into()), "{body}");
    assert_eq!(body["slices_failed"], 1, "{body}");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 1);
}
