//! Each stage of a slice's way alone: `make bench-stages`.
//!
//! The disk's part is measured on the disk of the target folder, not in memory.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use triaged::archive::{Archive, Meta};
use triaged::config::Settings;
use triaged::dimse::command::{Message, Operation};
use triaged::dimse::pdu::{Event, PduStream};
use triaged::dimse::status::Status;
use triaged::inference::{Engine, Pipeline};
use triaged::ledger::{Instances, LeaseRequest, Ledger, NewInstance, Queue, SliceStart, Studies, WorkerId, now};
use triaged_imaging::phantom::{Lesion, PhantomSpec, series};
use triaged_imaging::{Transform, Window, decode_frame, frame_input, read_file};

const OBJECT_BYTES: usize = 512 * 512 * 2;

/// A folder on the disk that the project is on.
fn folder() -> TempDir {
    TempDir::new_in(option_env!("CARGO_TARGET_TMPDIR").unwrap_or("target"))
        .expect("the target folder can be written to")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system can start threads")
}

/// A slice of a bleeding phantom, as a file.
fn slice(folder: &Path) -> PathBuf {
    let path = folder.join("slice.dcm");
    let spec = PhantomSpec { slices: 9, lesion: Some(Lesion::Epidural), seed: 1 };
    series(&spec).nth(5).expect("a sixth slice").write_to_file(&path).expect("a written phantom");
    path
}

/// P-DATA-TF of 16 KiB, as DCMTK sends them, and of 128 KiB, as the node allows, from a socket.
fn pdus(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("pdu");
    group.throughput(Throughput::Bytes(OBJECT_BYTES as u64));
    for size in [16 << 10, 128 << 10] {
        let mut object = Vec::new();
        for value in vec![7_u8; OBJECT_BYTES].chunks(size - 12) {
            object.extend([4, 0]);
            object.extend((value.len() as u32 + 6).to_be_bytes());
            object.extend((value.len() as u32 + 2).to_be_bytes());
            object.extend([1, 0]);
            object.extend_from_slice(value);
        }
        let (mut client, mut stream) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let client = TcpStream::connect(listener.local_addr().expect("a bound port")).await.expect("a connection");
            let (server, _) = listener.accept().await.expect("a connection");
            (client, PduStream::new(Box::new(server)))
        });
        group.bench_function(format!("read an object in PDUs of {} KiB", size >> 10), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let send = client.write_all(&object);
                    let receive = async {
                        let mut left = OBJECT_BYTES;
                        while left > 0 {
                            match stream.next(Duration::from_secs(10)).await.expect("well-formed PDUs") {
                                Event::Piece(piece) => left -= black_box(piece.data).len(),
                                other => panic!("{other:?}"),
                            }
                        }
                    };
                    tokio::join!(async { send.await.expect("an open socket") }, receive);
                });
            });
        });
    }
}

