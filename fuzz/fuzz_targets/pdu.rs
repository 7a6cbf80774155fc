//! Any bytes on an association: PDUs, association requests, command sets. The first byte chooses which reader sees the rest,
//! so that a short input reaches each of them.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt;
use triaged::dimse::command::{Message, Response};
use triaged::dimse::negotiation::negotiate;
use triaged::dimse::pdu::{Event, Pdu, PduStream};
use triaged::dimse::service::Service;
use triaged::dimse::service::echo::Echo;
use triaged::dimse::status::Status;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without sockets can be built")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((reader, rest)) = bytes.split_first() else { return };
    match reader % 3 {
        0 => {
            let Some((pdu_type, body)) = rest.split_first() else { return };
            if let Ok(Pdu::AssociateRequest(request)) = Pdu::parse(*pdu_type, body) {
                let services: [std::sync::Arc<dyn Service>; 1] = [std::sync::Arc::new(Echo)];
                let negotiated = negotiate(&request, &services, None);
                assert_eq!(negotiated.results.len(), request.contexts.len());
            }
        }
        1 => {
            if let Ok(Message::Request(request)) = Message::parse(rest.to_vec()) {
                let response = request.response(&Response::from(Status::new(Status::OUT_OF_RESOURCES, "full")));
                assert!(Message::parse(response).is_ok());
            }
        }
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
});
