//! Whole associations over a pipe in memory, with services that use all that an exchange offers.

use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::{tags, uids};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::crowd::Standing;

use super::command::{Message, NewCommandSet, Operation, Reply, Request, Response};
use super::exchange::Exchange;
use super::link::End;
use super::pdu::{AssociateRequest, Pdu, push_p_data};
use super::peer::Peer;
use super::scp::Scp;
use super::service::echo::Echo;
use super::service::{Handler, Served, Service, UNCOMPRESSED};
use super::status::Status;
use super::transport::Connection;
use super::{association, policy::APPLICATION_CONTEXT};

const FIND: &str = uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND;
const COMMITMENT: &str = uids::STORAGE_COMMITMENT_PUSH_MODEL;

/// Answers a query with pending responses until it is cancelled.
struct Find;

impl Service for Find {
    fn transfer_syntaxes(&self, sop_class: &str) -> Option<&'static [&'static str]> {
        (sop_class == FIND).then_some(&UNCOMPRESSED)
    }

    fn performs(&self, operation: Operation) -> bool {
        operation == Operation::CFind
    }

    fn extended_negotiation(&self, _sop_class: &str, information: &[u8]) -> Option<Vec<u8>> {
        Some(vec![information.first().copied().unwrap_or_default(), 7])
    }

    fn open(&self, _peer: &Arc<Peer>) -> Box<dyn Handler> {
        Box::new(Find)
    }
}

impl Find {
    async fn find(&mut self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        let Some(identifier) = exchange.read_data_set(1000).await? else {
            return exchange.respond(Status::new(Status::OUT_OF_RESOURCES, "too long").into()).await;
        };
        for _ in 0..3 {
            assert!(!exchange.is_cancelled().await?);
            let status = Status::new(Status::PENDING, "");
            let response = Response { status, numbers: Vec::new(), data_set: Some(&identifier) };
            exchange.respond(response).await?;
        }
        exchange.cancelled().await?;
        exchange.respond(Status::new(Status::CANCELLED, "as asked").into()).await
    }
}

impl Handler for Find {
    fn serve<'s>(&'s mut self, exchange: &'s mut Exchange<'_>) -> Served<'s> {
        Box::pin(self.find(exchange))
    }
}

/// Answers N-ACTION, then reports an event on the same association.
struct Commitment(mpsc::UnboundedSender<Reply>);

impl Service for Commitment {
    fn transfer_syntaxes(&self, sop_class: &str) -> Option<&'static [&'static str]> {
        (sop_class == COMMITMENT).then_some(&UNCOMPRESSED)
    }

    fn performs(&self, operation: Operation) -> bool {
        operation == Operation::NAction
    }

    fn lets_the_requestor_be_scp(&self, _sop_class: &str) -> bool {
        true
    }

    fn open(&self, _peer: &Arc<Peer>) -> Box<dyn Handler> {
        Box::new(Commitment(self.0.clone()))
    }
}

impl Handler for Commitment {
    fn serve<'s>(&'s mut self, exchange: &'s mut Exchange<'_>) -> Served<'s> {
        let (caller, context, replies) = (exchange.caller(), exchange.context().clone(), self.0.clone());
        Box::pin(async move {
            assert_eq!(exchange.request().set.number(tags::ACTION_TYPE_ID), Some(1));
            let numbers = vec![(tags::ACTION_TYPE_ID, 1)];
            exchange.respond(Response { status: Status::success(), numbers, data_set: None }).await?;
            tokio::spawn(async move {
                let event = NewCommandSet::request(Operation::NEventReport)
                    .uid(tags::AFFECTED_SOP_CLASS_UID, COMMITMENT)
                    .number(tags::EVENT_TYPE_ID, 1);
                let reply = caller.call(&context, event, Some(vec![9; 300])).await.unwrap();
                replies.send(reply).unwrap();
            });
            Ok(())
        })
    }
}

