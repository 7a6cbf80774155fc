//! A model that says where the finding is: from its second output to the box that people, documents and programs get.

use serde_json::{Value, json};
use triaged_imaging::attributes::text;
use triaged_imaging::phantom::{Lesion, PhantomSpec, SIDE, slices};
use triaged_imaging::{PixelBox, read_file};

use crate::documents::{dciodvfy, documents, get_bytes, highdicom, sr_validator, validate};
use crate::support::browser::Browser;
use crate::support::{Node, Receiver, SPOT, dicom_files, has, phantom, storescu};

fn with_a_bleed(settings: &[(&str, &str)]) -> Node {
    let node = Node::start(&[&[("TRIAGED__TRIAGE__QUIET_SECONDS", "1")], settings].concat());
    let series = phantom(&["--slices", "12", "--lesion", "epidural", "--seed", "1"]);
    storescu(&node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided'");
    node
}

fn of_json(value: &Value) -> PixelBox {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

/// How much of a box is blood, 0 to 1.
fn blood_in(found: PixelBox, blood: &[bool]) -> f64 {
    let pixels = (0..blood.len()).filter(|i| found.holds((i / SIDE) as u32, (i % SIDE) as u32));
    let of_blood = pixels.filter(|i| blood[*i]).count();
    of_blood as f64 / f64::from(found.width * found.height)
}

#[test]
fn every_suspicious_slice_has_a_box_around_its_blood_and_the_alert_carries_it() {
    let receiver = Receiver::start(&[]);
    let node = with_a_bleed(&[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    let truth: Vec<(String, Vec<bool>)> = slices(&PhantomSpec { slices: 12, lesion: Some(Lesion::Epidural), seed: 1 })
        .map(|slice| (text(&slice.object, dicom_dictionary_std::tags::SOP_INSTANCE_UID).unwrap(), slice.blood))
        .collect();
    let study: String = node.query("SELECT study_uid FROM worklist");
    let (status, body) = node.get(&format!("/api/v1/studies/{study}"));
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&body).unwrap();
    let mut boxes = 0;
    for slice in answer["slices"].as_array().unwrap() {
        let is_suspicious = slice["probability"].as_f64().unwrap() >= 0.3;
        assert_eq!(slice["box_left"].is_u64(), is_suspicious, "{slice}");
        assert_eq!(slice["slice_rows"].as_u64(), is_suspicious.then_some(512), "{slice}");
        if is_suspicious {
            let edge = |name: &str| &slice[name];
            let [left, top, width, height] = ["box_left", "box_top", "box_width", "box_height"].map(edge);
            let found = of_json(&json!({ "left": left, "top": top, "width": width, "height": height }));
            let (_, blood) = truth.iter().find(|(sop, _)| *sop == slice["sop_uid"]).unwrap();
            assert!(blood_in(found, blood) > 0.25, "{found:?} in {slice}");
            boxes += 1;
        }
    }
    assert!(boxes >= 3, "{boxes}");
    let alert: Value = serde_json::from_slice(&receiver.wait_for(1)[0].body).unwrap();
    let top = &alert["top_slices"][0];
    let (_, blood) = truth.iter().find(|(sop, _)| *sop == top["sop_uid"]).unwrap();
    assert!(blood_in(of_json(&top["box"]), blood) > 0.25, "{top}");
    // The model's map of a slice is a picture; a slice that is not suspicious has none.
    let path = |order: &str| -> String {
        node.query(&format!(
            "SELECT '/studies/' || study_uid || '/series/' || series_uid || '/slices/' || sop_uid || '/1/heat-map'
             FROM slice_results ORDER BY probability {order} LIMIT 1"
        ))
    };
    let (status, png) = get_bytes(&node, &path("DESC"));
    assert_eq!((status, &png[1..4]), (200, &b"PNG"[..]));
    assert_eq!(get_bytes(&node, &path("ASC")).0, 404);
}

#[test]
fn report_and_key_image_show_where() {
    let node = with_a_bleed(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (report, key_image) = documents(&node, folder.path());
    validate(&report, &key_image);
    let boxes = "FROM slice_results WHERE box_left IS NOT NULL ORDER BY probability DESC, instance_number LIMIT 1";
    if let Some(read) = highdicom(&report) {
        let sop: String = node.query(&format!("SELECT sop_uid {boxes}"));
        let corner: String =
            node.query(&format!("SELECT 'POLYLINE [(' || box_left || ', ' || box_top || '), ' {boxes}"));
        assert!(read.contains(&format!("region {sop} {corner}")), "{corner} is not in {read}");
        assert!(read.contains("region of 1386000"), "{read}");
        assert_eq!(read.matches("region of").count(), 3, "{read}");
        assert!(read.contains("evaluation 52101004 SCT Present"), "{read}");
    }
    // The picture differs from one without a box by the frame's three lines alone.
    let object = read_file(&key_image).unwrap();
    let said = text(&object, dicom_dictionary_std::tags::DERIVATION_DESCRIPTION).unwrap();
    assert!(said.contains("a frame around the finding"), "{said}");
    if let Ok(folder) = std::env::var("TRIAGED_TEST_DOCUMENTS") {
        std::fs::copy(&report, std::path::Path::new(&folder).join("report-with-regions.dcm")).unwrap();
        std::fs::copy(&key_image, std::path::Path::new(&folder).join("key-image-with-frame.dcm")).unwrap();
    }
}

/// pixelmed's validator (2022) judges every measurement group by TID 1410 if all groups together have exactly one region, so also the group of
/// TID 1501, which needs none: DicomSRDescriptionsCompiled.xsl counts `container/scoord` over all containers. Whoever validates sees these two lines;
/// any other is a fault of the report.
#[test]
fn of_a_report_with_one_region_a_validator_says_what_it_says_of_no_other() {
    let node = Node::start(&[]);
    // Its last slice has skull that looks dense.
    let series = phantom(&["--slices", "8"]);
    storescu(&node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided'");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE box_left IS NOT NULL"), 1);
    let folder = tempfile::tempdir().unwrap();
    let (report, key_image) = documents(&node, folder.path());
    if has("dciodvfy") {
        assert_eq!((dciodvfy(&report), dciodvfy(&key_image)), (vec![], vec![]));
    }
    if let Some(errors) = sr_validator(&report) {
        let rows: Vec<bool> =
            ["[Row 5] SCOORD", "[Row 7] IMAGE"].map(|row| errors.iter().any(|line| line.contains(row))).into();
        let is_known = |line: &String| line.contains("Template 1410") && line.contains("within 1.9.1:");
        assert!(errors.len() == 2 && rows == [true; 2] && errors.iter().all(is_known), "{errors:?}");
    }
    if let Some(read) = highdicom(&report) {
        assert_eq!(read.matches("region of").count(), 1, "{read}");
    }
}

#[test]
fn the_box_is_shown_hidden_and_kept_in_the_address() {
    let node = with_a_bleed(&[]);
    let Some(mut browser) = Browser::start(node.web) else { return };
    let study: String = node.query("SELECT study_uid FROM worklist");
    browser.open(1, json!({ "bypass": true }), &format!("/studies/{study}"));
    browser.wait(1, "document.getElementById('slice')?.naturalWidth > 64");
    let rectangle =
        |browser: &mut Browser| browser.eval(1, "document.querySelector('#overlay .mark')?.getAttribute('x') ?? null");
    let left: i64 = node.query("SELECT box_left FROM slice_results ORDER BY probability DESC, instance_number LIMIT 1");
    assert_eq!(rectangle(&mut browser), json!(left.to_string()));
    // It lies on the picture, in the picture's own pixels.
    let place = "(() => { const [i, m] = ['#slice', '#overlay .mark'].map((s) => document.querySelector(s).getBoundingClientRect()); \
                 return Math.round((m.left - i.left) / i.width * 512); })()";
    assert!((browser.eval(1, place).as_i64().unwrap() - left).abs() <= 2, "{}", browser.eval(1, place));
    for hide in ["key", "button"] {
        let toggle = |browser: &mut Browser| match hide {
            // Keys are the viewer's where the pointer is over it.
            "key" => {
                browser.hover(1, "#slice");
                browser.press(1, "m");
            }
            _ => browser.click(1, "#marks"),
        };
        toggle(&mut browser);
        browser.wait(
            1,
            "document.getElementById('overlay').hasAttribute('hidden') && location.search.endsWith('marks=off')",
        );
        assert_eq!(browser.eval(1, "document.getElementById('marks').getAttribute('aria-pressed')"), "false");
        toggle(&mut browser);
        browser.wait(
            1,
            "!document.getElementById('overlay').hasAttribute('hidden') && !location.search.includes('marks')",
        );
    }
    browser.hover(1, "#slice");
    browser.press(1, "h");
    browser.wait(1, "document.querySelector('#overlay image') !== null");
    // A slice without a box has none.
    browser.press(1, "Home");
    browser.wait(1, "document.getElementById('caption').innerText.startsWith('1 of ')");
    assert_eq!(rectangle(&mut browser), Value::Null);
    assert_eq!(browser.axe(1), Vec::<String>::new());
    assert_eq!(browser.faults(1), Vec::<String>::new());
    // Without script: the same box, and a link that hides it.
    browser.open(2, json!({ "script": false }), &format!("/studies/{study}"));
    let drawn =
        |browser: &mut Browser| browser.eval(2, "document.querySelectorAll('#overlay:not([hidden]) .mark').length");
    assert_eq!(drawn(&mut browser), 1);
    browser.click(2, "#marks");
    browser.wait(2, "location.search.includes('marks=off')");
    assert_eq!(drawn(&mut browser), 0);
    if let Ok(folder) = std::env::var("TRIAGED_TEST_DOCUMENTS") {
        browser.open(3, json!({}), &format!("/studies/{study}"));
        browser.hover(3, "#slice");
        browser.press(3, "h");
        browser.wait(3, "document.getElementById('slice')?.naturalWidth > 64");
        browser.shot(3, &format!("{folder}/study-with-box.png"));
        browser.open(3, json!({}), "/");
        browser.wait(3, "document.querySelector('.thumb img')?.naturalWidth > 0");
        browser.shot(3, &format!("{folder}/worklist-with-box.png"));
    }
}

#[test]
fn a_card_that_names_no_map_of_its_graph_ends_the_check() {
    let node = Node::start(&[]);
    for (model, why) in [
        ("spot-wrong-shape", "[batch, rows, columns]"),
        ("spot-dynamic", "[batch, rows, columns]"),
        ("spot-wrong-values", "not between 0 and 1"),
    ] {
        let output = node.cli(&["check", "--model", &SPOT.replace("spot.json", &format!("{model}.json"))]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && said.contains("heat") && said.contains(why), "{model}: {said}");
    }
    let output = node.cli(&["check", "--model", SPOT]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