fn commands(criterion: &mut Criterion) {
    // C-STORE-RQ (PS3.7 9.3.1.1), Implicit VR Little Endian.
    let mut bytes = Vec::new();
    let uid = b"1.2.826.0.1.3680043.8.498.12345678901234567890123456789012345678";
    for (element, value) in [
        (0x0002_u16, &b"1.2.840.10008.5.1.4.1.1.2\0"[..]),
        (0x0100, &[1, 0]),
        (0x0110, &[7, 0]),
        (0x0700, &[0, 0]),
        (0x0800, &[0, 0]),
        (0x1000, &uid[..64]),
    ] {
        bytes.extend([0, 0]);
        bytes.extend(element.to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    let Ok(Message::Request(request)) = Message::parse(bytes.clone()) else { panic!("not a C-STORE request") };
    assert_eq!(request.operation, Operation::CStore);
    let mut group = criterion.benchmark_group("command");
    group.bench_function("parse C-STORE-RQ", |bencher| bencher.iter(|| Message::parse(black_box(&bytes).clone())));
    group.bench_function("write C-STORE-RSP", |bencher| {
        let success = Status::success().into();
        bencher.iter(|| black_box(&request).response(&success));
    });
}

/// A file from disk to stored values, in each transfer syntax that DCMTK can make of it, and JPEG 2000 from CT-ICH.
fn decoding(criterion: &mut Criterion) {
    let folder = folder();
    let original = slice(folder.path());
    let mut files = vec![("explicit VR little endian", original.clone())];
    for (name, tool, options) in [
        ("implicit VR little endian", "dcmconv", &["+ti"][..]),
        ("explicit VR big endian", "dcmconv", &["+tb"]),
        ("deflated", "dcmconv", &["+td"]),
        ("RLE lossless", "dcmcrle", &[]),
        ("JPEG lossless SV1", "dcmcjpeg", &["+e1"]),
        ("JPEG extended 12 bit", "dcmcjpeg", &["+ee", "+bt"]),
        ("JPEG-LS lossless", "dcmcjpls", &["+el"]),
    ] {
        let converted = folder.path().join(format!("{}.dcm", name.replace(' ', "-")));
        match Command::new(tool).args(options).arg(&original).arg(&converted).status() {
            Ok(status) if status.success() => files.push((name, converted)),
            Ok(status) => eprintln!("SKIP {name}: {tool} ended with {status}"),
            Err(_) => eprintln!("SKIP {name}: {tool} is not installed"),
        }
    }
    let jpeg_2000 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ct-ich/stage_2_train/ID_00276d390.dcm");
    if jpeg_2000.exists() {
        files.push(("JPEG 2000 lossless (a CT-ICH slice)", jpeg_2000));
    } else {
        eprintln!("SKIP JPEG 2000: {} is not there", jpeg_2000.display());
    }
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(30);
    for (name, file) in &files {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| decode_frame(&read_file(file).expect("a readable object"), 0).expect("a decodable frame"));
        });
    }
}

fn inputs(criterion: &mut Criterion) {
    let folder = folder();
    let frame =
        decode_frame(&read_file(slice(folder.path())).expect("a readable object"), 0).expect("a decodable frame");
    let windows = vec![Window { center: 40.0, width: 80.0 }];
    let mut group = criterion.benchmark_group("input");
    group.bench_function("Hounsfield units", |bencher| bencher.iter(|| black_box(&frame).hounsfield()));
    for side in [512, 224] {
        let transform = Transform::HounsfieldWindows {
            height: side,
            width: side,
            windows: windows.clone(),
            normalization: None,
            crop_to_head: None,
        };
        group.bench_function(format!("Hounsfield units and window, to {side}×{side}"), |bencher| {
            bencher.iter(|| frame_input(black_box(&frame), &transform).expect("a tensor"));
        });
    }
}

fn archive(criterion: &mut Criterion) {
    let folder = folder();
    let (archive, _) = Archive::open(folder.path()).expect("a writable folder");
    let content = vec![7_u8; OBJECT_BYTES];
    let mut number = 0;
    let mut group = criterion.benchmark_group("archive");
    group.sample_size(50).throughput(Throughput::Bytes(OBJECT_BYTES as u64));
    group.bench_function("write, digest, sync and place an object", |bencher| {
        bencher.iter(|| {
            number += 1;
            let sop_uid = format!("1.2.{number}");
            let mut file = meta(&sop_uid).head().expect("a file meta group");
            file.extend_from_slice(&content);
            let digest = hex::encode(Sha256::digest(&content));
            let received = archive.begin(&file).and_then(|incoming| incoming.finish(digest)).expect("room on the disk");
            archive.keep(received, "1.2", &sop_uid).expect("a placed file")
        });
    });
}

fn meta(sop_uid: &str) -> Meta {
    Meta {
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        sop_instance_uid: sop_uid.into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        source_ae_title: "CT".into(),
    }
}

