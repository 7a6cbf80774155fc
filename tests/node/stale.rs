//! A page never passes what is old for what is new: it says when it can no longer tell, its alarm is about the whole node, and no
//! deed is about a verdict that its person has not seen.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::phantoms::study_files;
use crate::support::{Node, dicom_files, free_port, phantom, storescu};

const QUIET: (&str, &str) = ("TRIAGED__TRIAGE__QUIET_SECONDS", "1");

/// Writes down each tone that the page plays.
const LISTEN: &str = "window.tones = []; window.OscillatorNode = ((Tone) => function (sound, options) { tones.push(options.frequency); return new Tone(sound, options); })(OscillatorNode); 0";

/// A study that is incomplete, and the rest of it, by which it is flagged.
fn incomplete_study(node: &Node) -> (tempfile::TempDir, Vec<std::path::PathBuf>, String) {
    let series = phantom(&["--lesion", "epidural"]);
    let files = dicom_files(series.path());
    storescu(node, &[], &files[..1]).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND verdict = 'incomplete'");
    let uid = node.query("SELECT study_uid FROM worklist");
    let rest = files[1..].to_vec();
    (series, rest, uid)
}

#[test]
fn what_was_typed_stays_while_the_verdict_changes_and_goes_with_the_new_one() {
    let node = Node::start(&[QUIET]);
    let Some(mut browser) = Browser::start(node.web) else { return };
    let (_series, rest, uid) = incomplete_study(&node);
    let path = format!("/studies/{uid}");
    browser.open(1, json!({}), &path);
    browser.open(2, json!({ "script": false }), &path);
    browser.fill(1, "textarea[name=note]", "called the ward");
    browser.fill(2, "textarea[name=note]", "seen by the other");
    let old: i64 = node.query("SELECT verdict_id FROM worklist");
    storescu(&node, &[], &rest).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND flagged = 1");
    // With script: heading and card change together, and the note stays under the caret.
    browser.wait(1, "document.querySelector('h1').innerText.includes('FLAGGED')");
    browser.wait(1, "document.querySelector('.about').innerText.includes('FLAGGED')");
    let new: i64 = node.query("SELECT verdict_id FROM worklist");
    browser.wait(1, &format!("document.querySelector('input[name=verdict]').value === '{new}'"));
    assert_eq!(browser.eval(1, "document.querySelector('textarea[name=note]').value"), "called the ward");
    assert_eq!(browser.eval(1, "document.activeElement.name"), "note");
    // Without: nothing is acknowledged, and the page comes with the new verdict and the note.
    browser.click(2, "[data-part=acknowledgement] button.primary");
    assert!(browser.text(2, "h1").contains("FLAGGED"));
    assert!(browser.text(2, ".warning").contains("Nothing was done"), "{}", browser.text(2, "main"));
    assert_eq!(browser.eval(2, "document.querySelector('textarea[name=note]').value"), "seen by the other");
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NULL FROM worklist"), 1);
    let refused = node.cli(&["ack", &uid, "--verdict", &old.to_string()]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("FLAGGED"));
    // The same, now that it was seen.
    browser.click(2, "[data-part=acknowledgement] button.primary");
    node.wait_until("SELECT acknowledged_at IS NOT NULL FROM worklist");
    assert!(browser.text(2, ".timeline").contains("seen by the other"));
    // Somebody was faster: what was typed is not lost without a word.
    browser.wait(1, "!document.getElementById('deed').hidden && document.getElementById('deed').innerText.includes('called the ward')");
    assert_eq!(browser.faults(1), Vec::<String>::new());
}

