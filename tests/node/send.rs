//! `triaged send` against DCMTK's storescp and against peers that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;
use dicom_ul::association::server::ServerAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};
use triaged::dimse::scu::{self, Peer};
use triaged_imaging::{decode_frame, read_file};

const SIDE: u16 = 64;

/// A small CT object with pixels that no codec finds trivial. `number` makes its UID.
fn object(path: &Path, number: u32, sop_class: &str, transfer_syntax: &str) {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let short = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let pixels: Vec<u16> = (0..u32::from(SIDE) * u32::from(SIDE)).map(|i| (i * 37 % 4096) as u16).collect();
    let uid = format!("1.2.3.{number}");
    let set = InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, sop_class),
        text(tags::SOP_INSTANCE_UID, VR::UI, &uid),
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.0"),
        text(tags::PATIENT_ID, VR::LO, "P"),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string()),
        short(tags::SAMPLES_PER_PIXEL, 1),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        short(tags::ROWS, SIDE),
        short(tags::COLUMNS, SIDE),
        short(tags::BITS_ALLOCATED, 16),
        short(tags::BITS_STORED, 12),
        short(tags::HIGH_BIT, 11),
        short(tags::PIXEL_REPRESENTATION, 0),
        text(tags::RESCALE_INTERCEPT, VR::DS, "-1024"),
        text(tags::RESCALE_SLOPE, VR::DS, "1"),
        DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())),
    ]);
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(sop_class)
        .media_storage_sop_instance_uid(uid)
        .transfer_syntax(transfer_syntax);
    set.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

