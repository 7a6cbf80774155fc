//! The acquisition gate: whether a slice is one of a head CT that the model was made for.
//!
//! It reads header attributes alone. Real objects lack attributes (RSNA 2019 files have no Image Type, some no SOP class), so
//! an absent or empty one never excludes a slice; one that contradicts does. What is only doubtful is scored and marked.
//! If the words for the part of the body name no head, the pixels decide, when they are decoded.

mod acquisition;
mod frame;
mod kind;
mod plane;
mod region;
mod words;

use triaged_imaging::{DicomObject, frame_count};
use triaged_model::MadeFor;

use crate::config;
use frame::Frame;
pub use kind::may_be_ct_image;
pub use plane::Plane;

/// The gate's decision about one slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub decision: Decision,
    /// Doubts about a slice that is scored.
    pub doubts: Vec<String>,
    /// Its series is judged only where the study has no better one: a reformat, a sharp kernel, contrast agent.
    pub is_substitute: bool,
    pub plane: Plane,
}

/// Whether a slice is triaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Triage,
    /// Once decoded, it is triaged if its pixels are those of a head, whatever the header says, which is this.
    Look(String),
    /// Not triaged, because of this: a short text for an administrator, without patient data.
    Out(String),
}

/// What the reasons begin with for which whole series of any study are out.
const LOCALIZER: &str = "a localizer";
const NOT_AXIAL: &str = "not axial";
const NOT_CT_IMAGE: &str = "not a CT image";
const NOT_AS_ACQUIRED: &str = "not slices as they were acquired";
const NOT_ORIGINAL: &str = "not an original slice";
const NOT_MONOCHROME: &str = "not a monochrome image";
const NOT_A_SLICE: &str = "not a slice";
const NOT_THE_HEAD: &str = "not the head";
const CONTRAST: &str = "contrast agent";
const SHARP: &str = "sharp kernel";

/// The doubt about a CT image that lacks what makes Hounsfield units of its stored values.
pub(super) const NO_RESCALE: &str = "no rescale slope or intercept, so stored values were taken for Hounsfield units";

/// Whether series that are out for this reason belong to the routine: localizers, other planes, captures, dose reports, maps, other parts of
/// the body, and what the card excludes. What is out for another reason (no Hounsfield units, the tube voltage) may be a scan of the head.
pub(super) fn is_routine(reason: &str) -> bool {
    let routine = [
        LOCALIZER,
        NOT_AXIAL,
        NOT_CT_IMAGE,
        NOT_AS_ACQUIRED,
        NOT_ORIGINAL,
        NOT_MONOCHROME,
        NOT_A_SLICE,
        NOT_THE_HEAD,
        CONTRAST,
        SHARP,
    ];
    routine.iter().any(|begin| reason.starts_with(begin))
}

/// Whether a slice is out because it is a view from elsewhere than along the body.
pub(super) fn is_other_view(reason: &str) -> bool {
    reason.starts_with(LOCALIZER) || reason.starts_with(NOT_AXIAL)
}

/// Frames that an object may say beside twice as many as can be there. They fail, each with its reason.
const MISSING_FRAMES: u64 = 16;
/// Degrees by which a head may lie aslant in the image: training turns images by 15 (m11) or 20 (m12), and heads are inclined besides.
const MOST_SLANT: f64 = 30.0;

/// The rules of the gate.
#[derive(Debug, Clone)]
pub struct Gate {
    rules: config::Gate,
    card: MadeFor,
}

/// The findings of the checks so far.
#[derive(Default)]
struct Notes {
    plane: Plane,
    doubts: Vec<String>,
    is_substitute: bool,
}

impl Notes {
    fn substitute(&mut self, doubt: String) {
        self.is_substitute = true;
        self.doubts.push(doubt);
    }
}

impl Default for Gate {
    /// The rules of `conf/triaged.toml`, for a card that says nothing of what its model was made for.
    fn default() -> Gate {
        Gate::new(&config::Gate::default(), &MadeFor::default())
    }
}

impl Gate {
    pub fn new(rules: &config::Gate, card: &MadeFor) -> Gate {
        Gate { rules: rules.clone(), card: card.clone() }
    }

