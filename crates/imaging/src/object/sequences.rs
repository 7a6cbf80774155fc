//! Sequences of items (PS3.5 section 7.5), and of fragments of pixel data (section A.4).

use std::io::{Read, Seek};

use dicom_core::value::{C, PixelFragmentSequence};
use dicom_object::InMemDicomObject;

use super::error::ReadCause;
use super::head::{Form, Head, ITEM, ITEM_END, SEQUENCE_END, parse};
use super::limits::MAX_DEPTH;
use super::parser::{Close, Extent, Level, Parser, VALUE_MEMORY, is_final};

/// Bytes that an item takes.
const ITEM_MEMORY: usize = 1500;

/// Whether a fragment begins a frame: with SOI of JPEG and JPEG-LS, SOC of JPEG 2000, or an RLE header, which counts up to 15 segments and
/// places the first behind its own 64 bytes (PS3.5 section G.5).
fn begins_codestream(first: &[u8; 8]) -> bool {
    match *first {
        [0xFF, 0xD8 | 0x4F, ..] => true,
        [segments, 0, 0, 0, 64, 0, 0, 0] => (1..=15).contains(&segments),
        _ => false,
    }
}

impl<R: Read + Seek> Parser<R> {
    /// The items of the sequence whose header has been read. `level` is the one that the sequence is in.
    pub(super) fn sequence(&mut self, head: &Head, level: Level) -> Result<Vec<InMemDicomObject>, ReadCause> {
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

    /// Encapsulated pixel data (PS3.5 section A.4). `skipped` reads over them. `counted`: they are the object's own pixel data, not an
    /// icon's.
    pub(super) fn fragments(
        &mut self,
        level: Level,
        skipped: bool,
        counted: bool,
    ) -> Result<PixelFragmentSequence<Vec<u8>>, ReadCause> {
        let mut offsets: Option<Vec<u8>> = None;
        let mut fragments: Vec<Vec<u8>> = Vec::new();
        let mut has_table = false;
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
            if counted
                && has_table
                && let Some(pixels) = &mut self.pixels
            {
                let mut first = [0; 8];
                let at = self.source.position();
                let is_begun = length >= 8 && self.source.look(at, &mut first)? == 8 && begins_codestream(&first);
                pixels.codestreams += u64::from(is_begun);
                pixels.bytes += length;
                pixels.fragments = pixels.fragments.map(|fragments| fragments + 1);
            }
            has_table = true;
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
