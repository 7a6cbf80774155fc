//! Reading Part 10 files (PS3.10) as they really are.
//!
//! `dicom_object::open_file` wants a conformant file meta group; the RSNA 2019 files have none. Here the meta group is
//! read by a tolerant reader, and the data set by `dicom-object` behind a decoder that believes no length field which
//! does not fit in the file, limits nesting, and stops at padding behind the pixel data.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dicom_core::header::{DataElementHeader, SequenceItemHeader};
use dicom_core::{Length, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::text::SpecificCharacterSet;
use dicom_encoding::transfer_syntax::{Codec, Endianness, TransferSyntax, TransferSyntaxIndex};
use dicom_object::{FileDicomObject, FileMetaTable, FileMetaTableBuilder, InMemDicomObject};
use dicom_parser::StatefulDecode;
use dicom_parser::stateful::decode::{DynStatefulDecoder, Error as DecodeError};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

/// A DICOM object in memory: file meta group and data set.
pub type DicomObject = FileDicomObject<InMemDicomObject>;

/// Files larger than this are refused: 2 GiB, the size up to which the archive and any sane CT object stay.
pub const MAX_FILE_BYTES: u64 = 2 << 30;
/// A deflated data set may inflate to at most this; a few KiB of deflate can otherwise fill any memory.
pub const MAX_INFLATED_BYTES: u64 = 512 << 20;
/// Nested sequences and items; `dicom-object` builds them by recursion, so the stack needs a bound.
const MAX_DEPTH: usize = 64;
/// Elements and items of an object: an enhanced CT of 16,384 frames with 100 elements each stays below.
const MAX_ELEMENTS: usize = 4_000_000;
/// Item and Item Delimitation Item (PS3.5 section 7.5).
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
/// Bytes of one element of the file meta group.
const MAX_META_VALUE: u64 = 1 << 20;
/// A text value longer than this is kept as bytes: split at each backslash it could take 24 times its size in memory.
const MAX_TEXT: u32 = 1 << 20;

/// A file that cannot be read as a DICOM object.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} as a DICOM object: {cause}", path = .path.display())]
pub struct ReadError {
    /// The file, or `memory` where bytes were read.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub cause: ReadCause,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadCause {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no DICM prefix and no data set at its begin")]
    NotDicom,
    #[error("{bytes} bytes, more than the limit of {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("truncated: {tag} at byte {position} says {length} bytes, {left} are left")]
    Truncated { tag: Tag, position: u64, length: u64, left: u64 },
    #[error("sequences nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("more than {MAX_ELEMENTS} elements")]
    TooMany,
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Reads a whole object.
///
/// Reads what DCMTK and pydicom read: a file meta group without group length or version or other elements, none at all,
/// no preamble, a bare data set, a data set in another VR encoding than the transfer syntax says, UIDs that are not
/// UIDs, padding behind the pixel data. The meta group of the result always has a transfer syntax, the one that the
/// data set was read with; SOP class and instance UID are taken from the data set where the meta group lacks them, and
/// are empty where it lacks them too.
///
/// # Errors
/// [`ReadError`] for what is no DICOM object, is cut off (pixel data included), or is larger than [`MAX_FILE_BYTES`].
pub fn read_file(path: impl AsRef<Path>) -> Result<DicomObject, ReadError> {
    open(path.as_ref(), Extent::Whole)
}

/// Reads an object without its pixel data: all elements before group 7FE0. Cheap on large files.
///
/// # Errors
/// As [`read_file`], except that missing or truncated pixel data is not seen.
pub fn read_header(path: impl AsRef<Path>) -> Result<DicomObject, ReadError> {
    open(path.as_ref(), Extent::Header)
}

/// Reads a whole object from bytes in memory, as [`read_file`] does from a file.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(bytes: &[u8]) -> Result<DicomObject, ReadError> {
    read_from(Cursor::new(bytes), Extent::Whole).map_err(|cause| ReadError { path: PathBuf::from("memory"), cause })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Extent {
    Whole,
    Header,
}

fn open(path: &Path, extent: Extent) -> Result<DicomObject, ReadError> {
    let read = || {
        let file = File::open(path)?;
        let capacity = if extent == Extent::Header { 8 << 10 } else { 64 << 10 };
        read_from(BufReader::with_capacity(capacity, file), extent)
    };
    read().map_err(|cause| ReadError { path: path.to_path_buf(), cause })
}

fn read_from<R: Read + Seek>(mut reader: R, extent: Extent) -> Result<DicomObject, ReadCause> {
    let size = reader.seek(SeekFrom::End(0))?;
    if size > MAX_FILE_BYTES {
        return Err(ReadCause::TooLarge { bytes: size, limit: MAX_FILE_BYTES });
    }
    let mut meta = Meta::read(&mut reader, size)?;
    let begin = reader.stream_position()?;

    let declared = meta.transfer_syntax.as_deref().and_then(|uid| TransferSyntaxRegistry.get(uid));
    if let Some(syntax) = declared
        && let Codec::Dataset(Some(adapter)) = syntax.codec()
    {
        let mut inflated = Vec::new();
        adapter
            .adapt_reader(Box::new(&mut reader))
            .take(MAX_INFLATED_BYTES + 1)
            .read_to_end(&mut inflated)
            .map_err(|error| ReadCause::Malformed(format!("the deflated data set does not inflate: {error}")))?;
        if inflated.len() as u64 > MAX_INFLATED_BYTES {
            return Err(ReadCause::TooLarge { bytes: inflated.len() as u64, limit: MAX_INFLATED_BYTES });
        }
        let end = inflated.len() as u64;
        let data_set = read_data_set(Cursor::new(inflated), 0, end, syntax, extent)?;
        return Ok(meta.complete(data_set));
    }

    let mut head = [0; 8];
    let known = read_up_to(&mut reader, &mut head)?;
    reader.seek(SeekFrom::Start(begin))?;
    let seen = Encoding::sniff(&head[..known]);
    let syntax = match (declared, seen) {
        (None, None) if meta.transfer_syntax.is_none() => return Err(ReadCause::NotDicom),
        // a private transfer syntax: its data set is explicit VR little endian if anything (PS3.5 section 10.1)
        (None, seen) => {
            let encoding = seen.unwrap_or(Encoding::ExplicitLittle);
            meta.transfer_syntax.get_or_insert_with(|| encoding.uid().to_string());
            encoding.syntax()?
        }
        (Some(declared), Some(seen)) if Encoding::of(declared) != seen => {
            if matches!(declared.codec(), Codec::None) {
                meta.transfer_syntax = Some(seen.uid().to_string());
            }
            seen.syntax()?
        }
        (Some(declared), _) => declared,
    };
    let data_set = read_data_set(reader, begin, size, syntax, extent)?;
    Ok(meta.complete(data_set))
}

/// The three ways a data set can be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

impl Encoding {
    /// From the first element header of a data set; `None` where the bytes are too few or the group is not a data
    /// set's first (0008, or any other below 0100).
    fn sniff(head: &[u8]) -> Option<Encoding> {
        let [g0, g1, _, _, v0, v1, ..] = *head else { return None };
        let explicit = VR::from_binary([v0, v1]).is_some();
        match (g0, g1) {
            (0, 0) => None,
            (_, 0) if explicit => Some(Encoding::ExplicitLittle),
            (_, 0) => Some(Encoding::ImplicitLittle),
            (0, _) if explicit => Some(Encoding::ExplicitBig),
            _ => None,
        }
    }

    fn of(syntax: &TransferSyntax) -> Encoding {
        match syntax.endianness() {
            Endianness::Big => Encoding::ExplicitBig,
            Endianness::Little if syntax.uid() == uids::IMPLICIT_VR_LITTLE_ENDIAN => Encoding::ImplicitLittle,
            Endianness::Little => Encoding::ExplicitLittle,
        }
    }

    fn uid(self) -> &'static str {
        match self {
            Encoding::ImplicitLittle => uids::IMPLICIT_VR_LITTLE_ENDIAN,
            Encoding::ExplicitLittle => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            #[expect(deprecated, reason = "retired from the standard, not from archives")]
            Encoding::ExplicitBig => uids::EXPLICIT_VR_BIG_ENDIAN,
        }
    }

    fn syntax(self) -> Result<&'static TransferSyntax, ReadCause> {
        TransferSyntaxRegistry
            .get(self.uid())
            .ok_or_else(|| ReadCause::Malformed(format!("transfer syntax {} is not built in", self.uid())))
    }
}

