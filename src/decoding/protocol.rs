//! The messages between a decode thread and its decoder process: a length of four bytes and that much JSON, over a socket pair. The file of
//! an object comes with the request as an open descriptor; the pixels are in memory that both have.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use triaged_imaging::{Placement, Shows, Transform};

/// No message is longer: reasons are short, and a transform is some numbers.
const MAX_MESSAGE: usize = 1 << 20;

/// No slice takes more of the shared memory, in bytes. The largest frame takes 64 MiB, so an input may have four channels of that size.
pub(super) const MOST_SHARED: u64 = 256 << 20;

/// And no data set that was converted, which is as long as files may be.
pub(super) const MOST_CONVERTED: u64 = 2 << 30;

/// The first message of a process: it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Why system calls are not filtered, where they are not.
    pub unfiltered: Option<String>,
}

/// A slice to be decoded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<'a> {
    /// Whether an open file comes with it. Otherwise it is a slice of the object that came last.
    pub is_new: bool,
    /// Counts from 0.
    pub frame: u32,
    /// Processor time, in seconds.
    pub seconds: u64,
    /// Bytes beside those that the process had at its start.
    pub memory: u64,
    /// Bytes that may be written into the shared memory, also for all later requests.
    pub shared: u64,
    pub wanted: Wanted<'a>,
}

/// The form in which a slice is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Wanted<'a> {
    /// As a model's input.
    Input {
        transform: Cow<'a, Transform>,
        /// The header's signs against a head: the pixels decide.
        head_check: Option<Cow<'a, str>>,
    },
    /// As people see it, before any window: in Hounsfield units.
    Hounsfield,
    /// The whole object as a data set in another transfer syntax, which is not compressed. The object is not kept.
    Converted { to: Cow<'a, str> },
}

/// The outcome of a slice.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// The tensor of this shape is in the shared memory, as numbers in the machine's own byte order; it shows this part of the frame, and
    /// this is to be seen in the whole of it.
    Decoded([usize; 3], Placement, Shows),
    /// The Hounsfield units of so many rows and columns are there, in the same form.
    Frame(u32, u32),
    /// A data set of so many bytes is there.
    Converted(u64),
    Ineligible(String),
    NotAHead(String, Shows),
    Lasting(String),
    Passing(String),
}

/// No reason is longer, in characters. The process that gives it may have been taken over by its object, and the reason is kept and shown.
const MOST_OF_REASON: usize = 1000;

impl Outcome {
    /// The outcome with its reason made fit to be kept: short, and without control characters.
    fn bounded(self) -> Outcome {
        let fit = |why: String| why.chars().filter(|c| !c.is_control()).take(MOST_OF_REASON).collect();
        match self {
            Outcome::Decoded(shape, placement, shows) => Outcome::Decoded(shape, placement, shows),
            Outcome::Frame(rows, columns) => Outcome::Frame(rows, columns),
            Outcome::Converted(bytes) => Outcome::Converted(bytes),
            Outcome::Ineligible(why) => Outcome::Ineligible(fit(why)),
            Outcome::NotAHead(why, shows) => Outcome::NotAHead(fit(why), shows),
            Outcome::Lasting(why) => Outcome::Lasting(fit(why)),
            Outcome::Passing(why) => Outcome::Passing(fit(why)),
        }
    }
}

/// Receives the outcome of a slice. `None` where the process is gone.
pub(super) fn receive_outcome(socket: &UnixStream) -> io::Result<Option<Outcome>> {
    Ok(receive::<Outcome>(socket)?.map(|(outcome, _)| outcome.bounded()))
}

/// Reads bytes as the answers of a decoder process, as the node does. Returns their reasons. For tests and fuzzing.
#[doc(hidden)]
pub fn read_answers(bytes: &[u8]) -> Vec<String> {
    let Ok((node, mut process)) = UnixStream::pair() else { return Vec::new() };
    let bytes = bytes.to_vec();
    // More than the socket holds must not keep it from being read.
    let writer = std::thread::spawn(move || drop(process.write_all(&bytes)));
    let mut reasons = Vec::new();
    while let Ok(Some(outcome)) = receive_outcome(&node) {
        if let Outcome::Ineligible(why) | Outcome::NotAHead(why, _) | Outcome::Lasting(why) | Outcome::Passing(why) =
            outcome
        {
            reasons.push(why);
        }
    }
    drop(node);
    let _ = writer.join();
    reasons
}

/// Sends a message, with an open file where one belongs to it.
pub(super) fn send(mut socket: &UnixStream, message: &impl Serialize, file: Option<&dyn AsFd>) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = (json.len() as u32).to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = file.map(|file| [file.as_fd()]);
    if let Some(descriptors) = &descriptors {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    // A peer that is gone is an error here, not a signal.
    let sent = sendmsg(socket, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    socket.write_all(&length[sent..])?;
    socket.write_all(&json)
}

/// Receives a message, and the open file that came with it. `None` where the peer is gone.
pub(super) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if received == 0 {
        return Ok(None);
    }
    let file = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    socket.read_exact(&mut length[received..])?;
    let length = u32::from_ne_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut json = vec![0; length];
    socket.read_exact(&mut json)?;
    Ok(Some((serde_json::from_slice(&json)?, file)))
}
