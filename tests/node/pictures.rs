//! Promise 8 for what people look at: pictures are decoded by processes of their own, as scores are. An object that was made to do harm costs
//! its picture; the node, and everybody else's pictures, go on. And promise 3 for people: they see what the decoders give.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use triaged::config::Settings;
use triaged::decoding::{Frames, NoFrame, Slice};
use triaged::objects::LocalFile;
use triaged_imaging::{decode_frame, frame_count, read_frames};

use crate::attacks::{decoders, empty_elements, jpeg_2000_bomb, jpeg_of_empty_scans, pixels, status_of};
use crate::documents::get_bytes;
use crate::support::raw_store::{DEFLATED, EXPLICIT, JPEG_2000, JPEG_EXTENDED, Sender, element, encapsulated, head_ct};
use crate::support::{Node, PATIENCE, dicom_files, phantom, storescu};

/// A person waits no longer than this for a sound picture while others are attacked with: debug build, busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The memory of the node, in KiB, the model included.
const SMALL: usize = 1 << 20;

/// And of a process: `inference.decode_memory_mib`, and what it takes for itself.
const OF_A_PROCESS: usize = (640 + 64) << 10;

const QUIET: (&str, &str) = ("TRIAGED__TRIAGE__QUIET_SECONDS", "1");

fn address(uid: &str) -> String {
    format!("/studies/{uid}.1/series/{uid}.2/slices/{uid}/1")
}

/// A slice that is not scored, so that nothing has decoded it before somebody looks.
fn localizer(uid: &str, side: u16, more: &[u8]) -> Vec<u8> {
    [element(0x0008_0008, "CS", b"ORIGINAL\\PRIMARY\\LOCALIZER"), head_ct(uid, 1, side, more)].concat()
}

/// A study of sound slices, scored and judged. Returns the addresses of its pictures.
fn sound_study(node: &Node) -> Vec<String> {
    let series = phantom(&["--slices", "12", "--lesion", "epidural", "--seed", "1"]);
    storescu(node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE flagged = 1 AND state = 'decided'");
    let database = node.database();
    let sql = "SELECT '/studies/' || study_uid || '/series/' || series_uid || '/slices/' || sop_uid || '/1'
               FROM slice_results WHERE state = 'scored' ORDER BY probability DESC";
    let mut statement = database.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect()
}

fn is_png(node: &Node, path: &str) -> bool {
    let (status, body) = get_bytes(node, path);
    status == 200 && body.starts_with(b"\x89PNG")
}

/// KiB at most so far, of the node and of each process that it has now.
fn memory(node: &Node) -> Vec<usize> {
    std::iter::once(node.pid()).chain(decoders(node)).map(|pid| status_of(pid, "VmHWM:")).collect()
}

#[test]
fn an_object_made_to_do_harm_costs_its_picture_and_no_other() {
    let node = Node::start(&[QUIET]);
    let sound = sound_study(&node);
    let deflated = |uid: &str, more: &[u8]| {
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
        deflated.write_all(&[localizer(uid, 512, more), pixels(512 * 512 * 2)].concat()).unwrap();
        deflated.finish().unwrap()
    };
    let compressed = |uid: &str, codestream: &[u8]| [localizer(uid, 512, &[]), encapsulated(&[codestream])].concat();
    let objects = [
        ("2.25.1", JPEG_EXTENDED, compressed("2.25.1", &jpeg_of_empty_scans(40_000))),
        ("2.25.2", JPEG_2000, compressed("2.25.2", &jpeg_2000_bomb(512))),
        ("2.25.3", JPEG_2000, compressed("2.25.3", &jpeg_2000_bomb(1))),
        ("2.25.4", DEFLATED, deflated("2.25.4", &element(0x0029_1001, "UN", &vec![0; 200 << 20]))),
        ("2.25.5", DEFLATED, deflated("2.25.5", &empty_elements(900_000))),
        ("2.25.6", EXPLICIT, [localizer("2.25.6", 512, &empty_elements(900_000)), pixels(512 * 512 * 2)].concat()),
        ("2.25.7", EXPLICIT, [localizer("2.25.7", 4096, &[]), pixels(4096 * 4096 * 2)].concat()),
    ];
    for (uid, syntax, object) in &objects {
        let status = Sender::associate(&node, "ATTACKER", syntax).store(uid, object);
        assert_eq!(status, 0, "{uid}");
        node.wait_until(&format!(
            "SELECT count(*) = 1 FROM slice_results WHERE sop_uid = '{uid}' AND state = 'ineligible'"
        ));
    }
    let pid = node.pid();
    let longest = std::thread::scope(|scope| {
        // Each is asked for three times at once.
        let asked: Vec<_> = (0..3)
            .flat_map(|_| &objects)
            .map(|(uid, ..)| {
                let node = &node;
                (*uid, scope.spawn(move || get_bytes(node, &address(uid))))
            })
            .collect();
        let mut longest = Duration::ZERO;
        for path in &sound {
            let began = Instant::now();
            assert!(is_png(&node, path), "{path}");
            assert_eq!(node.get("/healthz").0, 200);
            longest = longest.max(began.elapsed());
        }
        for (uid, asked) in asked {
            let (status, body) = asked.join().unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            let sound_in_the_end = ["2.25.4", "2.25.5", "2.25.6", "2.25.7"].contains(&uid);
            assert!(status == 422 || (status == 200 && sound_in_the_end), "{uid}: {status} {body}");
            assert!(status == 200 || body.contains("the slice cannot be shown"), "{uid}: {body}");
        }
        longest
    });
    let memory = memory(&node);
    println!("a sound picture came within {longest:?}; KiB at most: {memory:?}");
    assert!(longest < SOON, "{longest:?}");
    assert!(memory[0] < SMALL && memory[1..].iter().all(|process| *process < OF_A_PROCESS), "{memory:?}");
    assert_eq!(node.pid(), pid);
    assert!(is_png(&node, &sound[0]));
}

/// The bound of memory is what ends the process here, so that the object is remembered.
#[test]
fn an_object_that_ended_a_process_is_not_tried_again_and_its_key_image_is_refused() {
    let node = Node::start(&[QUIET, ("TRIAGED__INFERENCE__DECODE_MEMORY_MIB", "64")]);
    let sound = sound_study(&node);
    // Values of 4096 × 4096 pixels take 64 MiB, and their Hounsfield units as many.
    let object = [localizer("2.25.1", 4096, &[]), pixels(4096 * 4096 * 2)].concat();
    assert_eq!(Sender::associate(&node, "ATTACKER", EXPLICIT).store("2.25.1", &object), 0);
    node.wait_until("SELECT count(*) = 1 FROM slice_results WHERE sop_uid = '2.25.1' AND state = 'ineligible'");
    let ends = || {
        let (_, metrics) = node.get("/metrics");
        let of_crashes = |line: &&str| line.starts_with("triaged_decoder_ends_total") && line.contains("crash");
        metrics.lines().find(of_crashes).map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    for _ in 0..3 {
        let (status, body) = get_bytes(&node, &address("2.25.1"));
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 422, "{body}");
        assert!(body.contains("inference.decode_memory_mib"), "{body}");
    }
    assert_eq!(ends(), 1, "it is tried once");
    node.wait_for_log("no picture can be made of an object");

    // The file of the most suspicious slice becomes that object: the report is made, its key image is not, in words.
    let study: String = node.query("SELECT study_uid FROM worklist WHERE flagged = 1");
    let path = |condition: &str| -> std::path::PathBuf {
        let path: String = node.query(&format!(
            "SELECT path FROM instances i JOIN slice_results r USING (sop_uid) WHERE {condition} ORDER BY r.probability DESC LIMIT 1"
        ));
        node.folder.path().join(path)
    };
    std::fs::copy(path("i.sop_uid = '2.25.1'"), path("r.state = 'scored'")).unwrap();
    let (status, body) = get_bytes(&node, &format!("/api/v1/studies/{study}/key-image.dcm"));
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("inference.decode_memory_mib"), "{body}");
    assert_eq!(get_bytes(&node, &format!("/api/v1/studies/{study}/report.dcm")).0, 200);
    let out = node.folder.path().join("key-image.dcm");
    let said = node.cli(&["report", &study, "--key-image", "--out", out.to_str().unwrap()]);
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && words.contains("inference.decode_memory_mib"), "{words}");
    assert!(is_png(&node, &sound[1]));
}

