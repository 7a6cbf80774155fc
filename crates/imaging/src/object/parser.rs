//! The data set, read as senders write it: within bounds, and past faults in what the node does not need.
//!
//! A length is believed if the bytes behind it begin another element. If they do not, other readings are tried in turn: other forms of the
//! header, a missing or an extra pad byte, the items of a sequence without regard to its length, and a search for the next element.
//! Nothing is guessed about an element that the node uses: the object is refused.

use std::io::{Read, Seek};

use dicom_core::header::Header;
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use super::encoding::Encoding;
use super::error::ReadCause;
use super::head::{
    DELIMITERS, Form, Head, ITEM, ITEM_END, SEQUENCE_END, dictionary_vr, is_known, is_long, is_used, parse,
};
use super::limits::{LEAST_MEMORY, MAX_ELEMENTS, MAX_ELEMENTS_OF_ONE, MAX_MEMORY, MEMORY_PER_BYTE};
use super::pixel_extent::PixelExtent;
use super::source::Source;
use super::value::value;

/// Bytes that an element takes beside its value, and that a value takes beside its bytes.
const ELEMENT_MEMORY: usize = 160;
pub(super) const VALUE_MEMORY: usize = 40;
/// Values longer than this are left out of a header, unless the node uses them.
const MAX_HEADER_VALUE: u64 = 1 << 20;

/// How much of an object is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// All of it; pixel data that are cut off are an error.
    Whole,
    /// All of it; of pixel data that are cut off, the frames that are there.
    Frames,
    /// All but group 7FE0.
    Header,
    /// All up to group 0020.
    Identity,
}

/// The place of a data set in the object, and its parent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// The end that its length states.
    pub end: Option<u64>,
    /// A byte behind which nothing of it can be.
    pub limit: u64,
    pub implicit: bool,
    pub depth: usize,
    /// Whether it belongs to an element that the node uses.
    pub used: bool,
}

/// How a data set ended.
#[derive(Debug, PartialEq)]
pub(super) enum Close {
    /// At its own end.
    Own,
    /// At the delimiter of the sequence that it is an item of.
    Sequence,
}

/// The result of a look behind a fault.
pub(super) enum Next {
    Element(Head),
    /// The reader stands at another header.
    Elsewhere,
    /// Nothing more belongs to the data set.
    End,
}

/// The primitive element read last.
pub(super) struct Previous {
    pub tag: Tag,
    pub value_at: u64,
}

/// Reads one data set.
pub(super) struct Parser<R> {
    pub source: Source<R>,
    pub encoding: Encoding,
    pub extent: Extent,
    elements: usize,
    pub memory: usize,
    max_memory: usize,
    /// The pixel data of the data set, once they were met.
    pub pixels: Option<PixelExtent>,
    pub searched: usize,
    /// The Specific Character Set of each open data set that has one, outermost first.
    pub charsets: Vec<InMemElement>,
}

impl<R: Read + Seek> Parser<R> {
    pub fn new(source: Source<R>, encoding: Encoding, extent: Extent) -> Self {
        let bytes = usize::try_from(source.left()).unwrap_or(usize::MAX);
        let max_memory = bytes.saturating_mul(MEMORY_PER_BYTE).saturating_add(LEAST_MEMORY).min(MAX_MEMORY);
        let (elements, memory, searched, charsets) = (0, 0, 0, Vec::new());
        Parser { source, encoding, extent, elements, memory, max_memory, pixels: None, searched, charsets }
    }

    /// Reads from where the source stands to its end. Tells how much pixel data there is, too.
    pub fn read(mut self) -> Result<(InMemDicomObject, Option<PixelExtent>), ReadCause> {
        let limit = self.source.end();
        let implicit = self.encoding == Encoding::ImplicitLittle;
        let root = Level { end: None, limit, implicit, depth: 0, used: false };
        let (object, _) = self.data_set(root)?;
        Ok((object, self.pixels))
    }