/// The file meta group as far as it is there.
#[derive(Debug, Default)]
struct Meta {
    sop_class: Option<String>,
    sop_instance: Option<String>,
    transfer_syntax: Option<String>,
    implementation_class: Option<String>,
    implementation_version: Option<String>,
    source_title: Option<String>,
    sending_title: Option<String>,
    receiving_title: Option<String>,
    private_creator: Option<String>,
    private: Option<Vec<u8>>,
}

impl Meta {
    /// Skips preamble and prefix, then reads elements until the group is no longer 0002. The group length is ignored:
    /// it is missing or wrong in too many files. Leaves `reader` at the data set.
    fn read<R: Read + Seek>(reader: &mut R, size: u64) -> Result<Meta, ReadCause> {
        reader.seek(SeekFrom::Start(0))?;
        let mut head = [0; 132];
        let known = read_up_to(reader, &mut head)?;
        let begin = if known == 132 && &head[128..] == b"DICM" {
            132
        } else if head.starts_with(b"DICM") {
            4
        } else {
            let plausible = match Encoding::sniff(&head[..known.min(8)]) {
                Some(Encoding::ExplicitBig) => head[1] == 8,
                Some(_) => head[0] == 2 || head[0] == 8,
                None => false,
            };
            if !plausible {
                return Err(ReadCause::NotDicom);
            }
            0
        };
        reader.seek(SeekFrom::Start(begin))?;
        let mut meta = Meta::default();
        loop {
            let at = reader.stream_position()?;
            let mut header = [0; 8];
            if read_up_to(reader, &mut header)? < 8 || header[..2] != [2, 0] {
                reader.seek(SeekFrom::Start(at))?;
                return Ok(meta);
            }
            let tag = Tag(2, u16::from_le_bytes([header[2], header[3]]));
            let length = match VR::from_binary([header[4], header[5]]) {
                Some(VR::OB | VR::OW | VR::UN | VR::UT | VR::SQ | VR::UC | VR::UR | VR::OF | VR::OD | VR::OL) => {
                    let mut long = [0; 4];
                    reader.read_exact(&mut long)?;
                    u64::from(u32::from_le_bytes(long))
                }
                Some(_) => u64::from(u16::from_le_bytes([header[6], header[7]])),
                // written in implicit VR against PS3.10 section 7.1
                None => u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]])),
            };
            let position = reader.stream_position()?;
            let left = size.saturating_sub(position);
            if length > left || length > MAX_META_VALUE {
                return Err(ReadCause::Truncated { tag, position, length, left });
            }
            let mut value = vec![0; length as usize];
            reader.read_exact(&mut value)?;
            meta.keep(tag, value);
        }
    }

    fn keep(&mut self, tag: Tag, value: Vec<u8>) {
        let text = || {
            let text = String::from_utf8_lossy(&value);
            Some(text.trim_matches(['\0', ' ']).to_string()).filter(|text| !text.is_empty())
        };
        match tag {
            tags::MEDIA_STORAGE_SOP_CLASS_UID => self.sop_class = text(),
            tags::MEDIA_STORAGE_SOP_INSTANCE_UID => self.sop_instance = text(),
            tags::TRANSFER_SYNTAX_UID => self.transfer_syntax = text(),
            tags::IMPLEMENTATION_CLASS_UID => self.implementation_class = text(),
            tags::IMPLEMENTATION_VERSION_NAME => self.implementation_version = text(),
            tags::SOURCE_APPLICATION_ENTITY_TITLE => self.source_title = text(),
            tags::SENDING_APPLICATION_ENTITY_TITLE => self.sending_title = text(),
            tags::RECEIVING_APPLICATION_ENTITY_TITLE => self.receiving_title = text(),
            tags::PRIVATE_INFORMATION_CREATOR_UID => self.private_creator = text(),
            tags::PRIVATE_INFORMATION => self.private = Some(value),
            _ => {}
        }
    }

    /// The meta table of the object, completed from the data set.
    fn complete(self, data_set: InMemDicomObject) -> DicomObject {
        let uid = |tag| {
            let text = data_set.get(tag).and_then(|element| element.value().to_str().ok());
            text.map(|text| text.trim_matches(['\0', ' ']).to_string()).unwrap_or_default()
        };
        let sop_class = self.sop_class.unwrap_or_else(|| uid(tags::SOP_CLASS_UID));
        let sop_instance = self.sop_instance.unwrap_or_else(|| uid(tags::SOP_INSTANCE_UID));
        let transfer_syntax = self.transfer_syntax.unwrap_or_else(|| uids::IMPLICIT_VR_LITTLE_ENDIAN.into());
        let mut builder = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(sop_class)
            .media_storage_sop_instance_uid(sop_instance)
            .transfer_syntax(transfer_syntax);
        if let Some(uid) = self.implementation_class {
            builder = builder.implementation_class_uid(uid);
        }
        if let Some(name) = self.implementation_version {
            builder = builder.implementation_version_name(name);
        }
        if let Some(title) = self.source_title {
            builder = builder.source_application_entity_title(title);
        }
        if let Some(title) = self.sending_title {
            builder = builder.sending_application_entity_title(title);
        }
        if let Some(title) = self.receiving_title {
            builder = builder.receiving_application_entity_title(title);
        }
        if let (Some(uid), Some(bytes)) = (self.private_creator, self.private) {
            builder = builder.private_information_creator_uid(uid).private_information(bytes);
        }
        let meta: FileMetaTable = builder.build().expect("a meta table needs only a transfer syntax, which was given");
        data_set.with_exact_meta(meta)
    }
}