#[test]
fn processes_for_pictures_are_replaced_when_they_are_killed_and_end_when_nobody_looks() {
    let node = Node::start(&[QUIET]);
    let sound = sound_study(&node);
    let of_scoring = decoders(&node);
    for path in &sound {
        assert!(is_png(&node, path), "{path}");
        let own = decoders(&node).into_iter().filter(|pid| !of_scoring.contains(pid));
        for pid in own {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    // As another picture of the same slices, so that none comes from the cache.
    assert!(sound.iter().all(|path| is_png(&node, &format!("{path}?window=bone"))));
    assert!(decoders(&node).len() > of_scoring.len(), "a process stays for the next picture");
    let deadline = Instant::now() + PATIENCE;
    while decoders(&node) != of_scoring {
        assert!(Instant::now() < deadline, "{:?} beside {of_scoring:?}", decoders(&node));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(is_png(&node, &format!("{}?window=stroke", sound[0])));
}

#[test]
fn people_see_the_hounsfield_units_that_the_decoders_give() {
    let settings = Settings::load(None, &[]).unwrap();
    let frames = Frames::start(env!("CARGO_BIN_EXE_triaged").into(), &settings.inference);
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut seen = 0;
    for file in ["pixels", "data_set"].iter().flat_map(|folder| dicom_files(&seeds.join(folder))) {
        let object = read_frames(&file).unwrap();
        let syntax = object.meta().transfer_syntax().trim_end_matches('\0').to_owned();
        for frame in 0..frame_count(&object).unwrap_or(1) {
            let size = std::fs::metadata(&file).unwrap().len();
            let slice = Slice { object: file.to_str().unwrap(), transfer_syntax: &syntax, frame };
            let given = frames.frame(LocalFile::own(file.clone(), size), slice);
            match (decode_frame(&object, frame), given) {
                (Ok(expected), Ok(given)) => {
                    assert_eq!((given.rows, given.columns), (expected.rows, expected.columns), "{}", file.display());
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert!(bits(&given.hounsfield) == bits(&expected.hounsfield()), "{} {frame}", file.display());
                    seen += 1;
                }
                (Err(expected), Err(NoFrame::Undecodable(why))) => assert_eq!(why, expected.to_string()),
                (expected, given) => panic!("{} {frame}: {:?} {:?}", file.display(), expected.err(), given.err()),
            }
        }
    }
    assert!(seen >= 8, "{seen}");
}
