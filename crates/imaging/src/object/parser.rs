//! The data set, read as senders write it: within bounds, and past faults in what the node does not need.
//!
//! A length is believed if the bytes behind it begin another element. If they do not, other readings are tried in turn: other forms of the
//! header, a missing or an extra pad byte, the items of a sequence without regard to its length, and a search for the next element.
//! Of an element that the node uses nothing is guessed: the object is refused.

use std::io::{Read, Seek};

use dicom_core::header::Header;
use dicom_core::value::{C, DataSetSequence, PixelFragmentSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use super::encoding::Encoding;
use super::error::ReadCause;
use super::head::{
    DELIMITERS, Form, Head, ITEM, ITEM_END, SEQUENCE_END, agrees, dictionary_vr, is_known, is_long, is_used, parse,
};
use super::limits::{MAX_DEPTH, MAX_ELEMENTS, MAX_ELEMENTS_OF_ONE, MAX_MEMORY, MAX_SEARCH};
use super::source::Source;
use super::value::value;

/// Bytes that an element takes beside its value, that a value takes beside its bytes, and that an item takes.
const ELEMENT_MEMORY: usize = 160;
const VALUE_MEMORY: usize = 40;
const ITEM_MEMORY: usize = 1500;
/// Values longer than this are left out of a header, unless the node uses them.
const MAX_HEADER_VALUE: u64 = 1 << 20;
/// Bytes that one search looks at.
const SEARCH_WINDOW: usize = 64 << 10;

/// How much of an object is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// All of it; pixel data that are cut off are an error.
    Whole,
    /// All of it; of pixel data that are cut off, the frames that are there.
    Frames,
    /// All but group 7FE0.
    Header,
}

/// Where a data set is and what it is part of.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Where it says that it ends.
    end: Option<u64>,
    /// A byte behind which nothing of it can be.
    limit: u64,
    implicit: bool,
    depth: usize,
    /// Whether it belongs to an element that the node uses.
    used: bool,
}

/// How a data set ended.
#[derive(Debug, PartialEq)]
enum Close {
    /// At its own end.
    Own,
    /// At the delimiter of the sequence that it is an item of.
    Sequence,
}

/// What a look behind a fault came to.
enum Next {
    Element(Head),
    /// The reader stands at another header.
    Elsewhere,
    /// Nothing more belongs to the data set.
    End,
}

/// The primitive element read last.
struct Previous {
    tag: Tag,
    value_at: u64,
}

/// Reads one data set.
pub(super) struct Parser<R> {
    source: Source<R>,
    encoding: Encoding,
    extent: Extent,
    elements: usize,
    memory: usize,
    searched: usize,
    /// The Specific Character Set of each open data set that has one, outermost first.
    charsets: Vec<InMemElement>,
}

impl<R: Read + Seek> Parser<R> {
    pub fn new(source: Source<R>, encoding: Encoding, extent: Extent) -> Self {
        Parser { source, encoding, extent, elements: 0, memory: 0, searched: 0, charsets: Vec::new() }
    }

    /// Reads from where the source stands to its end.
    pub fn read(mut self) -> Result<InMemDicomObject, ReadCause> {
        let limit = self.source.end();
        let implicit = self.encoding == Encoding::ImplicitLittle;
        let root = Level { end: None, limit, implicit, depth: 0, used: false };
        let (object, _) = self.data_set(root)?;
        Ok(object)
    }

