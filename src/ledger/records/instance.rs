//! Records of received instances.

use serde::{Deserialize, Serialize};

/// An instance whose file is on disk, to be recorded.
#[derive(Debug, Clone)]
pub struct NewInstance {
    pub sop_uid: String,
    pub sop_class_uid: String,
    pub transfer_syntax: String,
    pub study_uid: String,
    pub series_uid: String,
    pub instance_number: Option<i64>,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    /// SHA-256 of the data set as received, hexadecimal.
    pub digest: String,
    /// Relative to the data folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub calling_ae: String,
    pub peer: String,
    pub received_at: String,
    /// One entry per frame, at least one.
    pub slices: Vec<NewSlice>,
    /// Scored before others.
    pub stat: bool,
    pub about: About,
    /// It is a part of this.
    pub concatenation: Option<Concatenation>,
    /// Images in Acquisition (0020,1002): how many images its acquisition has.
    pub images_in_acquisition: Option<i64>,
    /// Whether it is the rest of what was broken off, where a transfer of its study was.
    pub resumes: bool,
    /// Whether it lay in the archive without a row. Its slices give way to those of objects that come, and keep none out.
    pub is_taken_in_again: bool,
}

/// The part of the header of a study and its series that the worklist and administrators see. Which of it is kept is the
/// site's choice (`[privacy]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    pub patient_name: Option<String>,
    pub birth_date: Option<String>,
    pub sex: Option<String>,
    pub referring_physician: Option<String>,
    pub study_date: Option<String>,
    pub study_description: Option<String>,
    pub modality: Option<String>,
    pub station_name: Option<String>,
    pub institution_name: Option<String>,
    pub series_description: Option<String>,
    pub kernel: Option<String>,
}

/// Names a sender in the queue: calling AE title and address.
pub fn source(calling_ae: &str, peer: &str) -> String {
    format!("{calling_ae}@{peer}")
}

impl NewInstance {
    /// Whose slices these are in the queue.
    pub fn source(&self) -> String {
        source(&self.calling_ae, &self.peer)
    }

    /// Whether a slice of it is to be scored.
    pub fn has_queued_slices(&self) -> bool {
        self.slices.iter().any(|slice| slice.start == SliceStart::Queued)
    }
}

/// A slice as it is received.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSlice {
    pub start: SliceStart,
    pub facts: SliceFacts,
}

impl From<SliceStart> for NewSlice {
    /// A slice of which nothing more is known.
    fn from(start: SliceStart) -> NewSlice {
        NewSlice { start, facts: SliceFacts::default() }
    }
}

/// How a slice begins: queued for scoring, or ineligible with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceStart {
    Queued,
    Ineligible(String),
}

/// The facts of a slice's header that judging uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SliceFacts {
    /// Along the normal of its plane, in mm.
    pub position: Option<f64>,
    /// Slice Location, in mm, from a place of the sender's own.
    pub location: Option<f64>,
    /// Names the orientation of the plane: slices of one stack have the same.
    pub orientation: Option<String>,
    /// In mm.
    pub thickness: Option<f64>,
    /// Doubts about a slice that is scored all the same.
    pub doubts: Option<String>,
    /// Its series is judged only where the study has no better one that is complete.
    pub is_substitute: bool,
    /// The words of the header that speak against a head. The pixels decide, when they are decoded.
    pub head_check: Option<String>,
    /// What the object shows to be missing of itself.
    pub lacking: Option<String>,
}

/// A part of an enhanced object that was cut into several instances (PS3.3 C.7.6.16.2.2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concatenation {
    pub uid: String,
    /// How many parts there are, at least.
    pub total: i64,
}

/// An object that the node did not take, though it could read whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refused {
    pub study_uid: String,
    /// Empty where it is not known.
    pub series_uid: String,
    pub sop_uid: String,
    pub reason: String,
}

/// The outcome of recording an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is new; its slices are in the queue.
    New,
    /// The same Study, Series and SOP Instance UID with the same content is already there: nothing changed, except that an
    /// instance whose file had been removed has it again.
    Duplicate,
    /// It took the place of a copy with the same UIDs that could not be read; its slices are in the queue.
    Replaced,
    /// The same content was there, and its file was lost: the file is back, and the slices that failed for it are in the queue again.
    Restored,
    /// The same UIDs with other content are already there: the first is kept, this one belongs in quarantine.
    Conflict { kept_digest: String },
}

/// An object that was kept, but not taken in.
#[derive(Debug, Clone)]
pub struct Quarantined {
    pub sop_uid: String,
    /// None where the object could not be read.
    pub study_uid: Option<String>,
    pub series_uid: Option<String>,
    pub digest: String,
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub transfer_syntax: String,
    pub reason: String,
    pub calling_ae: String,
    pub peer: String,
    pub received_at: String,
}

/// The file of an instance, as far as pictures are made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Relative to the data folder; none where retention has removed the file.
    pub path: Option<String>,
    /// SHA-256 of the data set, hexadecimal.
    pub digest: String,
    /// The UID of the transfer syntax that the file is in.
    pub transfer_syntax: String,
    /// `queued`, `scored`, `ineligible` or `failed`.
    pub state: String,
}

/// An instance whose file the archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFile {
    pub series_uid: String,
    pub sop_uid: String,
    /// Relative to the data folder.
    pub path: String,
}