/// Fills `buffer` as far as the reader goes; returns how far.
fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_data_set<R: Read>(
    reader: R,
    begin: u64,
    end: u64,
    syntax: &TransferSyntax,
    extent: Extent,
) -> Result<InMemDicomObject, ReadCause> {
    let source = Source(Rc::new(RefCell::new(Counted { reader, position: begin, end })));
    let mut decoder = BoundedDecoder::new(source, syntax, extent)?;
    let read = InMemDicomObject::read_dataset(&mut decoder);
    match (read, decoder.cause.take()) {
        (_, Some(cause)) => Err(cause),
        (Ok(data_set), None) if data_set.iter().next().is_none() => {
            Err(ReadCause::Malformed("the data set is empty".into()))
        }
        (Ok(data_set), None) => Ok(data_set),
        (Err(error), None) => Err(ReadCause::Malformed(chain(&error))),
    }
}

/// An error with its causes in one line; the texts of `dicom-object` name one level each.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[derive(Debug)]
struct Counted<R> {
    reader: R,
    position: u64,
    end: u64,
}

/// The bytes, shared by the decoder of the data set and the implicit VR one for `UN` sequences.
#[derive(Debug)]
struct Source<R>(Rc<RefCell<Counted<R>>>);

impl<R> Clone for Source<R> {
    fn clone(&self) -> Self {
        Source(Rc::clone(&self.0))
    }
}