    pub(super) fn data_set(&mut self, level: Level) -> Result<(InMemDicomObject, Close), ReadCause> {
        let root = level.depth == 0;
        let outer_charsets = self.charsets.len();
        let mut elements: Vec<InMemElement> = Vec::new();
        let mut previous: Option<Previous> = None;
        let (mut last, mut ascending, mut behind_pixels, mut coded_text) = (Tag(0, 0), true, false, false);
        let mut close = Close::Own;
        loop {
            let at = self.source.position();
            if level.end.is_some_and(|end| at >= end) || at + 8 > level.limit {
                break;
            }
            let mut bytes = [0; 12];
            self.source.read(&mut bytes[..8])?;
            let tag = self.tag(&bytes);
            if root && self.extent == Extent::Identity && (0x0021..DELIMITERS).contains(&tag.group()) {
                break;
            }
            if tag.group() == DELIMITERS {
                match self.delimiter(tag, &bytes, level, behind_pixels)? {
                    Some(end) => {
                        close = end;
                        break;
                    }
                    None => {
                        previous = None;
                        continue;
                    }
                }
            }
            if tag == Tag(0, 0) && (root || bytes[..8] == [0; 8]) {
                // Zeros for the delimiter of an item, or padding.
                if level.end.is_some() {
                    self.source.go_to(at)?;
                }
                break;
            }
            let head = match self.sound_head(&mut bytes, level)? {
                Some(head) if !behind_pixels && head.tag > last && self.fits(&head, at, level) => Some(head),
                _ => None,
            };
            let head = match head {
                Some(head) => head,
                None => match self.recover(at, level, last, behind_pixels, &mut elements, previous.as_ref())? {
                    Next::Element(head) => head,
                    Next::Elsewhere => {
                        previous = None;
                        continue;
                    }
                    Next::End => break,
                },
            };
            self.count()?;
            if elements.len() >= MAX_ELEMENTS_OF_ONE {
                return Err(ReadCause::TooMany);
            }
            ascending &= head.tag > last;
            last = last.max(head.tag);
            behind_pixels |= root && head.tag == tags::PIXEL_DATA;
            let value_at = self.source.position();
            let primitive = head.length.get().is_some();
            let (begin, open) = (elements.len(), self.charsets.len());
            match self.element(&head, level, root) {
                Ok(Some(element)) => {
                    if element.tag() == tags::SPECIFIC_CHARACTER_SET {
                        self.charsets.truncate(outer_charsets);
                        self.charsets.push(element.clone());
                    }
                    coded_text |=
                        matches!(element.value(), Value::Primitive(PrimitiveValue::U8(_))) && !is_long(element.vr());
                    elements.push(element);
                }
                Ok(None) => {}
                Err(cause) if level.used || is_used(head.tag) || is_final(&cause) => return Err(cause),
                Err(cause) => {
                    self.charsets.truncate(open);
                    if !self.search(value_at, head.tag, level)? {
                        return Err(cause);
                    }
                }
            }
            let read = primitive && elements.len() > begin && self.source.position() > value_at;
            previous = read.then_some(Previous { tag: head.tag, value_at });
        }
        if !ascending {
            elements = in_order(elements)?;
        }
        if self.charsets.len() > outer_charsets {
            self.charsets.truncate(outer_charsets);
        } else if coded_text && let Some(charset) = self.charsets.last() {
            // The item inherits it (PS3.5 section 7.5.3); whoever is handed the item alone needs it there.
            elements.push(charset.clone());
        }
        Ok((InMemDicomObject::from_element_iter(elements), close))
    }

    /// Handles an item or delimitation tag where an element must be. `Some` if it ends the data set.
    fn delimiter(
        &mut self,
        tag: Tag,
        bytes: &[u8],
        level: Level,
        behind_pixels: bool,
    ) -> Result<Option<Close>, ReadCause> {
        let at = self.source.position();
        if level.depth == 0 {
            // A delimiter too many, or an item behind the end of its sequence.
            let length = u64::from(parse(bytes, Form::Implicit, self.encoding.big()).map_or(0, |head| head.length.0));
            if tag == ITEM && length <= level.limit - at {
                self.source.skip(length)?;
            } else if length != 0 && behind_pixels {
                return Ok(Some(Close::Own));
            }
            return Ok(None);
        }
        match (tag, level.end) {
            (ITEM_END, None) => Ok(Some(Close::Own)),
            // Instead of the delimiter of the item, or of both.
            (SEQUENCE_END, None) => {
                let again = matches!(self.tag_at(at)?, Some(SEQUENCE_END | ITEM));
                Ok(Some(if again { Close::Own } else { Close::Sequence }))
            }
            (ITEM_END | SEQUENCE_END, Some(end)) if at < end && self.begins_element(at, level)? => Ok(None),
            (ITEM_END, Some(end)) if at >= end => Ok(Some(Close::Own)),
            _ => {
                self.source.go_to(at - 8)?;
                Ok(Some(Close::Own))
            }
        }
    }

    /// The header of which the first eight bytes are read, if it is one of the data set's own form. Reads it to its end.
    fn sound_head(&mut self, bytes: &mut [u8; 12], level: Level) -> Result<Option<Head>, ReadCause> {
        let big = self.encoding.big();
        let vr = VR::from_binary([bytes[4], bytes[5]]);
        if level.implicit {
            // A VR where the length must be: perhaps an element in explicit VR.
            return Ok(parse(bytes, Form::Implicit, big).filter(|head| vr.is_none() && head.tag.group() != 0xFFFF));
        }
        let Some(vr) = vr else { return Ok(None) };
        if is_long(vr) && (bytes[6..8] != [0, 0] || self.source.read(&mut bytes[8..])? < 4) {
            return Ok(None);
        }
        Ok(parse(bytes, Form::Explicit, big).filter(|head| head.tag.group() != 0xFFFF))
    }

    /// Whether the value of an element that begins at `at` ends within the level.
    pub(super) fn fits(&self, head: &Head, at: u64, level: Level) -> bool {
        head.end(at).is_none_or(|end| end <= level.limit)
    }

    pub(super) fn tag(&self, bytes: &[u8]) -> Tag {
        parse(bytes, Form::Implicit, self.encoding.big()).map_or(Tag(0, 0), |head| head.tag)
    }

