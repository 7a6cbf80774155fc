//! Content items of structured reports (PS3.3 C.17.3).

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::codes::{Code, percent};

/// How an item belongs to the one that holds it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Relationship {
    Contains,
    HasObservationContext,
    HasConceptModifier,
    HasAcquisitionContext,
    SelectedFrom,
}

impl Relationship {
    fn as_str(self) -> &'static str {
        match self {
            Relationship::Contains => "CONTAINS",
            Relationship::HasObservationContext => "HAS OBS CONTEXT",
            Relationship::HasConceptModifier => "HAS CONCEPT MOD",
            Relationship::HasAcquisitionContext => "HAS ACQ CONTEXT",
            Relationship::SelectedFrom => "SELECTED FROM",
        }
    }
}

/// A content item under construction.
pub(super) struct Item(InMemDicomObject);

impl Item {
    fn new(value_type: &str, name: Option<&Code>) -> Item {
        let mut object = InMemDicomObject::new_empty();
        put_text(&mut object, tags::VALUE_TYPE, VR::CS, value_type);
        if let Some(name) = name {
            put_items(&mut object, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![name.item()]);
        }
        Item(object)
    }

    /// A container whose items stand apart. `template` is its identifier in PS3.16, where the container is a template's root.
    pub fn container(name: &Code, template: Option<&str>) -> Item {
        let mut item = Item::new("CONTAINER", Some(name));
        put_text(&mut item.0, tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
        if let Some(identifier) = template {
            let mut template = InMemDicomObject::new_empty();
            put_text(&mut template, tags::MAPPING_RESOURCE, VR::CS, "DCMR");
            put_text(&mut template, tags::TEMPLATE_IDENTIFIER, VR::CS, identifier);
            put_items(&mut item.0, tags::CONTENT_TEMPLATE_SEQUENCE, vec![template]);
        }
        item
    }

    pub fn code(name: &Code, value: &Code) -> Item {
        let mut item = Item::new("CODE", Some(name));
        put_items(&mut item.0, tags::CONCEPT_CODE_SEQUENCE, vec![value.item()]);
        item
    }

    pub fn text(name: &Code, value: &str) -> Item {
        let mut item = Item::new("TEXT", Some(name));
        put_text(&mut item.0, tags::TEXT_VALUE, VR::UT, &plain(value));
        item
    }

    pub fn uid(name: &Code, value: &str) -> Item {
        let mut item = Item::new("UIDREF", Some(name));
        put_text(&mut item.0, tags::UID, VR::UI, value);
        item
    }

    /// A fraction of 0 to 1 as a number of percent.
    pub fn percent(name: &Code, fraction: f64) -> Item {
        let percents = fraction * 100.0;
        let mut value = InMemDicomObject::new_empty();
        put_items(&mut value, tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![percent().item()]);
        // DS has 16 characters; the number in full stands beside it.
        put_text(&mut value, tags::NUMERIC_VALUE, VR::DS, &format!("{percents:.6}"));
        value.put(DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, PrimitiveValue::from(percents)));
        let mut item = Item::new("NUM", Some(name));
        put_items(&mut item.0, tags::MEASURED_VALUE_SEQUENCE, vec![value]);
        item
    }

    /// An image, or one frame of it.
    pub fn image(name: Option<&Code>, sop_class: &str, sop_instance: &str, frame: Option<i64>) -> Item {
        let mut item = Item::new("IMAGE", name);
        put_items(&mut item.0, tags::REFERENCED_SOP_SEQUENCE, vec![reference(sop_class, sop_instance, frame)]);
        item
    }

    /// A line through points of an image, each its column and its row (PS3.3 C.18.6). What it is of is to be added.
    pub fn polyline(name: &Code, points: &[[f32; 2]]) -> Item {
        let mut item = Item::new("SCOORD", Some(name));
        put_text(&mut item.0, tags::GRAPHIC_TYPE, VR::CS, "POLYLINE");
        let data: Vec<f32> = points.iter().flatten().copied().collect();
        item.0.put(DataElement::new(tags::GRAPHIC_DATA, VR::FL, PrimitiveValue::F32(data.into())));
        item
    }

    /// Adds items that belong to this one.
    pub fn with(mut self, relationship: Relationship, items: impl IntoIterator<Item = Item>) -> Item {
        let mut children = match self.0.take(tags::CONTENT_SEQUENCE) {
            Some(element) => element.into_value().into_items().unwrap_or_default().into_vec(),
            None => Vec::new(),
        };
        children.extend(items.into_iter().map(|Item(mut child)| {
            put_text(&mut child, tags::RELATIONSHIP_TYPE, VR::CS, relationship.as_str());
            child
        }));
        if !children.is_empty() {
            put_items(&mut self.0, tags::CONTENT_SEQUENCE, children);
        }
        self
    }

    /// Its attributes, to be part of the document that it is the root of.
    pub fn into_object(self) -> InMemDicomObject {
        self.0
    }
}

/// An item of Referenced SOP Sequence.
pub(super) fn reference(sop_class: &str, sop_instance: &str, frame: Option<i64>) -> InMemDicomObject {
    let mut reference = InMemDicomObject::new_empty();
    put_text(&mut reference, tags::REFERENCED_SOP_CLASS_UID, VR::UI, sop_class);
    put_text(&mut reference, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, sop_instance);
    if let Some(frame) = frame {
        put_text(&mut reference, tags::REFERENCED_FRAME_NUMBER, VR::IS, &frame.to_string());
    }
    reference
}

pub(super) fn put_text(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

pub(super) fn put_items(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

/// Text of the node's own as every character set of the source can carry it: ASCII without control characters.
pub(super) fn plain(text: &str) -> String {
    let letter = |c: char| match c {
        '\n' => ' ',
        c if c.is_control() => ' ',
        '–' | '—' => '-',
        c if c.is_ascii() => c,
        _ => '?',
    };
    text.chars().map(letter).collect()
}