impl<R> Source<R> {
    fn position(&self) -> u64 {
        self.0.borrow().position
    }

    fn left(&self) -> u64 {
        let counted = self.0.borrow();
        counted.end.saturating_sub(counted.position)
    }

    /// From here on the bytes are at their end.
    fn finish(&self) {
        let mut counted = self.0.borrow_mut();
        counted.end = counted.position;
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut counted = self.0.borrow_mut();
        let left = counted.end.saturating_sub(counted.position);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = counted.reader.read(&mut buffer[..wanted])?;
        counted.position += read as u64;
        Ok(read)
    }
}

/// A sequence or item that is being read.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Where it ends, if it says so.
    end: Option<u64>,
    /// Inside a `UN` element of undefined length, whose content is implicit VR little endian (PS3.5 section 6.2.2).
    implicit: bool,
}

/// Stands between `dicom-parser` and the bytes. The parser allocates what a length field says before it reads, and
/// builds sequences by recursion, so lengths and depth are checked here, before the parser sees them.
struct BoundedDecoder<R> {
    source: Source<R>,
    decoder: DynStatefulDecoder<Source<R>>,
    /// For the content of `UN` sequences.
    implicit: DynStatefulDecoder<Source<R>>,
    extent: Extent,
    levels: Vec<Level>,
    elements: usize,
    /// Pixel data has been passed; what follows and makes no sense is padding.
    behind_pixels: bool,
    /// Why reading stopped, in our own words; the parser only hears that something is wrong.
    cause: Option<ReadCause>,
}

