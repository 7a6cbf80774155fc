//! Reading past faults: what follows tells which reading of a header or a length is right.

use std::io::{Read, Seek};

use dicom_core::header::Header;
use dicom_core::{DataElement, Length, Tag};
use dicom_dictionary_std::tags;
use dicom_object::mem::InMemElement;

use super::error::ReadCause;
use super::head::{DELIMITERS, Form, Head, ITEM, SEQUENCE_END, agrees, is_known, is_used, parse};
use super::limits::MAX_SEARCH;
use super::parser::{Level, Next, Parser, Previous};
use super::value::value;

/// Bytes that one search looks at.
const SEARCH_WINDOW: usize = 64 << 10;

impl<R: Read + Seek> Parser<R> {
    /// Looks behind a fault at the header at byte `at`.
    pub(super) fn recover(
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

    /// Whether an element begins at byte `at`, beyond doubt.
    pub(super) fn begins_element(&mut self, at: u64, level: Level) -> Result<bool, ReadCause> {
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
    pub(super) fn continues(&mut self, at: u64, after: Tag, level: Level) -> Result<bool, ReadCause> {
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
            // If one element has an unknown VR, others have too.
            None => is_known(tag),
        })
    }

    /// Searches from byte `begin` for the element behind one of tag `after` that cannot be read, and goes there. Only the root can be
    /// searched: what is found must lead from element to element to the pixel data or to the end.
    pub(super) fn search(&mut self, begin: u64, after: Tag, level: Level) -> Result<bool, ReadCause> {
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
                // The content of a sequence without length cannot be stepped over; its beginning must do.
                None => return Ok(matches!(self.tag_at(at + head.size)?, Some(ITEM | SEQUENCE_END))),
            }
        }
    }
}