    fn data_set(&mut self, level: Level) -> Result<(InMemDicomObject, Close), ReadCause> {
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
    fn fits(&self, head: &Head, at: u64, level: Level) -> bool {
        head.end(at).is_none_or(|end| end <= level.limit)
    }

    /// Looks behind a fault at the header at byte `at`.
    fn recover(
        &mut self,
        at: u64,
        level: Level,
        last: Tag,
        behind_pixels: bool,
        elements: &mut Vec<InMemElement>,
        previous: Option<&Previous>,
    ) -> Result<Next, ReadCause> {
        let own = if level.implicit { Form::Implicit } else { Form::Explicit };
        let mut bytes = [0; 12];
        let known = self.source.look(at, &mut bytes)?;
        let bytes = &bytes[..known];
        let big = self.encoding.big();
        let head = parse(bytes, own, big);
        if behind_pixels {
            // Padding, unless it is an element beyond doubt.
            let element = head.filter(|head| {
                is_known(head.tag)
                    && head.tag.group() >= 8
                    && head.tag.group() != 0xFFFC
                    && (level.implicit || agrees(head.tag, head.vr))
                    && self.fits(head, at, level)
            });
            let Some(head) = element else { return Ok(Next::End) };
            self.source.go_to(at + head.size)?;
            return Ok(Next::Element(head));
        }
        // Pixel data that are cut off; how much is missing is judged where they are read.
        let cut = head.filter(|head| level.depth == 0 && head.tag == tags::PIXEL_DATA);
        let out_of_order = head.filter(|head| {
            self.fits(head, at, level)
                && head.tag.group() >= 8
                && head.tag.group() != 0xFFFF
                && (level.implicit || agrees(head.tag, head.vr) || !is_known(head.tag))
                && (!level.implicit || is_known(head.tag) || head.tag.group() % 2 == 1)
        });
        if let Some(head) = cut.or(out_of_order.filter(|head| head.tag <= last))
            && (cut.is_some() || self.follows_any(&head, at, level)?)
        {
            self.source.go_to(at + head.size)?;
            return Ok(Next::Element(head));
        }
        let others: &[Form] = match level.implicit {
            true => &[Form::Explicit, Form::Implicit],
            false => &[Form::Implicit, Form::UnknownShort, Form::UnknownLong, Form::Narrow, Form::Explicit],
        };
        for &form in others {
            let Some(head) = parse(bytes, form, big) else { continue };
            if head.tag > last && self.fits(&head, at, level) && self.follows(&head, at, level)? {
                self.source.go_to(at + head.size)?;
                return Ok(Next::Element(head));
            }
        }
        if let Some(previous) = previous {
            // The value before this has no pad byte, or one that its length does not count.
            for other in [at - 1, at + 1] {
                if other < previous.value_at {
                    continue;
                }
                let head = self.head_at(other, own)?;
                if let Some(head) = head.filter(|head| head.tag > last && is_known(head.tag))
                    && self.fits(&head, other, level)
                    && (level.implicit || agrees(head.tag, head.vr))
                    && self.follows(&head, other, level)?
                {
                    if other < at {
                        self.shorten(elements, previous, other)?;
                    }
                    self.source.go_to(other)?;
                    return Ok(Next::Elsewhere);
                }
            }
            if !level.used && !is_used(previous.tag) && self.search(previous.value_at, previous.tag, level)? {
                elements.pop();
                return Ok(Next::Elsewhere);
            }
        }
        let head = head.or_else(|| parse(bytes, Form::Implicit, big));
        let (tag, length, size) = head.map_or((last, Length(0), 8), |head| (head.tag, head.length, head.size));
        if !level.used && !is_used(tag) && self.search(at + 8, tag.max(last), level)? {
            return Ok(Next::Elsewhere);
        }
        let position = at + size;
        let left = level.limit.saturating_sub(position);
        Err(match length.get() {
            Some(length) if u64::from(length) > left && head.is_some() => {
                ReadCause::Truncated { tag, position, length: length.into(), left }
            }
            _ => ReadCause::Malformed(format!("no element can be told at byte {at}, behind {last}")),
        })
    }

    /// Reads the element before a fault again, to end at byte `end`.
    fn shorten(&mut self, elements: &mut Vec<InMemElement>, previous: &Previous, end: u64) -> Result<(), ReadCause> {
        let Some(element) = elements.pop() else { return Ok(()) };
        self.source.go_to(previous.value_at)?;
        let bytes = self.source.take(end - previous.value_at)?;
        elements.push(DataElement::new(element.tag(), element.vr(), value(element.vr(), bytes, self.encoding.big())));
        Ok(())
    }

    fn tag(&self, bytes: &[u8]) -> Tag {
        parse(bytes, Form::Implicit, self.encoding.big()).map_or(Tag(0, 0), |head| head.tag)
    }

    fn tag_at(&mut self, at: u64) -> Result<Option<Tag>, ReadCause> {
        let mut bytes = [0; 8];
        let known = self.source.look(at, &mut bytes)?;
        Ok((known == 8).then(|| self.tag(&bytes)))
    }

    fn head_at(&mut self, at: u64, form: Form) -> Result<Option<Head>, ReadCause> {
        let mut bytes = [0; 12];
        let known = self.source.look(at, &mut bytes)?;
        Ok(parse(&bytes[..known], form, self.encoding.big()))
    }

    /// Whether an element begins at byte `at`, beyond doubt.
    fn begins_element(&mut self, at: u64, level: Level) -> Result<bool, ReadCause> {
        let form = if level.implicit { Form::Implicit } else { Form::Explicit };
        let head = self.head_at(at, form)?;
        Ok(head.is_some_and(|head| {
            is_known(head.tag) && (level.implicit || agrees(head.tag, head.vr)) && self.fits(&head, at, level)
        }))
    }

    /// Whether what follows the element that begins at `at` is the next one of the level, or its end.
    fn follows(&mut self, head: &Head, at: u64, level: Level) -> Result<bool, ReadCause> {
        match head.end(at) {
            Some(end) => self.continues(end, head.tag, level),
            None => Ok(matches!(self.tag_at(at + head.size)?, Some(ITEM | SEQUENCE_END))),
        }
    }

    /// As [`follows`](Self::follows), of an element that is out of order itself.
    fn follows_any(&mut self, head: &Head, at: u64, level: Level) -> Result<bool, ReadCause> {
        match head.end(at) {
            Some(end) => self.continues(end, Tag(0, 0), level),
            None => self.follows(head, at, level),
        }
    }

    /// Whether the level goes on at byte `at` behind an element `after`: with an element of a greater tag, or with its end.
    fn continues(&mut self, at: u64, after: Tag, level: Level) -> Result<bool, ReadCause> {
        if level.end == Some(at) || at == level.limit {
            return Ok(true);
        }
        if at > level.limit {
            return Ok(false);
        }
        if level.limit - at < 8 {
            return Ok(level.depth == 0);
        }
        let mut bytes = [0; 12];
        let known = self.source.look(at, &mut bytes)?;
        let bytes = &bytes[..known];
        let tag = self.tag(bytes);
        if tag.group() == DELIMITERS {
            return Ok(tag != ITEM && bytes[4..8] == [0; 4]);
        }
        if bytes[..8] == [0; 8] {
            return Ok(level.depth > 0 && level.end.is_none());
        }
        if tag <= after || tag.group() < 8 || tag.group() > 0x7FFF {
            return Ok(level.depth == 0 && tag == Tag(0xFFFC, 0xFFFC));
        }
        let own = if level.implicit { Form::Implicit } else { Form::Explicit };
        Ok(match parse(bytes, own, self.encoding.big()) {
            Some(head) if level.implicit => {
                (is_known(tag) || tag.group() % 2 == 1) && (self.fits(&head, at, level) || tag == tags::PIXEL_DATA)
            }
            Some(head) => self.fits(&head, at, level) || tag == tags::PIXEL_DATA,
            // Where one element has a VR that is none, others have too.
            None => is_known(tag),
        })
    }

    /// Searches from byte `begin` for the element behind one of tag `after` that cannot be read, and goes there. Only the root can be
    /// searched: what is found must lead from element to element to the pixel data or to the end.
    fn search(&mut self, begin: u64, after: Tag, level: Level) -> Result<bool, ReadCause> {
        if level.depth > 0 {
            return Ok(false);
        }
        let allowed = MAX_SEARCH.saturating_sub(self.searched).min(SEARCH_WINDOW);
        let window = level.limit.saturating_sub(begin).min(allowed as u64);
        self.searched += allowed;
        let back = self.source.position();
        self.source.go_to(begin)?;
        let bytes = self.source.take(window)?;
        self.source.go_to(back)?;
        let own = if level.implicit { Form::Implicit } else { Form::Explicit };
        for (offset, candidate) in bytes.windows(8).enumerate() {
            let tag = self.tag(candidate);
            if tag > after && tag <= tags::PIXEL_DATA && tag.group() >= 8 && is_known(tag) {
                let at = begin + offset as u64;
                if self.head_at(at, own)?.is_some() && self.leads_to_the_end(at, level, own)? {
                    self.source.go_to(at)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether elements follow one another from byte `at` in ascending order, to root pixel data or to the end.
    fn leads_to_the_end(&mut self, mut at: u64, level: Level, own: Form) -> Result<bool, ReadCause> {
        let mut last = Tag(0, 0);
        loop {
            if level.limit - at < 8 {
                return Ok(last != Tag(0, 0));
            }
            self.searched += 16;
            if self.searched > MAX_SEARCH {
                return Ok(false);
            }
            let Some(head) = self.head_at(at, own)? else { return Ok(false) };
            let expected = own == Form::Implicit || agrees(head.tag, head.vr) || !is_known(head.tag);
            if head.tag <= last || head.tag.group() < 8 || head.tag.group() > 0x7FFF || !expected {
                return Ok(false);
            }
            last = head.tag;
            match head.end(at) {
                _ if head.tag == tags::PIXEL_DATA && head.length.is_undefined() => {
                    return Ok(self.tag_at(at + head.size)? == Some(ITEM));
                }
                // Behind them may be padding, or nothing if they are cut off.
                _ if head.tag == tags::PIXEL_DATA => return Ok(true),
                Some(end) if end <= level.limit => at = end,
                Some(_) => return Ok(false),
                // What is in a sequence without length cannot be stepped over; its begin must do.
                None => return Ok(matches!(self.tag_at(at + head.size)?, Some(ITEM | SEQUENCE_END))),
            }
        }
    }

    fn count(&mut self) -> Result<(), ReadCause> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS { Err(ReadCause::TooMany) } else { Ok(()) }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ReadCause> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MAX_MEMORY { Err(ReadCause::TooMuchMemory) } else { Ok(()) }
    }

    /// The element whose header has been read; `None` if it is not kept.
    fn element(&mut self, head: &Head, level: Level, root: bool) -> Result<Option<InMemElement>, ReadCause> {
        let tag = head.tag;
        let skipped = self.extent == Extent::Header && root && tag.group() == 0x7FE0;
        // Group lengths (PS3.5 section 7.2) are retired, and wrong in too many files.
        if tag.element() == 0 || skipped {
            match head.length.get() {
                Some(length) => self.source.skip(length.into())?,
                None => drop(self.fragments(level, true)?),
            }
            return Ok(None);
        }
        self.charge(ELEMENT_MEMORY)?;
        let unknown = head.vr == VR::UN && is_known(tag);
        let vr = if unknown { dictionary_vr(tag) } else { head.vr };
        let encapsulated = head.length.is_undefined()
            && (tag == tags::PIXEL_DATA || matches!(head.vr, VR::OB | VR::OW | VR::OF | VR::OD | VR::OL | VR::OV));
        if encapsulated {
            let sequence = self.fragments(level, false)?;
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

    /// The items of the sequence whose header has been read. `level` is the one that the sequence is in.
    fn sequence(&mut self, head: &Head, level: Level) -> Result<Vec<InMemDicomObject>, ReadCause> {
        if level.depth + 2 > MAX_DEPTH {
            return Err(ReadCause::TooDeep);
        }
        let value_at = self.source.position();
        let end = head.length.get().map(|length| value_at + u64::from(length));
        // The length is believed if another element, or the end, is behind it.
        let believed = match end {
            Some(end) => self.continues(end, head.tag, level)?,
            None => false,
        };
        let limit = if believed { end.unwrap_or(level.limit) } else { level.limit };
        let inner = Level { end, limit, depth: level.depth + 1, ..level };
        match (self.items(inner), end) {
            (Ok(items), Some(end)) if believed => {
                self.source.go_to(end)?;
                Ok(items)
            }
            (Ok(items), _) => Ok(items),
            (Err(cause), Some(end)) if believed && !inner.used && !is_final(&cause) => {
                self.source.go_to(end)?;
                Ok(Vec::new())
            }
            (Err(cause), _) => Err(cause),
        }
    }

    fn items(&mut self, level: Level) -> Result<Vec<InMemDicomObject>, ReadCause> {
        let mut items = Vec::new();
        loop {
            let at = self.source.position();
            if level.end.is_some_and(|end| at >= end) || at + 8 > level.limit {
                return Ok(items);
            }
            let mut bytes = [0; 8];
            self.source.read(&mut bytes)?;
            let Some(head) = parse(&bytes, Form::Implicit, self.encoding.big()) else { return Ok(items) };
            match head.tag {
                ITEM => {
                    self.count()?;
                    self.charge(ITEM_MEMORY)?;
                    let (item, close) = self.item(&head, level)?;
                    items.push(item);
                    if close == Close::Sequence && level.end.is_none() {
                        return Ok(items);
                    }
                }
                SEQUENCE_END if level.end.is_none() => return Ok(items),
                // One too many.
                SEQUENCE_END | ITEM_END => {}
                // Zeros for the delimiter.
                _ if bytes == [0; 8] && level.end.is_none() => return Ok(items),
                // The sequence ends without a delimiter, or before its length says.
                _ => {
                    self.source.go_to(at)?;
                    return Ok(items);
                }
            }
        }
    }

    /// One item; `level` is the sequence that it is in.
    fn item(&mut self, head: &Head, level: Level) -> Result<(InMemDicomObject, Close), ReadCause> {
        let position = self.source.position();
        let end = head.length.get().map(|length| position + u64::from(length));
        let believed = match end {
            Some(end) if end > level.limit => {
                let length = u64::from(head.length.0);
                return Err(ReadCause::Truncated { tag: ITEM, position, length, left: level.limit - position });
            }
            Some(end) if level.end == Some(end) => level.limit == end,
            Some(end) => matches!(self.tag_at(end)?, Some(ITEM | SEQUENCE_END)),
            None => false,
        };
        let limit = if believed { end.unwrap_or(level.limit) } else { level.limit };
        let inner = Level { end, limit, depth: level.depth + 1, ..level };
        let open = self.charsets.len();
        let read = self.data_set(inner);
        self.charsets.truncate(open);
        match (read, end) {
            (Err(cause), Some(end)) if believed && !level.used && !is_final(&cause) => {
                self.source.go_to(end)?;
                Ok((InMemDicomObject::new_empty(), Close::Own))
            }
            (read, Some(end)) if believed => {
                self.source.go_to(end)?;
                read
            }
            (read, _) => read,
        }
    }

    /// Encapsulated pixel data (PS3.5 section A.4). `skipped` reads over them.
    fn fragments(&mut self, level: Level, skipped: bool) -> Result<PixelFragmentSequence<Vec<u8>>, ReadCause> {
        let mut offsets: Option<Vec<u8>> = None;
        let mut fragments: Vec<Vec<u8>> = Vec::new();
        loop {
            let at = self.source.position();
            if at + 8 > level.limit {
                break;
            }
            let mut bytes = [0; 8];
            self.source.read(&mut bytes)?;
            let Some(head) = parse(&bytes, Form::Implicit, self.encoding.big()) else { break };
            match head.tag {
                ITEM => {}
                SEQUENCE_END => break,
                // Instead of the delimiter of the sequence.
                ITEM_END => {
                    if self.tag_at(at + 8)? == Some(ITEM) {
                        continue;
                    }
                    break;
                }
                _ if bytes == [0; 8] => break,
                _ => {
                    // The fragment before has a pad byte that its length does not count, or lacks one that it counts.
                    let other = [at + 1, at - 1].into_iter().find_map(|other| match self.tag_at(other) {
                        Ok(Some(ITEM | SEQUENCE_END)) => Some(Ok(other)),
                        Ok(_) => None,
                        Err(cause) => Some(Err(cause)),
                    });
                    if let Some(other) = other.transpose()? {
                        if other < at
                            && let Some(fragment) = fragments.last_mut()
                        {
                            fragment.pop();
                        }
                        self.source.go_to(other)?;
                        continue;
                    }
                    self.source.go_to(at)?;
                    if offsets.is_some() && (level.depth > 0 || self.begins_element(at, level)?) {
                        break;
                    }
                    return Err(ReadCause::Malformed(format!("there is no fragment of pixel data at byte {at}")));
                }
            }
            self.count()?;
            self.charge(VALUE_MEMORY)?;
            let (length, left) = (u64::from(head.length.0), level.limit - self.source.position());
            if head.length.is_undefined() || length > left {
                // Frames that are whole can be decoded; what is left of the last one is no frame.
                if skipped || (self.extent == Extent::Frames && fragments.len() > 1 && !head.length.is_undefined()) {
                    self.source.go_to(level.limit)?;
                    break;
                }
                return Err(ReadCause::Truncated { tag: ITEM, position: at + 8, length, left });
            }
            if skipped {
                self.source.skip(length)?;
            } else if offsets.is_none() {
                offsets = Some(self.source.take(length)?);
            } else {
                fragments.push(self.source.take(length)?);
            }
        }
        let offsets = offsets.unwrap_or_default();
        let offsets: C<u32> = offsets.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Ok(PixelFragmentSequence::new(offsets, fragments))
    }
}

/// Whether nothing that is read elsewhere can mend it.
fn is_final(cause: &ReadCause) -> bool {
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