impl<R: Read> BoundedDecoder<R> {
    fn new(source: Source<R>, syntax: &TransferSyntax, extent: Extent) -> Result<Self, ReadCause> {
        let decoder = |syntax: &TransferSyntax| {
            DynStatefulDecoder::new_with(source.clone(), syntax, SpecificCharacterSet::default(), 0)
                .map_err(|error| ReadCause::Malformed(chain(&error)))
        };
        Ok(BoundedDecoder {
            decoder: decoder(syntax)?,
            implicit: decoder(Encoding::ImplicitLittle.syntax()?)?,
            source,
            extent,
            levels: Vec::new(),
            elements: 0,
            behind_pixels: false,
            cause: None,
        })
    }

    fn current(&mut self) -> &mut DynStatefulDecoder<Source<R>> {
        if self.levels.last().is_some_and(|level| level.implicit) { &mut self.implicit } else { &mut self.decoder }
    }

    fn close_ended_levels(&mut self) {
        let position = self.source.position();
        while self.levels.last().is_some_and(|level| level.end.is_some_and(|end| end <= position)) {
            self.levels.pop();
        }
    }

    /// Bytes left in the innermost level that says where it ends, or in the file.
    fn left(&self) -> u64 {
        let position = self.source.position();
        let end = self.levels.iter().rev().find_map(|level| level.end);
        self.source.left().min(end.map_or(u64::MAX, |end| end.saturating_sub(position)))
    }

    fn fail<T>(&mut self, cause: ReadCause) -> Result<T, DecodeError> {
        self.cause.get_or_insert(cause);
        Err(DecodeError::AllocateValueData { len: 0 })
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS { self.fail(ReadCause::TooMany) } else { Ok(()) }
    }