#[test]
fn every_view_sounds_for_a_new_flag_and_says_that_it_can_tell_no_more() {
    let web = format!("127.0.0.1:{}", free_port());
    let mut node = Node::start(&[QUIET, ("TRIAGED__WEB__LISTEN", &web)]);
    let Some(mut browser) = Browser::start(node.web) else { return };
    let healthy = phantom(&["--slices", "3", "--seed", "9"]);
    storescu(&node, &[], &dicom_files(healthy.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided'");
    let (uid, flagged): (String, i64) =
        (node.query("SELECT study_uid FROM worklist"), node.query("SELECT count(*) FROM worklist WHERE flagged = 1"));
    let views = ["/?ae=NOBODY", "/?q=nobody", &format!("/studies/{uid}")];
    for (page, view) in (1..).zip(views) {
        browser.open(page, json!({}), view);
        browser.eval(page, LISTEN);
        browser.click(page, "#alerts");
        browser.wait(page, "tones.length > 0 && document.getElementById('alerts').innerText.endsWith(': on')");
        browser.wait(page, "sessionStorage.getItem('triaged.flags') !== null");
        browser.eval(page, "tones.length = 0");
    }
    let (_series, files) = study_files(&["--lesion", "epidural"], 1);
    storescu(&node, &[], &files).unwrap();
    node.wait_until(&format!("SELECT count(*) = {} FROM worklist WHERE flagged = 1", flagged + 1));
    for page in 1..=3 {
        browser.wait(page, "tones.includes(880)");
    }
    // Once a study, not once a verdict.
    node.wait_until("SELECT count(*) = 2 FROM worklist WHERE state = 'decided'");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for page in 1..=3 {
        assert_eq!(browser.eval(page, "tones.length"), 4, "page {page}");
    }
    node.kill();
    for page in 1..=3 {
        browser.wait(page, "tones.includes(220) && document.title.startsWith('⚠ no contact: ')");
    }
    node.restart();
    for page in 1..=3 {
        browser.wait(page, "document.getElementById('offline').hidden && !document.title.startsWith('⚠')");
    }
}

#[test]
fn a_list_that_cannot_be_fetched_is_out_of_date_and_a_deed_is_done_only_where_the_node_says_so() {
    let node = Node::start(&[QUIET]);
    let Some(mut browser) = Browser::start(node.web) else { return };
    browser.open(1, json!({}), "/");
    browser.wait(1, "document.getElementById('contact').innerText.startsWith('updated')");
    let elsewhere = json!({ "status": 302, "headers": { "Location": "http://127.0.0.1:9/sso" } });
    browser.answer(1, "GET", "/", json!({ "status": 500, "body": "{}" }));
    let (_series, files) = study_files(&["--lesion", "epidural"], 1);
    storescu(&node, &[], &files).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND flagged = 1");
    browser.wait(1, "!document.getElementById('offline').hidden");
    let said = browser.text(1, "#offline");
    assert!(said.contains("out of date since") && said.contains("500"), "{said}");
    assert_eq!(browser.text(1, "#contact"), "out of date");
    assert!(browser.eval(1, "document.title").as_str().unwrap().starts_with("⚠ out of date: "));
    // It is tried again though nothing else comes.
    browser.answer(1, "GET", "/", json!(null));
    browser
        .wait(1, "document.getElementById('offline').hidden && document.querySelector('tr.flagged.unread') !== null");

    // A log-in before the node: what it answers is no success, and what it says stays.
    let uid: String = node.query("SELECT study_uid FROM worklist");
    browser.open(1, json!({}), &format!("/studies/{uid}"));
    for (answer, words) in [
        (elsewhere, "Nothing was done. Something before the node"),
        (json!({ "status": 200, "body": "<h1>Log in</h1>", "content_type": "text/html" }), "Nothing was done."),
        (
            json!({ "status": 403, "body": "{\"error\": \"dr.b may not do this\"}", "content_type": "application/json" }),
            "dr.b may not do this",
        ),
    ] {
        browser.answer(1, "POST", &format!("/studies/{uid}/acknowledge"), answer);
        browser.fill(1, "textarea[name=note]", "called the ward");
        browser.click(1, "[data-part=acknowledgement] button.primary");
        browser.wait(1, &format!("document.getElementById('deed').innerText.includes({words:?})"));
        std::thread::sleep(std::time::Duration::from_millis(2500));
        assert!(browser.text(1, "#deed").contains(words), "it stays until it was read");
        assert_eq!(browser.eval(1, "document.querySelector('textarea[name=note]').value"), "called the ward");
        browser.click(1, "#deed button");
    }
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NULL FROM worklist"), 1);
    browser.answer(1, "POST", "/", json!(null));
    browser.click(1, "[data-part=acknowledgement] button.primary");
    node.wait_until("SELECT acknowledged_at IS NOT NULL FROM worklist");
    browser.wait(1, "document.querySelector('.timeline').innerText.includes('called the ward')");
    assert_eq!(browser.faults(1), Vec::<String>::new());
}

#[test]
fn who_is_logged_out_sees_no_patient_hears_so_and_keeps_what_was_typed() {
    let login = [("TRIAGED__WEB__LOGIN__ENABLED", "true"), ("TRIAGED__WEB__LOGIN__SESSION_HOURS", "0.1"), QUIET];
    let node = Node::start(&login);
    let Some(mut browser) = Browser::start(node.web) else { return };
    let (_series, _, uid) = incomplete_study(&node);
    let password = |name: &str, role: &str| {
        let said = node.cli(&["user", "add", name, "--role", role]).stdout;
        let said = String::from_utf8(said).unwrap();
        said.lines().find_map(|line| line.strip_prefix("password: ")).unwrap().to_owned()
    };
    for (page, name, role) in [(1, "reader", "reader"), (2, "viewer", "viewer")] {
        let password = password(name, role);
        browser.open(page, json!({}), &format!("/studies/{uid}"));
        browser.fill(page, "#name", name);
        browser.fill(page, "#password", &password);
        browser.click(page, "form.login button");
        browser.wait(page, "document.querySelector('[data-part=acknowledgement]') !== null");
    }
    // Buttons are for those who may.
    assert_eq!(browser.eval(1, "document.querySelectorAll('[data-part] form').length > 0"), true);
    assert_eq!(browser.eval(2, "document.querySelectorAll('main form').length"), 0);
    // Six minutes are left, which is said.
    browser.wait(1, "document.getElementById('deed').innerText.includes('You will be logged out at')");
    browser.click(1, "#deed button");
    browser.eval(1, LISTEN);
    browser.click(1, "#alerts");
    browser.wait(1, "tones.includes(880)");
    browser.fill(1, "textarea[name=note]", "called the ward");
    node.meddle().execute("DELETE FROM sessions", []).unwrap();
    browser.wait(1, "!document.getElementById('offline').hidden && document.getElementById('main').hidden");
    assert!(browser.text(1, "#offline").contains("You are logged out"), "{}", browser.text(1, "#offline"));
    assert_eq!(browser.eval(1, "document.getElementById('main').offsetHeight"), 0, "no patient on the screen");
    browser.wait(1, "tones.includes(220) && document.title.startsWith('⚠ logged out: ')");
    assert!(
        browser
            .eval(1, "document.querySelector('#offline a').getAttribute('href')")
            .as_str()
            .unwrap()
            .starts_with("/login?next=")
    );
    assert_eq!(browser.eval(1, "document.querySelector('textarea[name=note]').value"), "called the ward");
}

#[test]
fn keys_focus_and_cards_serve_who_works_by_keyboard_and_on_small_screens() {
    let node = Node::start(&[QUIET]);
    let Some(mut browser) = Browser::start(node.web) else { return };
    for number in [1, 2] {
        let (_folder, files) = study_files(&["--lesion", "epidural"], number);
        storescu(&node, &[], &files).unwrap();
    }
    node.wait_until("SELECT count(*) = 2 FROM worklist WHERE state = 'decided' AND flagged = 1");
    // The name that signs is said, and can be changed.
    browser.open(1, json!({}), "/");
    browser.fill(1, ".me input", "Dr. Night");
    browser.press(1, "Tab");
    browser.wait(1, "document.querySelector('tr [data-as]').innerText === 'as Dr. Night' && document.querySelector('.me summary').innerText.includes('change')");
    // After a deed the focus is on the study's name.
    browser.eval(1, "document.querySelector('tbody tr button[aria-label^=Acknowledge]').focus()");
    browser.press(1, "Enter");
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE acknowledged_by = 'Dr. Night'");
    browser.wait(1, "document.activeElement.matches('a.main')");
    browser.open(1, json!({}), "/?ack=no");
    browser.wait(1, "document.querySelectorAll('#list tbody tr').length === 1");
    browser.eval(1, "document.querySelector('tbody tr button[aria-label^=Acknowledge]').focus()");
    browser.press(1, "Enter");
    browser.wait(1, "document.querySelector('#list tbody') === null && document.activeElement.id === 'list'");
    // A closed list is gone through by arrow keys, and applied by Enter.
    browser.eval(1, "document.querySelector('select[name=sort]').focus()");
    browser.press(1, "ArrowDown");
    browser.press(1, "ArrowDown");
    assert_eq!(browser.eval(1, "location.search"), "?ack=no");
    browser.press(1, "Enter");
    browser.wait(1, "location.search.includes('sort=oldest')");
    // Nothing is squeezed where nine columns have no room.
    for width in [760, 900, 1000, 1180] {
        browser.open(1, json!({ "width": width }), "/");
        let high = browser
            .eval(1, "Math.max(...Array.from(document.querySelectorAll('#list tbody tr'), (row) => row.offsetHeight))");
        assert!(high.as_f64().unwrap() < 320.0, "{high} at {width}");
        assert!(browser.eval(1, "document.documentElement.scrollWidth - innerWidth").as_i64().unwrap() <= 0, "{width}");
    }
    // The viewer's keys are the viewer's alone.
    let uid: String = node.query("SELECT study_uid FROM worklist LIMIT 1");
    browser.open(1, json!({ "width": 390 }), &format!("/studies/{uid}"));
    browser.wait(1, "document.getElementById('slice')?.naturalWidth > 64");
    let before = browser.text(1, "#caption");
    browser.eval(1, "document.querySelector('[data-part=verdicts] .wide').focus()");
    for key in ["ArrowRight", "m", "h", "End"] {
        browser.press(1, key);
    }
    assert_eq!(browser.text(1, "#caption"), before);
    browser.wait(1, "document.querySelector('[data-part=verdicts] .wide').scrollLeft > 0");
    assert_eq!(browser.eval(1, "document.getElementById('marks').getAttribute('aria-pressed')"), "true");
    browser.eval(1, "document.getElementById('screen').focus()");
    browser.press(1, "Home");
    browser.wait(1, "document.getElementById('caption').innerText.startsWith('1 of ')");
    assert_eq!(browser.faults(1), Vec::<String>::new());
}
