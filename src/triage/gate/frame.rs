//! The attributes of one frame: in enhanced multi-frame objects those of its functional groups (PS3.3 C.7.6.16), then those
//! shared by all frames, then the object's own.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use triaged_imaging::attributes::{integer, item, values};
use triaged_imaging::{DicomObject, image_orientation};

/// One frame of an object.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    object: &'a DicomObject,
    index: u32,
    groups: [Option<&'a InMemDicomObject>; 2],
}

impl<'a> Frame<'a> {
    /// Frame `index`, from 0.
    pub fn new(object: &'a DicomObject, index: u32) -> Frame<'a> {
        Frame {
            object,
            index,
            groups: [
                item(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, index as usize),
                item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0),
            ],
        }
    }

    pub fn object(&self) -> &'a DicomObject {
        self.object
    }

    /// The direction cosines of its rows and columns; none where they are absent or no numbers.
    pub fn orientation(&self) -> Option<[f64; 6]> {
        image_orientation(self.object, self.index)
    }

    /// The items of a functional group macro, the frame's before the shared one.
    pub fn macros(&self, sequence: Tag) -> impl Iterator<Item = &'a InMemDicomObject> + use<'a> {
        self.groups.into_iter().flatten().filter_map(move |group| item(group, sequence, 0))
    }

    /// The values of an attribute: in this functional group macro, else of the object itself. None where it is absent or empty.
    pub fn values(&self, sequence: Tag, tag: Tag) -> Vec<String> {
        let of =
            |place: &InMemDicomObject| Some(values(place, tag)).filter(|values| values.iter().any(|v| !v.is_empty()));
        self.macros(sequence).find_map(of).or_else(|| of(self.object)).unwrap_or_default()
    }

    /// Whether the object has further frames.
    pub fn is_one_of_several(&self) -> bool {
        integer(self.object, tags::NUMBER_OF_FRAMES).is_some_and(|frames| frames > 1)
    }

    /// The values as numbers, of this functional group macro alone; none where one of them is no finite number.
    pub fn numbers_of_macro(&self, sequence: Tag, tag: Tag) -> Option<Vec<f64>> {
        let of =
            |place: &InMemDicomObject| Some(values(place, tag)).filter(|values| values.iter().any(|v| !v.is_empty()));
        numbers_of(&self.macros(sequence).find_map(of)?)
    }

    pub fn text(&self, sequence: Tag, tag: Tag) -> Option<String> {
        self.values(sequence, tag).into_iter().next().filter(|value| !value.is_empty())
    }

    /// The values as numbers; none where one of them is no finite number.
    pub fn numbers(&self, sequence: Tag, tag: Tag) -> Option<Vec<f64>> {
        numbers_of(&self.values(sequence, tag))
    }

    pub fn number(&self, sequence: Tag, tag: Tag) -> Option<f64> {
        let first = self.text(sequence, tag)?;
        first.replace(',', ".").parse::<f64>().ok().filter(|number| number.is_finite())
    }
}

/// None where there is none, or one of them is no finite number.
fn numbers_of(values: &[String]) -> Option<Vec<f64>> {
    let number = |value: &String| value.replace(',', ".").parse::<f64>().ok().filter(|number| number.is_finite());
    Some(values.iter().map(number).collect::<Option<Vec<f64>>>()?).filter(|numbers| !numbers.is_empty())
}