    /// Judges an object by its header: one assessment a frame, a single one where no frame can be triaged. Of the frames that Number of
    /// Frames says, `most_frames` may be there at most ([`triaged_imaging::most_frames`]): far more than these are not believed, since
    /// each would be a slice that fails. Pixel data need not have been read; that pixels cannot be had is another matter, see
    /// [`ImagingError::is_contradiction`](triaged_imaging::ImagingError::is_contradiction).
    pub fn assess(&self, object: &DicomObject, most_frames: Option<u64>) -> Vec<Assessment> {
        let frames = match frame_count(object) {
            Ok(frames) => frames.max(1),
            Err(error) => {
                let plane = Plane::default();
                let decision = Decision::Out(error.to_string());
                return vec![Assessment { decision, doubts: Vec::new(), is_substitute: false, plane }];
            }
        };
        let believed = most_frames.map_or(u64::MAX, |most| most.saturating_mul(2).saturating_add(MISSING_FRAMES));
        let frames = u64::from(frames).min(believed) as u32;
        let first = self.assess_frame(&Frame::new(object, 0));
        // A reason that holds for all frames alike, such as the SOP class, makes one row, not thousands.
        if matches!(first.decision, Decision::Out(_)) && self.of_object(object).is_some() {
            return vec![first];
        }
        std::iter::once(first).chain((1..frames).map(|index| self.assess_frame(&Frame::new(object, index)))).collect()
    }

    /// Why the object as a whole is out, whatever its frames are.
    fn of_object(&self, object: &DicomObject) -> Option<String> {
        let frame = Frame::new(object, 0);
        [kind::sop_class, kind::modality, kind::monochrome, kind::size]
            .into_iter()
            .find_map(|check| check(&frame, &self.rules, &mut Notes::default()))
            .or_else(|| acquisition::quality_check(&frame, &self.rules))
    }

    fn assess_frame(&self, frame: &Frame) -> Assessment {
        let mut notes = Notes { plane: Plane::of(frame), ..Notes::default() };
        let decision = match self.contradiction(frame, &mut notes) {
            Some(reason) => Decision::Out(reason),
            None => match region::decide(frame, &self.rules) {
                Decision::Triage => {
                    acquisition::perhaps_quality_check(frame, &self.rules).map_or(Decision::Triage, Decision::Look)
                }
                decision => decision,
            },
        };
        if !notes.plane.turn.is_none() {
            let said = "the head lies otherwise in the image than a patient's on the back, or mirrored (Image Orientation): it was turned upright to be \
                        scored. Where the image shows it upright, Image Orientation is wrong, and the score does not count";
            notes.doubts.push(said.into());
        }
        if notes.plane.slant > MOST_SLANT {
            let said = format!(
                "the head lies aslant in the image by more than {MOST_SLANT} degrees (Image Orientation), more than the model has seen"
            );
            notes.doubts.push(said);
        }
        let Notes { plane, doubts, is_substitute } = notes;
        Assessment { decision, doubts, is_substitute, plane }
    }

    /// Why a frame is out, but for the part of the body.
    fn contradiction(&self, frame: &Frame, notes: &mut Notes) -> Option<String> {
        let (rules, card) = (&self.rules, &self.card);
        let kinds = [
            kind::sop_class,
            kind::modality,
            kind::image_type,
            kind::description,
            kind::rescale_type,
            kind::rescale,
            kind::monochrome,
            kind::size,
        ];
        let acquisitions = [acquisition::contrast, acquisition::kernel, acquisition::tube_voltage, acquisition::age];
        kinds
            .into_iter()
            .find_map(|check| check(frame, rules, notes))
            .or_else(|| self.not_axial(notes))
            .or_else(|| acquisition::quality_check(frame, rules))
            .or_else(|| acquisitions.into_iter().find_map(|check| check(frame, card, rules, notes)))
    }

    fn not_axial(&self, notes: &Notes) -> Option<String> {
        let tilt = notes.plane.tilt().filter(|tilt| *tilt > self.rules.max_tilt_degrees)?;
        Some(format!("{NOT_AXIAL}: the plane is tilted by {tilt:.0} degrees"))
    }
}

/// At most this much of an attribute is repeated in a reason; it ends at a whole word.
fn shown(value: &str) -> String {
    const MOST: usize = 64;
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    if clean.chars().count() <= MOST {
        return clean;
    }
    let cut: String = clean.chars().take(MOST).collect();
    let whole = cut.rfind([' ', '\\']).filter(|end| *end > 0).map_or(cut.as_str(), |end| &cut[..end]);
    format!("{whole} …")
}

#[cfg(test)]
mod tests;