fn instance(number: u64, path: &str, slices: SliceStart) -> NewInstance {
    NewInstance {
        sop_uid: format!("1.2.3.{number}"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study_uid: format!("1.2.{}", number / 40),
        series_uid: format!("1.2.{}.1", number / 40),
        instance_number: Some((number % 40) as i64),
        accession_number: None,
        patient_id: None,
        digest: format!("{number:064x}"),
        path: path.into(),
        size: OBJECT_BYTES as u64,
        calling_ae: "CT".into(),
        peer: "127.0.0.1".into(),
        received_at: now(),
        slices: vec![slices.into()],
        stat: false,
        about: Default::default(),
        concatenation: None,
        images_in_acquisition: None,
        resumes: true,
        is_taken_in_again: false,
    }
}

/// One association waits for each commit; sixteen share them.
fn ledger(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = folder();
    let ledger = Ledger::open(&folder.path().join("triaged.db")).expect("a new database");
    let mut number = 0;
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(50);
    for associations in [1, 16] {
        group.throughput(Throughput::Elements(associations));
        group.bench_function(format!("store from {associations} at once"), |bencher| {
            bencher.iter(|| {
                let stores: Vec<_> = (0..associations)
                    .map(|_| {
                        number += 1;
                        let (ledger, new) =
                            (ledger.clone(), instance(number, "x", SliceStart::Ineligible("bench".into())));
                        runtime.spawn(async move { ledger.store(new).await.expect("a commit") })
                    })
                    .collect();
                runtime.block_on(async {
                    for store in stores {
                        store.await.expect("a store that does not panic");
                    }
                });
            });
        });
    }
    group.bench_function("look for work in an empty queue", |bencher| {
        let request = LeaseRequest {
            worker: WorkerId::of_this_run(),
            most: 8,
            duration: std::time::Duration::from_secs(60),
            is_idle: true,
        };
        bencher.iter(|| runtime.block_on(ledger.lease(request.clone())).expect("a readable queue"));
    });
}

/// Slices through claim, reading, decoding, batching and recording, with a model that takes next to no time: the rest of a
/// slice's time is the pipeline's own.
fn pipeline(criterion: &mut Criterion) {
    const SLICES: u64 = 64;
    let runtime = runtime();
    let mut settings = Settings::load(None, &[]).expect("the defaults").inference;
    settings.model = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean.json").into();
    settings.device = triaged::config::Device::Cpu;
    let engine = || Engine::load(&settings);
    if let Err(error) = engine() {
        return eprintln!("SKIP the pipeline: {error}");
    }
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(10).throughput(Throughput::Elements(SLICES));
    group.bench_function(format!("{SLICES} slices, model of no weight"), |bencher| {
        bencher.iter_batched(
            || {
                let folder = folder();
                let (archive, _) = Archive::open(folder.path()).expect("a writable folder");
                slice(folder.path());
                let ledger = Ledger::open(&folder.path().join("triaged.db")).expect("a new database");
                runtime.block_on(async {
                    for number in 0..SLICES {
                        ledger.store(instance(number, "slice.dcm", SliceStart::Queued)).await.expect("a commit");
                    }
                });
                (folder, archive, ledger, engine().expect("it loaded before"))
            },
            |(folder, archive, ledger, engine)| {
                runtime.block_on(async {
                    let stop = CancellationToken::new();
                    let running = Pipeline::start(
                        env!("CARGO_BIN_EXE_triaged").into(),
                        engine,
                        std::sync::Arc::new(ledger.clone()),
                        WorkerId::of_this_run(),
                        std::sync::Arc::new(archive),
                        &settings,
                        stop.clone(),
                    )
                    .expect("the program decodes");
                    let deadline = Instant::now() + Duration::from_secs(60);
                    loop {
                        let changed = ledger.changed().notified();
                        if ledger.queue_depth().expect("a readable queue") == 0 {
                            break;
                        }
                        assert!(Instant::now() < deadline, "the queue did not empty");
                        let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
                    }
                    stop.cancel();
                    running.stopped().await;
                });
                folder
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(stages, pdus, commands, decoding, inputs, archive, ledger, pipeline);
criterion_main!(stages);