    pub(super) fn tag_at(&mut self, at: u64) -> Result<Option<Tag>, ReadCause> {
        let mut bytes = [0; 8];
        let known = self.source.look(at, &mut bytes)?;
        Ok((known == 8).then(|| self.tag(&bytes)))
    }

    pub(super) fn head_at(&mut self, at: u64, form: Form) -> Result<Option<Head>, ReadCause> {
        let mut bytes = [0; 12];
        let known = self.source.look(at, &mut bytes)?;
        Ok(parse(&bytes[..known], form, self.encoding.big()))
    }

    pub(super) fn count(&mut self) -> Result<(), ReadCause> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS { Err(ReadCause::TooMany) } else { Ok(()) }
    }

    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), ReadCause> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.max_memory { Err(ReadCause::TooMuchMemory) } else { Ok(()) }
    }

    /// The element whose header has been read; `None` if it is not kept.
    fn element(&mut self, head: &Head, level: Level, root: bool) -> Result<Option<InMemElement>, ReadCause> {
        let tag = head.tag;
        let skipped = self.extent == Extent::Header && root && tag.group() == 0x7FE0;
        if root && tag == tags::PIXEL_DATA {
            let left = level.limit.saturating_sub(self.source.position());
            // [`Parser::fragments`] tells of fragments.
            self.pixels = Some(match head.length.get() {
                Some(length) => PixelExtent { bytes: u64::from(length).min(left), fragments: None, codestreams: 0 },
                None => PixelExtent { bytes: 0, fragments: Some(0), codestreams: 0 },
            });
        }
        // Group lengths (PS3.5 section 7.2) are retired, and wrong in too many files.
        if tag.element() == 0 || skipped {
            match head.length.get() {
                Some(length) => self.source.skip(length.into())?,
                None => drop(self.fragments(level, true, tag == tags::PIXEL_DATA)?),
            }
            return Ok(None);
        }
        self.charge(ELEMENT_MEMORY)?;
        let unknown = head.vr == VR::UN && is_known(tag);
        let vr = if unknown { dictionary_vr(tag) } else { head.vr };
        let encapsulated = head.length.is_undefined()
            && (tag == tags::PIXEL_DATA || matches!(head.vr, VR::OB | VR::OW | VR::OF | VR::OD | VR::OL | VR::OV));
        if encapsulated {
            let sequence = self.fragments(level, false, root && tag == tags::PIXEL_DATA)?;
            return Ok(Some(DataElement::new(tag, VR::OB, Value::PixelSequence(sequence))));
        }
        if vr == VR::SQ || head.length.is_undefined() {
            // Inside UN, sequences are in implicit VR little endian (PS3.5 section 6.2.2).
            let implicit = level.implicit || head.vr == VR::UN;
            let items = self.sequence(head, Level { implicit, used: level.used || is_used(tag), ..level })?;
            let items = DataSetSequence::new(items, Length::UNDEFINED);
            return Ok(Some(DataElement::new(tag, VR::SQ, Value::Sequence(items))));
        }
        let length = u64::from(head.length.0);
        if self.extent == Extent::Header && length > MAX_HEADER_VALUE && !is_used(tag) {
            self.source.skip(length)?;
            return Ok(None);
        }
        let (position, left) = (self.source.position(), level.limit.saturating_sub(self.source.position()));
        if length > left && !(root && tag == tags::PIXEL_DATA && self.extent == Extent::Frames) {
            // One byte less is the pad byte that was not written.
            if !(root && tag == tags::PIXEL_DATA && length % 2 == 0 && length == left + 1) {
                return Err(ReadCause::Truncated { tag, position, length, left });
            }
        }
        let mut bytes = self.source.take(length)?;
        if vr == VR::OW && tag == tags::PIXEL_DATA && length == left + 1 {
            bytes.push(0);
        }
        let value = value(vr, bytes, self.encoding.big() && !unknown);
        if let PrimitiveValue::Strs(values) = &value {
            self.charge(VALUE_MEMORY * values.len())?;
        }
        Ok(Some(DataElement::new(tag, vr, value)))
    }
}

/// Whether nothing that is read elsewhere can mend it.
pub(super) fn is_final(cause: &ReadCause) -> bool {
    matches!(
        cause,
        ReadCause::Io(_)
            | ReadCause::TooDeep
            | ReadCause::TooMany
            | ReadCause::TooMuchMemory
            | ReadCause::Ambiguous { .. }
    )
}

/// By tag, each tag once: the first is kept, as DCMTK and GDCM do.
fn in_order(mut elements: Vec<InMemElement>) -> Result<Vec<InMemElement>, ReadCause> {
    elements.sort_by_key(InMemElement::tag);
    for pair in elements.windows(2) {
        let [first, second] = pair else { continue };
        let tag = first.tag();
        if tag == second.tag() && is_used(tag) && first.value() != second.value() {
            return Err(ReadCause::Ambiguous { tag });
        }
    }
    elements.dedup_by_key(|element| element.tag());
    Ok(elements)
}
