//! Reading Part 10 files (PS3.10) as they really are.
//!
//! `dicom_object::open_file` wants a conformant file meta group; the RSNA 2019 files have none. Here the meta group is
//! read by a tolerant reader, and the data set by `dicom-object` behind a decoder that believes no length field which
//! does not fit in the file, limits nesting, and stops at padding behind the pixel data.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::uids;
use dicom_encoding::transfer_syntax::{Codec, Endianness, TransferSyntax, TransferSyntaxIndex};
use dicom_object::{FileDicomObject, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::bounded::{BoundedDecoder, MAX_DEPTH, MAX_ELEMENTS, Source, Watched};
use super::meta::{Meta, read_up_to};

/// A DICOM object in memory: file meta group and data set.
pub type DicomObject = FileDicomObject<InMemDicomObject>;

/// Files larger than this are refused: 2 GiB, the size up to which the archive and any sane CT object stay.
pub const MAX_FILE_BYTES: u64 = 2 << 30;
/// A deflated data set may inflate to at most this; a few KiB of deflate can otherwise fill any memory.
pub const MAX_INFLATED_BYTES: u64 = 512 << 20;

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

/// Reads an object without its pixel data from the bytes of a whole file, as [`read_header`] does from the file.
///
/// # Errors
/// As [`read_header`].
pub fn read_header_bytes(bytes: &[u8]) -> Result<DicomObject, ReadError> {
    read_from(Cursor::new(bytes), Extent::Header).map_err(in_memory)
}

/// Reads a whole object from bytes in memory, as [`read_file`] does from a file.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(bytes: &[u8]) -> Result<DicomObject, ReadError> {
    read_from(Cursor::new(bytes), Extent::Whole).map_err(in_memory)
}

/// Whether data sets of this transfer syntax are deflated as a whole: their size says nothing of what they take in memory, up
/// to [`MAX_INFLATED_BYTES`].
pub fn is_deflated(transfer_syntax: &str) -> bool {
    let known = TransferSyntaxRegistry.get(transfer_syntax);
    known.is_some_and(|syntax| matches!(syntax.codec(), Codec::Dataset(_)))
}

fn in_memory(cause: ReadCause) -> ReadError {
    ReadError { path: PathBuf::from("memory"), cause }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
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
        let mut watched = Watched::new(&mut reader);
        let read = adapter.adapt_reader(Box::new(&mut watched)).take(MAX_INFLATED_BYTES + 1).read_to_end(&mut inflated);
        if let Err(error) = read {
            return Err(match watched.failed {
                Some(failed) => ReadCause::Io(failed),
                None => ReadCause::Malformed(format!("the deflated data set does not inflate: {error}")),
            });
        }
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
pub(super) enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

impl Encoding {
    /// From the first element header of a data set; `None` where the bytes are too few or the group is not a data
    /// set's first (0008, or any other below 0100).
    pub fn sniff(head: &[u8]) -> Option<Encoding> {
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

    pub fn syntax(self) -> Result<&'static TransferSyntax, ReadCause> {
        TransferSyntaxRegistry
            .get(self.uid())
            .ok_or_else(|| ReadCause::Malformed(format!("transfer syntax {} is not built in", self.uid())))
    }
}

fn read_data_set<R: Read>(
    reader: R,
    begin: u64,
    end: u64,
    syntax: &TransferSyntax,
    extent: Extent,
) -> Result<InMemDicomObject, ReadCause> {
    let mut decoder = BoundedDecoder::new(Source::new(reader, begin, end), syntax, extent)?;
    let read = InMemDicomObject::read_dataset(&mut decoder);
    match (read, decoder.cause()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::{PhantomSpec, series};

    /// A file on a disk that fails from a byte on.
    struct Failing(Cursor<Vec<u8>>, u64);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = self.1.saturating_sub(self.0.position()) as usize;
            if left == 0 {
                return Err(io::Error::from_raw_os_error(5));
            }
            let most = left.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn a_disk_that_fails_is_not_taken_for_a_file_that_is_wrong() {
        for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN] {
            let mut object = series(&PhantomSpec { slices: 1, lesion: None, seed: 1 }).next().unwrap();
            object.meta_mut().set_transfer_syntax(TransferSyntaxRegistry.get(syntax).unwrap());
            let mut bytes = Vec::new();
            object.write_all(&mut bytes).unwrap();
            // In the first elements, in the pixel data, at the last byte.
            for fails_at in [700, bytes.len() as u64 / 2, bytes.len() as u64 - 1] {
                let read = read_from(Failing(Cursor::new(bytes.clone()), fails_at), Extent::Whole);
                let io = matches!(&read, Err(ReadCause::Io(error)) if error.raw_os_error() == Some(5));
                assert!(io, "{syntax} at {fails_at}: {:?}", read.map(drop));
            }
            assert!(read_from(Failing(Cursor::new(bytes), u64::MAX), Extent::Whole).is_ok(), "{syntax}");
        }
    }
}