    fn check_length(&mut self, tag: Tag, length: Length) -> Result<(), DecodeError> {
        let left = self.left();
        match length.get() {
            Some(length) if u64::from(length) > left => {
                let position = self.source.position();
                self.fail(ReadCause::Truncated { tag, position, length: length.into(), left })
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, length: Length, implicit: bool) -> Result<(), DecodeError> {
        if self.levels.len() >= MAX_DEPTH {
            return self.fail(ReadCause::TooDeep);
        }
        let position = self.source.position();
        let implicit = implicit || self.levels.last().is_some_and(|level| level.implicit);
        let end = length.get().map(|length| position + u64::from(length));
        self.levels.push(Level { end, implicit });
        Ok(())
    }

    /// Ends the data set here: the parser takes an end of file before a tag for the regular end.
    fn finish(&mut self) -> Result<DataElementHeader, DecodeError> {
        self.source.finish();
        self.decoder.decode_header()
    }
}

impl<R: Read> StatefulDecode for BoundedDecoder<R> {
    type Reader = Source<R>;

    fn decode_header(&mut self) -> Result<DataElementHeader, DecodeError> {
        self.close_ended_levels();
        let at_root = self.levels.is_empty();
        if at_root && self.source.left() < 8 {
            return self.finish();
        }
        let header = match self.current().decode_header() {
            Err(_) if at_root && self.behind_pixels => return self.finish(),
            other => other?,
        };
        if at_root {
            let padding = header.tag == Tag(0, 0)
                || (self.behind_pixels
                    && (header.tag <= tags::PIXEL_DATA
                        || header.len.get().is_some_and(|length| u64::from(length) > self.source.left())));
            if padding || (self.extent == Extent::Header && header.tag.group() >= 0x7FE0) {
                return self.finish();
            }
        }
        self.count()?;
        if header.tag == ITEM_END {
            self.levels.pop();
            return Ok(header);
        }
        self.check_length(header.tag, header.len)?;
        let pixels = header.tag == tags::PIXEL_DATA;
        if at_root && pixels {
            self.behind_pixels = true;
        }
        if header.vr == VR::SQ || header.len.is_undefined() {
            self.enter(header.len, header.vr == VR::UN && !pixels)?;
        }
        Ok(header)
    }

    fn decode_item_header(&mut self) -> Result<SequenceItemHeader, DecodeError> {
        self.close_ended_levels();
        let header = self.current().decode_item_header()?;
        self.count()?;
        match header {
            SequenceItemHeader::Item { len } => {
                self.check_length(ITEM, len)?;
                self.enter(len, false)?;
            }
            SequenceItemHeader::ItemDelimiter | SequenceItemHeader::SequenceDelimiter => {
                self.levels.pop();
            }
        }
        Ok(header)
    }

    fn read_value(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue, DecodeError> {
        self.current().read_value(header)
    }

    fn read_value_preserved(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue, DecodeError> {
        let length = header.len.0;
        let whole = match header.vr() {
            VR::US | VR::SS | VR::OW => length.is_multiple_of(2),
            VR::UL | VR::SL | VR::FL | VR::OF | VR::OL | VR::AT => length.is_multiple_of(4),
            VR::FD | VR::OD | VR::UV | VR::SV | VR::OV => length.is_multiple_of(8),
            VR::OB | VR::UN => true,
            _ => length <= MAX_TEXT,
        };
        // otherwise the parser would read fewer bytes than the element has and take the rest for a header
        if whole { self.current().read_value_preserved(header) } else { self.current().read_value_bytes(header) }
    }

    fn read_value_bytes(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue, DecodeError> {
        self.current().read_value_bytes(header)
    }

    fn read_to_vec(&mut self, length: u32, vec: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().read_to_vec(length, vec)
    }

    fn read_u32_to_vec(&mut self, length: u32, vec: &mut Vec<u32>) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().read_u32_to_vec(length, vec)?;
        self.current().skip_bytes(length % 4)
    }

    fn read_to<W: io::Write>(&mut self, length: u32, out: W) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().read_to(length, out)
    }

    fn skip_bytes(&mut self, length: u32) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().skip_bytes(length)
    }

    fn seek(&mut self, _position: u64) -> Result<(), DecodeError>
    where
        Self::Reader: Seek,
    {
        self.fail(ReadCause::Malformed("the data set is read from begin to end".into()))
    }

    fn position(&self) -> u64 {
        self.source.position()
    }
}