fn item(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn context(id: u8, abstract_syntax: &str, transfer_syntaxes: &[&str]) -> Vec<u8> {
    let syntaxes: Vec<u8> = transfer_syntaxes.iter().flat_map(|uid| item(0x40, uid.as_bytes())).collect();
    item(0x20, &[&[id, 0, 0, 0][..], &item(0x30, abstract_syntax.as_bytes()), &syntaxes].concat())
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The body of an A-ASSOCIATE-RQ.
fn body(items: &[Vec<u8>], user: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(b"TRIAGED         TEST            ");
    body.extend([0; 32]);
    body.extend(item(0x10, APPLICATION_CONTEXT.as_bytes()));
    body.extend(items.concat());
    body.extend(item(0x50, &user.concat()));
    body
}

fn pdu(pdu_type: u8, body: &[u8]) -> Vec<u8> {
    [&[pdu_type, 0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn parsed(body: &[u8]) -> AssociateRequest {
    match Pdu::parse(1, body) {
        Ok(Pdu::AssociateRequest(request)) => *request,
        other => panic!("not a request: {other:?}"),
    }
}

/// The peer of an association with the node.
struct Client {
    pipe: DuplexStream,
    node: JoinHandle<()>,
    replies: mpsc::UnboundedReceiver<Reply>,
    /// The body of the first PDU that came, and its type.
    first: (u8, Vec<u8>),
}

impl Client {
    async fn open(items: &[Vec<u8>], user: &[Vec<u8>]) -> Client {
        let (mut pipe, server) = tokio::io::duplex(1 << 16);
        let (send, replies) = mpsc::unbounded_channel();
        let services: Vec<Arc<dyn Service>> = vec![Arc::new(Echo), Arc::new(Find), Arc::new(Commitment(send))];
        let settings = Settings::load(None, &[]).unwrap().dimse;
        let scp = Arc::new(Scp::with_services(&settings, services));
        let address = [127, 0, 0, 1].into();
        let connection = Connection { transport: Box::new(server), address, tls: false, certificate: None };
        let place = scp.crowd.enter([127, 0, 0, 1].into(), Standing::Stranger);
        let node = tokio::spawn(association::serve(connection, place, scp, CancellationToken::new()));
        pipe.write_all(&pdu(1, &body(items, user))).await.unwrap();
        let first = read(&mut pipe).await;
        Client { pipe, node, replies, first }
    }

    async fn send(&mut self, context: u8, command: NewCommandSet, data_set: Option<&[u8]>) {
        let mut bytes = Vec::new();
        push_p_data(&mut bytes, context, true, true, &command.encode(data_set.is_some()));
        if let Some(data_set) = data_set {
            push_p_data(&mut bytes, context, false, true, data_set);
        }
        self.pipe.write_all(&bytes).await.unwrap();
    }

    /// A message with its data set, and the longest P-DATA-TF that it came in.
    async fn message(&mut self) -> (Message, Vec<u8>, usize) {
        let (mut command, mut data_set, mut longest) = (Vec::new(), Vec::new(), 0);
        loop {
            let (pdu_type, body) = read(&mut self.pipe).await;
            assert_eq!(pdu_type, 4, "{body:?}");
            longest = longest.max(body.len());
            let (is_command, last) = (body[5] & 1 != 0, body[5] & 2 != 0);
            if is_command {
                command.extend(&body[6..])
            } else {
                data_set.extend(&body[6..])
            };
            if last {
                let message = Message::parse(command.clone()).unwrap();
                let more = match &message {
                    Message::Request(request) => request.has_data_set,
                    Message::Reply(reply) => reply.has_data_set,
                };
                if !(is_command && more) {
                    return (message, data_set, longest);
                }
            }
        }
    }

    async fn reply(&mut self) -> Reply {
        match self.message().await.0 {
            Message::Reply(reply) => reply,
            other => panic!("not a reply: {other:?}"),
        }
    }

    async fn release(mut self) {
        self.pipe.write_all(&pdu(5, &[0; 4])).await.unwrap();
        assert_eq!(read(&mut self.pipe).await.0, 6);
        drop(self.pipe);
        self.node.await.unwrap();
    }
}

async fn read(pipe: &mut DuplexStream) -> (u8, Vec<u8>) {
    let read = async {
        let mut header = [0; 6];
        pipe.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize];
        pipe.read_exact(&mut body).await.unwrap();
        (header[0], body)
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("the node answers")
}

fn maximum_length(length: u32) -> Vec<u8> {
    item(0x51, &length.to_be_bytes())
}

fn query(message_id: u16) -> NewCommandSet {
    let find = NewCommandSet::request(Operation::CFind).number(tags::MESSAGE_ID, message_id);
    find.uid(tags::AFFECTED_SOP_CLASS_UID, FIND)
}

fn cancel(message_id: u16) -> NewCommandSet {
    NewCommandSet::request(Operation::CCancel).number(tags::MESSAGE_ID_BEING_RESPONDED_TO, message_id)
}

#[tokio::test]
async fn a_service_answers_in_several_responses_until_it_is_cancelled() {
    let mut client = Client::open(&[context(1, FIND, &UNCOMPRESSED)], &[maximum_length(64)]).await;
    let identifier = vec![5; 333];
    client.send(1, query(7), Some(&identifier)).await;
    for _ in 0..3 {
        let (message, data_set, longest) = client.message().await;
        let Message::Reply(reply) = message else { panic!("not a reply") };
        assert_eq!((reply.status, reply.message_id), (Status::PENDING, 7));
        assert_eq!(data_set, identifier);
        assert!(longest <= 64, "a P-DATA-TF of {longest} bytes to a peer that takes 64");
    }
    // One about another message cancels nothing.
    client.send(1, cancel(6), None).await;
    client.send(1, cancel(7), None).await;
    assert_eq!(client.reply().await.status, Status::CANCELLED);
    // One that comes late neither.
    client.send(1, cancel(7), None).await;
    client.send(1, query(8), Some(&[1; 2000])).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.message_id), (Status::OUT_OF_RESOURCES, 8));
    client.release().await;
}

#[tokio::test]
async fn another_request_while_one_is_served_ends_the_association() {
    let mut client = Client::open(&[context(1, FIND, &UNCOMPRESSED)], &[]).await;
    client.send(1, query(1), Some(&[1; 8])).await;
    for _ in 0..3 {
        client.message().await;
    }
    client.send(1, query(2), Some(&[1; 8])).await;
    assert_eq!(read(&mut client.pipe).await, (7, vec![0, 0, 2, 2]));
}

#[tokio::test]
async fn a_service_asks_the_peer_on_the_same_association() {
    let contexts = [context(1, COMMITMENT, &UNCOMPRESSED), context(3, uids::VERIFICATION, &UNCOMPRESSED)];
    let mut client = Client::open(&contexts, &[maximum_length(128)]).await;
    let action = NewCommandSet::request(Operation::NAction)
        .number(tags::MESSAGE_ID, 1)
        .uid(tags::REQUESTED_SOP_CLASS_UID, COMMITMENT)
        .number(tags::ACTION_TYPE_ID, 1);
    client.send(1, action, Some(&[3; 10])).await;
    assert_eq!(client.reply().await.set.number(tags::ACTION_TYPE_ID), Some(1));
    let (message, data_set, longest) = client.message().await;
    let Message::Request(event) = message else { panic!("not a request") };
    assert_eq!((event.operation, data_set), (Operation::NEventReport, vec![9; 300]));
    assert!(longest <= 128);
    // The peer goes on with requests of its own before it replies.
    client.send(3, NewCommandSet::request(Operation::CEcho).number(tags::MESSAGE_ID, 2), None).await;
    assert_eq!(client.reply().await.operation, Operation::CEcho);
    respond(&mut client, 1, &event).await;
    let reply = client.replies.recv().await.unwrap();
    assert_eq!((reply.operation, reply.status, reply.data_set), (Operation::NEventReport, 0, vec![4; 20]));
    // A reply that nobody waits for.
    respond(&mut client, 1, &event).await;
    assert_eq!(read(&mut client.pipe).await, (7, vec![0, 0, 2, 2]));
}

async fn respond(client: &mut Client, context: u8, request: &Request) {
    let response = Response { status: Status::success(), numbers: Vec::new(), data_set: Some(&[4; 20]) };
    let mut bytes = Vec::new();
    push_p_data(&mut bytes, context, true, true, &request.response(&response));
    push_p_data(&mut bytes, context, false, true, &[4; 20]);
    client.pipe.write_all(&bytes).await.unwrap();
}

#[tokio::test]
async fn roles_and_extended_negotiation_are_answered_for_the_classes_that_are_offered() {
    let role = |class: &str, scu, scp| item(0x54, &[&counted(class.as_bytes())[..], &[scu, scp]].concat());
    let extended = |class: &str| item(0x56, &[&counted(class.as_bytes())[..], &[1, 1, 1]].concat());
    let contexts = [
        context(1, FIND, &UNCOMPRESSED),
        context(3, COMMITMENT, &UNCOMPRESSED),
        context(5, "1.2.3", &UNCOMPRESSED),
        context(7, uids::VERIFICATION, &UNCOMPRESSED),
    ];
    let user = [
        role(FIND, 1, 1),
        role(COMMITMENT, 0, 1),
        role("1.2.3", 1, 1),
        role(uids::VERIFICATION, 0, 1),
        role(FIND, 0, 0),
        extended(FIND),
        extended("1.2.3"),
        extended(uids::VERIFICATION),
    ];
    let client = Client::open(&contexts, &user).await;
    let (pdu_type, answer) = &client.first;
    assert_eq!(*pdu_type, 2);
    let has = |bytes: &[u8]| answer.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&role(FIND, 1, 0)), "SCU as proposed, SCP not");
    assert!(has(&role(COMMITMENT, 0, 1)), "this service lets its requestor be SCP");
    assert!(has(&role(uids::VERIFICATION, 0, 0)));
    assert!(has(&item(0x56, &[&counted(FIND.as_bytes())[..], &[1, 7]].concat())));
    assert_eq!(answer.windows(2).filter(|two| two == &[0x54, 0]).count(), 3, "one answer for each class: {answer:?}");
    assert_eq!(answer.windows(2).filter(|two| two == &[0x56, 0]).count(), 1);
    let results: Vec<(u8, u8)> = results(answer);
    // Who wants to be SCP of Verification alone is refused: the node is no SCU of it.
    assert_eq!(results, [(1, 0), (3, 0), (5, 3), (7, 1)]);
    client.release().await;
}

/// Id and result of each presentation context in the body of an A-ASSOCIATE-AC.
fn results(accept: &[u8]) -> Vec<(u8, u8)> {
    let (mut at, mut results) = (68, Vec::new());
    while at + 4 <= accept.len() {
        if accept[at] == 0x21 {
            results.push((accept[at + 4], accept[at + 6]));
        }
        at += 4 + usize::from(u16::from_be_bytes([accept[at + 2], accept[at + 3]]));
    }
    results
}

#[tokio::test]
async fn a_wrong_context_is_refused_alone_and_unknown_items_are_skipped() {
    let verification = |id| context(id, uids::VERIFICATION, &UNCOMPRESSED);
    let no_abstract_syntax = item(0x20, &[&[5, 0, 0, 0][..], &item(0x40, b"1.2.840.10008.1.2")].concat());
    let two = [item(0x30, b"1.2.840.10008.1.1"), item(0x30, b"1.2.840.10008.1.1"), item(0x40, b"1.2.840.10008.1.2")];
    let two_abstract_syntaxes = item(0x20, &[&[7, 0, 0, 0][..], &two.concat()].concat());
    let overlong_sub_item = item(0x20, &[9, 0, 0, 0, 0x30, 0, 0x7f, 0xff, b'1']);
    let unknown_sub_item = {
        let known = verification(11);
        item(0x20, &[&known[4..], &item(0x99, b"anything")].concat())
    };
    let items = [
        item(0x60, b"abcd"),
        verification(1),
        verification(1),
        no_abstract_syntax,
        item(0x20, &[]),
        two_abstract_syntaxes,
        overlong_sub_item,
        unknown_sub_item,
        context(13, uids::VERIFICATION, &[]),
        item(0x20, &[15]),
        context(17, "1.2.840.10008.1.1\0", &["1.2.840.10008.1.2 "]),
    ];
    let role_with_surplus = item(0x54, &[&counted(uids::VERIFICATION.as_bytes())[..], &[1, 1, 0]].concat());
    let user = [
        item(0x77, b"what is this"),
        role_with_surplus,
        item(0x54, &[0xff, 0xff, 1]),
        item(0x51, &[1]),
        item(0x58, &[1]),
        maximum_length(0),
        item(0x55, b"NAME"),
    ];
    let mut client = Client::open(&items, &user).await;
    assert_eq!(client.first.0, 2);
    let expected = [(1, 0), (1, 2), (5, 2), (7, 2), (9, 2), (11, 0), (13, 4), (15, 2), (17, 0)];
    assert_eq!(results(&client.first.1), expected);
    let request = parsed(&body(&items, &user));
    assert_eq!((request.maximum_length, request.implementation_version_name.as_str()), (None, "NAME"));
    assert_eq!(request.roles.len(), 1);
    client.send(17, NewCommandSet::request(Operation::CEcho).number(tags::MESSAGE_ID, 2), None).await;
    assert_eq!(client.reply().await.status, 0);
    client.release().await;
}

#[test]
fn all_128_contexts_are_answered_in_their_order() {
    let contexts: Vec<Vec<u8>> = (0..128).map(|n| context(2 * n + 1, uids::VERIFICATION, &UNCOMPRESSED)).collect();
    let request = parsed(&body(&contexts, &[]));
    let services: Vec<Arc<dyn Service>> = vec![Arc::new(Echo)];
    let negotiated = super::negotiation::negotiate(&request, &services, None);
    assert_eq!(negotiated.contexts.len(), 128);
    assert!(negotiated.results.iter().zip(0..).all(|(result, n)| result.id == 2 * n + 1));
}

#[test]
fn titles_are_read_without_their_padding_and_with_what_else_they_are_made_of() {
    for (raw, title) in [
        (b"CT1             ", "CT1"),
        (b"  CT1           ", "CT1"),
        (b"CT1\0\0\0\0\0\0\0\0\0\0\0\0\0", "CT1"),
        (b"CT1\0garbage\0\0\0\0\0", "CT1"),
        (b"ABCDEFGHIJKLMNOP", "ABCDEFGHIJKLMNOP"),
        (b"                ", ""),
        (b"CT \xe9\xff           ", "CT éÿ"),
    ] {
        let mut body = body(&[], &[]);
        body[20..36].copy_from_slice(raw);
        assert_eq!(parsed(&body).titles.calling(), title);
    }
}

#[tokio::test]
async fn what_is_no_association_is_aborted_and_an_abort_is_not_answered() {
    for (bytes, answer) in [
        (pdu(1, b"short"), vec![7, 0, 0, 0, 0, 4, 0, 0, 2, 6]),
        (pdu(2, &[0; 4]), vec![7, 0, 0, 0, 0, 4, 0, 0, 2, 2]),
        (pdu(6, &[0; 4]), vec![7, 0, 0, 0, 0, 4, 0, 0, 2, 2]),
        (pdu(7, &[0; 4]), vec![]),
        (pdu(1, &[&body(&[], &[])[..], &[0x20, 0, 0xff, 0xff, 1]].concat()), vec![7, 0, 0, 0, 0, 4, 0, 0, 2, 6]),
    ] {
        let (mut pipe, server) = tokio::io::duplex(1 << 16);
        let settings = Settings::load(None, &[]).unwrap().dimse;
        let scp = Arc::new(Scp::with_services(&settings, vec![Arc::new(Echo)]));
        let address = [127, 0, 0, 1].into();
        let connection = Connection { transport: Box::new(server), address, tls: false, certificate: None };
        let place = scp.crowd.enter([127, 0, 0, 1].into(), Standing::Stranger);
        let node = tokio::spawn(association::serve(connection, place, scp, CancellationToken::new()));
        pipe.write_all(&bytes).await.unwrap();
        let mut said = Vec::new();
        pipe.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, answer, "{bytes:?}");
        drop(pipe);
        node.await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// One item damaged, cut or doubled: the request is read or refused, and negotiation answers each context that was read.
    #[test]
    fn a_damaged_request_is_a_request_or_an_error(
        at in 68usize..400, byte in any::<u8>(), cut in 0usize..400, insert in proptest::collection::vec(any::<u8>(), 0..8)
    ) {
        let user = [maximum_length(16384), item(0x52, b"1.2.3"), item(0x58, &[1, 1, 0, 1, b'u', 0, 0])];
        let contexts = [context(1, uids::VERIFICATION, &UNCOMPRESSED), context(3, FIND, &UNCOMPRESSED)];
        let mut body = body(&contexts, &user);
        let at = at % body.len();
        body[at] = byte;
        body.splice(at..at, insert);
        body.truncate(body.len() - cut % body.len());
        if let Ok(Pdu::AssociateRequest(request)) = Pdu::parse(1, &body) {
            let services: Vec<Arc<dyn Service>> = vec![Arc::new(Echo), Arc::new(Find)];
            let negotiated = super::negotiation::negotiate(&request, &services, None);
            prop_assert_eq!(negotiated.results.len(), request.contexts.len());
        }
    }
}