fn triaged_send(to: SocketAddr, more: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_triaged"))
        .arg("send")
        .args(["--to", &to.to_string()])
        .args(more)
        .args(paths)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// DCMTK's receiver, on a port that was free a moment ago, writing into a folder.
struct StoreScp {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl StoreScp {
    fn start(options: &[&str]) -> Option<StoreScp> {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let spawned = Command::new("storescp")
            .args(options)
            .arg("-od")
            .arg(folder.path())
            .arg(address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIP DCMTK's storescp cannot be started: {error}");
                return None;
            }
        };
        let scp = StoreScp { child, address, folder };
        let begun = Instant::now();
        // It says nothing when it listens. Any answer, even a rejection, shows that it does.
        while let Err(scu::ScuError::Connect { .. }) = scu::echo(&scp.peer()) {
            assert!(begun.elapsed() < Duration::from_secs(30), "storescp does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(scp)
    }

    fn peer(&self) -> Peer {
        Peer::plain(self.address.to_string(), "ANY-SCP".into(), "TEST".into(), Duration::from_secs(30))
    }

    fn received(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for StoreScp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with subfolders, objects in every syntax that DCMTK and we can write, and files that are no objects.
fn mixed_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("a/b")).unwrap();
    object(&path("a/explicit"), 1, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object(&path("a/b/implicit.dcm"), 2, uids::CT_IMAGE_STORAGE, uids::IMPLICIT_VR_LITTLE_ENDIAN);
    object(&path("a/deflated"), 3, uids::CT_IMAGE_STORAGE, uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
    object(&path("mr"), 4, uids::MR_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object(&path("capture"), 5, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    for (number, tool, option) in
        [(6, "dcmcjpeg", "+e1"), (7, "dcmcjpls", "+el"), (8, "dcmcrle", ""), (9, "dcmconv", "+tb")]
    {
        let (plain, packed) = (path("plain"), path(tool));
        object(&plain, number, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let options = Some(option).filter(|option| !option.is_empty());
        let status = Command::new(tool).args(options).arg(&plain).arg(&packed).status().unwrap();
        assert!(status.success(), "{tool}");
        std::fs::remove_file(plain).unwrap();
    }
    std::fs::write(path("README.txt"), "not an object").unwrap();
    std::fs::write(path("a/empty"), "").unwrap();
    folder
}

fn stored_pixels(path: &Path) -> Vec<i32> {
    decode_frame(&read_file(path).unwrap(), 0).unwrap().stored
}

#[test]
fn a_folder_of_many_classes_and_syntaxes_goes_on_one_association_as_it_is() {
    let Some(scp) = StoreScp::start(&["+xa"]) else { return };
    let folder = mixed_folder();
    let (code, out, err) = triaged_send(scp.address, &[], &[folder.path()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("9 objects stored by TRIAGED at"), "{out}");
    assert!(out.contains(", 2 other files skipped"), "{out}");
    let received = scp.received();
    assert_eq!(received.len(), 9);
    let mut syntaxes: Vec<String> = received
        .iter()
        .map(|path| read_file(path).unwrap().meta().transfer_syntax().trim_end_matches('\0').to_owned())
        .collect();
    syntaxes.sort();
    syntaxes.dedup();
    assert_eq!(syntaxes.len(), 7, "as they were: {syntaxes:?}");
}

#[test]
fn a_peer_that_takes_only_implicit_little_endian_gets_every_pixel_in_it() {
    let Some(scp) = StoreScp::start(&["+xi"]) else { return };
    let folder = mixed_folder();
    let (code, out, err) = triaged_send(scp.address, &[], &[folder.path()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let received = scp.received();
    assert_eq!(received.len(), 9);
    let original = stored_pixels(&folder.path().join("a/explicit"));
    for path in received {
        let syntax = read_file(&path).unwrap().meta().transfer_syntax().trim_end_matches('\0').to_owned();
        assert_eq!(syntax, uids::IMPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(stored_pixels(&path), original, "{}", path.display());
    }
}

#[test]
fn objects_are_cut_into_pdus_as_short_as_the_peer_takes() {
    let Some(scp) = StoreScp::start(&["-pdu", "4096"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    object(&path, 1, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(triaged_send(scp.address, &[], &[&path]).0, 0);
    assert_eq!(stored_pixels(&scp.received()[0]), stored_pixels(&path));
}

#[test]
fn one_bad_object_leaves_the_others_alone() {
    let Some(scp) = StoreScp::start(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    object(&path("1"), 1, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object(&path("2"), 2, "1.2.3.4.5", uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object(&path("3"), 3, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let whole = std::fs::read(path("3")).unwrap();
    std::fs::write(path("3"), &whole[..whole.len() - 100]).unwrap();
    object(&path("4"), 4, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let (code, out, err) = triaged_send(scp.address, &[], &[folder.path()]);
    assert_eq!(code, 1);
    assert!(out.starts_with("2 objects stored by") && out.contains(", 2 failed"), "{out}");
    assert!(err.contains("/2: the peer accepts no SOP class 1.2.3.4.5\n"), "{err}");
    assert!(err.contains("/3: ") && err.contains("truncated"), "{err}");
    assert_eq!(scp.received().len(), 2);
}

#[test]
fn no_accepted_context_is_told_at_once() {
    let Some(scp) = StoreScp::start(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        let path = folder.path().join(number.to_string());
        object(&path, number, "1.2.3.4.5", uids::EXPLICIT_VR_LITTLE_ENDIAN);
    }
    let begun = Instant::now();
    let (code, out, err) = triaged_send(scp.address, &[], &[folder.path()]);
    assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
    assert!(err.contains("accepted none of the presentation contexts offered: SOP class 1.2.3.4.5"), "{err}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_rejection_and_an_abort_are_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    object(&path, 1, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let Some(scp) = StoreScp::start(&["--refuse"]) else { return };
    let (code, _, err) = triaged_send(scp.address, &[], &[&path]);
    assert_eq!(code, 1);
    assert!(err.contains("rejected the association (for good): no reason given"), "{err}");
    let Some(scp) = StoreScp::start(&["--abort-after"]) else { return };
    let (code, _, err) = triaged_send(scp.address, &[], &[&path]);
    assert_eq!(code, 1);
    assert!(err.contains("aborted the association: by its application"), "{err}");
}

#[test]
fn what_cannot_be_tried_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = |ran: (i32, String, String), code: i32, word: &str| {
        assert_eq!((ran.0, ran.1.as_str(), ran.2.lines().count()), (code, "", 1), "{}", ran.2);
        assert!(ran.2.contains(word), "{}", ran.2);
    };
    refused(triaged_send(closed, &[], &[&path]), 2, "No such file");
    std::fs::write(&path, "text").unwrap();
    refused(triaged_send(closed, &[], &[folder.path()]), 2, "there is no DICOM object");
    object(&path, 1, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    refused(triaged_send(closed, &[], &[&path]), 1, "cannot connect to 127.0.0.1:");
    refused(triaged_send(closed, &["--called-ae", "SEVENTEEN_LETTERS"], &[&path]), 2, "no AE title");
}

/// A peer that speaks just enough DICOM: answers each C-STORE with the next status, and fails when there is none left.
fn scripted(statuses: Vec<(u16, &'static str)>) -> (SocketAddr, std::thread::JoinHandle<Vec<u16>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut association =
            ServerAssociationOptions::new().with_abstract_syntax(uids::CT_IMAGE_STORAGE).establish(socket).unwrap();
        let mut priorities = Vec::new();
        let (mut command, mut statuses) = (Vec::new(), statuses.into_iter());
        loop {
            match association.receive().unwrap() {
                Pdu::PData { data } => {
                    for value in data {
                        if value.value_type == PDataValueType::Command {
                            command.extend(value.data);
                        } else if value.is_last {
                            let syntax = IMPLICIT_VR_LITTLE_ENDIAN.erased();
                            let request = InMemDicomObject::read_dataset_with_ts(&command[..], &syntax).unwrap();
                            command.clear();
                            let number = |tag| request.element(tag).unwrap().to_int::<u16>().unwrap();
                            priorities.push(number(tags::PRIORITY));
                            let (status, comment) = statuses.next().unwrap();
                            let short = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
                            let response = InMemDicomObject::command_from_element_iter([
                                short(tags::COMMAND_FIELD, 0x8001),
                                short(tags::MESSAGE_ID_BEING_RESPONDED_TO, number(tags::MESSAGE_ID)),
                                short(tags::COMMAND_DATA_SET_TYPE, 0x0101),
                                short(tags::STATUS, status),
                                DataElement::new(tags::ERROR_COMMENT, VR::LO, PrimitiveValue::from(comment)),
                            ]);
                            let mut data = Vec::new();
                            response.write_dataset_with_ts(&mut data, &syntax).unwrap();
                            let answer = PDataValue {
                                presentation_context_id: value.presentation_context_id,
                                value_type: PDataValueType::Command,
                                is_last: true,
                                data,
                            };
                            association.send(&Pdu::PData { data: vec![answer] }).unwrap();
                        }
                    }
                }
                Pdu::ReleaseRQ => {
                    association.send(&Pdu::ReleaseRP).unwrap();
                    return priorities;
                }
                other => panic!("{other:?}"),
            }
        }
    });
    (address, thread)
}

#[test]
fn each_status_is_told_with_the_peers_comment() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=4 {
        let path = folder.path().join(number.to_string());
        object(&path, number, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    }
    let (address, peer) =
        scripted(vec![(0, ""), (0xA700, "disk\u{1b}[2J full"), (0xB006, "dropped one"), (0x0124, "")]);
    let (code, out, err) = triaged_send(address, &["--priority", "high"], &[folder.path()]);
    assert_eq!(code, 1);
    assert!(out.starts_with("2 objects stored by") && out.contains(", 1 of them with warnings, 2 failed"), "{out}");
    assert!(err.contains("/2: refused with status A700H, out of resources: disk\u{fffd}[2J full\n"), "{err:?}");
    assert!(err.contains("/3: stored with warning B006H, elements discarded: dropped one\n"), "{err}");
    assert!(err.contains("/4: refused with status 0124H, not authorized\n"), "{err}");
    assert_eq!(peer.join().unwrap(), [1, 1, 1, 1], "high priority is 1");
}

#[test]
fn a_peer_that_is_silent_or_no_dicom_node_does_not_hold_us() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    object(&path, 1, uids::CT_IMAGE_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, _, err) = triaged_send(silent.local_addr().unwrap(), &["--timeout", "1"], &[&path]);
    assert_eq!(code, 1);
    assert!(err.contains("was silent for 1 s"), "{err}");

    for reply in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", &[0xff; 64]] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut socket, _) = other.accept().unwrap();
            let mut buffer = [0; 1024];
            let _ = socket.read(&mut buffer);
            let _ = socket.write_all(reply);
        });
        let (code, out, err) = triaged_send(address, &["--timeout", "5"], &[&path]);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        thread.join().unwrap();
    }
}

#[test]
fn an_echo_is_answered_or_the_reason_is_told() {
    let echo = |address: SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
        command.arg("echo").args(["--to", &address.to_string()]).output().unwrap()
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(echo(closed).status.code(), Some(1));
    let Some(scp) = StoreScp::start(&[]) else { return };
    let output = echo(scp.address);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("answered in"));
}
