//! The places where bytes that nobody has vouched for come in, each as a function of bytes that returns, whatever they are, and does not panic.
//! The fuzz targets call them, and so does a test of the workspace (`tests/node/fuzz.rs`), with the seeds and mutations of them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use triaged::dimse::command::{Message, Response};
use triaged::dimse::negotiation::negotiate;
use triaged::dimse::pdu::{Event, Pdu, PduStream};
use triaged::dimse::service::Service;
use triaged::dimse::service::echo::Echo;
use triaged::dimse::status::Status;
use triaged_imaging::{Transform, Window, frame_count, model_input, most_frames, read_bytes, read_header_bytes};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without sockets can be built")
});

/// Any bytes on an association. The first byte chooses which reader sees the rest, so that a short input reaches each of them.
pub fn pdu(bytes: &[u8]) {
    let Some((reader, rest)) = bytes.split_first() else { return };
    match reader % 3 {
        0 => {
            let Some((pdu_type, body)) = rest.split_first() else { return };
            if let Ok(Pdu::AssociateRequest(request)) = Pdu::parse(*pdu_type, body) {
                let services: [Arc<dyn Service>; 1] = [Arc::new(Echo)];
                let negotiated = negotiate(&request, &services, None);
                assert_eq!(negotiated.results.len(), request.contexts.len());
            }
        }
        1 => command_set(rest),
        _ => RUNTIME.block_on(async {
            let (mut peer, node) = tokio::io::duplex(rest.len().max(1));
            peer.write_all(rest).await.expect("the pipe has room for all");
            drop(peer);
            let mut stream = PduStream::new(Box::new(node));
            let mut pieces = 0;
            loop {
                match stream.next(Duration::from_secs(5)).await {
                    Ok(Event::Piece(piece)) => pieces += piece.data.len(),
                    Ok(Event::Control(_)) => {}
                    Ok(Event::Closed) | Err(_) => break,
                }
            }
            assert!(pieces <= rest.len());
        }),
    }
}

/// Any bytes as a command set (PS3.7 section 6.3): whoever is answered can read the answer.
pub fn command_set(bytes: &[u8]) {
    if let Ok(Message::Request(request)) = Message::parse(bytes.to_vec()) {
        let response = request.response(&Response::from(Status::new(Status::OUT_OF_RESOURCES, "full")));
        assert!(Message::parse(response).is_ok());
    }
}

/// Any bytes as a Part 10 file, meta information and data set: an object that is assessed, or an error.
pub fn data_set(bytes: &[u8]) {
    if let Ok(object) = read_header_bytes(bytes) {
        let frames = most_frames(&object);
        let slices = triaged::triage::Gate::default().assess(&object, Some(frames));
        assert!(slices.len() <= frames.max(1) as usize, "no more slices than there can be frames");
    }
}

/// Any bytes as a file, all the way to the model's input.
pub fn pixels(bytes: &[u8]) {
    let Ok(object) = read_bytes(bytes) else { return };
    let windows = vec![Window { center: 40.0, width: 80.0 }];
    let transforms = [
        Transform::HounsfieldWindows { height: 32, width: 32, windows, normalization: None, crop_to_head: None },
        Transform::StoredValues { height: 32, width: 32 },
    ];
    for frame in 0..frame_count(&object).unwrap_or(1).min(2) {
        for transform in &transforms {
            if let Ok(tensor) = model_input(&object, frame, transform) {
                assert_eq!(tensor.data.len(), 32 * 32);
            }
        }
    }
}

/// Any bytes from a decoder process, which its object may have taken over.
pub fn decoder_answers(bytes: &[u8]) {
    assert!(triaged::inference::read_answers(bytes).iter().all(|why| why.chars().count() <= 1000));
}

/// Any bytes as a configuration file: settings or a line that says what is wrong.
pub fn configuration(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    std::fs::write(file.path(), bytes).expect("a temporary file can be written");
    if let Err(error) = triaged::config::Settings::load(Some(file.path()), &[]) {
        assert!(!error.to_string().is_empty());
    }
}

/// Any bytes as a model card, without its model: an error in words, or that the model is not there.
pub fn model_card(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let card = folder.path().join("card.json");
    std::fs::write(&card, bytes).expect("a temporary file can be written");
    let error = triaged_model::ModelCard::load(&card).expect_err("its model is not there");
    assert!(!error.to_string().is_empty());
}

/// A place where bytes come in.
pub type Entry = fn(&[u8]);

/// Every entry, by the name of its target and of the folder of its seeds.
pub const ENTRIES: [(&str, Entry); 7] = [
    ("pdu", pdu),
    ("command_set", command_set),
    ("data_set", data_set),
    ("pixels", pixels),
    ("decoder_answers", decoder_answers),
    ("configuration", configuration),
    ("model_card", model_card),
];
