//! Reading Part 10 files (PS3.10) as they really are.
//!
//! `dicom_object::open_file` wants a conformant file meta group and a data set without a fault; the RSNA 2019 files have no such meta
//! group, and scanners and archives write data sets with all kinds of faults. Here both are read by a reader of our own that believes no
//! length that the bytes do not bear out, and that limits nesting, elements and memory.

mod encoding;
mod error;
mod head;
mod limits;
mod meta;
mod parser;
mod pixel_extent;
mod recovery;
mod sequences;
mod source;
mod value;

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dicom_dictionary_std::uids;
use dicom_object::{FileDicomObject, InMemDicomObject};
use flate2::read::{DeflateDecoder, ZlibDecoder};

use self::encoding::Encoding;
pub use self::error::{ReadCause, ReadError};
pub use self::limits::{MAX_FILE_BYTES, MAX_INFLATED_BYTES};
use self::meta::Meta;
use self::parser::{Extent, Parser};
pub use self::pixel_extent::{ObjectHeader, PixelExtent};
use self::source::Source;

/// A DICOM object in memory: file meta group and data set.
pub type DicomObject = FileDicomObject<InMemDicomObject>;

/// Reads a whole object.
///
/// Reads what DCMTK, GDCM and pydicom read: a file meta group without group length or version or other elements, none at all,
/// no preamble, a bare data set, a data set in another VR encoding than the transfer syntax says, UIDs that are not
/// UIDs, padding behind the pixel data, elements behind them, and wrong lengths, delimiters and VRs in elements that are not needed for the
/// pixels. The meta group of the result always has a transfer syntax, the one that the
/// data set was read with; SOP class and instance UID are taken from the data set if the meta group lacks them, and
/// are empty if it lacks them too.
///
/// Group lengths are left out. Text that is not ASCII stays as its bytes; [`attributes`](crate::attributes) decodes it.
///
/// # Errors
/// [`ReadError`] for what is no DICOM object, is cut off (pixel data included), or is larger than [`MAX_FILE_BYTES`].
pub fn read_file(path: impl AsRef<Path>) -> Result<DicomObject, ReadError> {
    Ok(read_path(path.as_ref(), Extent::Whole)?.object)
}

/// Reads an object to decode frames of it: as [`read_file`], but of pixel data that are cut off it keeps what is there.
/// A frame that is not whole is then an error of [`decode_frame`](crate::decode_frame).
///
/// # Errors
/// As [`read_file`], except for pixel data that are cut off.
pub fn read_frames(path: impl AsRef<Path>) -> Result<DicomObject, ReadError> {
    Ok(read_path(path.as_ref(), Extent::Frames)?.object)
}

/// As [`read_frames`], from a file that is open: for a process that may open none.
///
/// # Errors
/// As [`read_frames`]; the path of the error is empty.
pub fn read_frames_of(file: File) -> Result<DicomObject, ReadError> {
    let read = read_from(BufReader::with_capacity(64 << 10, file), Extent::Frames);
    Ok(read.map_err(|cause| ReadError { path: PathBuf::new(), cause })?.object)
}

/// Reads an object without its pixel data: all elements but those of group 7FE0. Cheap on large files.
///
/// # Errors
/// As [`read_file`], except that missing or truncated pixel data is not seen.
pub fn read_header(path: impl AsRef<Path>) -> Result<ObjectHeader, ReadError> {
    read_path(path.as_ref(), Extent::Header)
}

/// Reads an object without its pixel data from the bytes of a whole file, as [`read_header`] does from the file.
///
/// # Errors
/// As [`read_header`].
pub fn read_header_bytes(bytes: &[u8]) -> Result<ObjectHeader, ReadError> {
    read_from(Cursor::new(bytes), Extent::Header).map_err(in_memory)
}

/// Reads the elements up to group 0020, which say whose an object is, from the first bytes of a file: what comes behind may be cut off.
///
/// # Errors
/// As [`read_header`]; so that the bytes end before group 0021.
pub fn read_identity(bytes: &[u8]) -> Result<ObjectHeader, ReadError> {
    read_from(Cursor::new(bytes), Extent::Identity).map_err(in_memory)
}

/// Reads a whole object from bytes in memory, as [`read_file`] does from a file.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(bytes: &[u8]) -> Result<DicomObject, ReadError> {
    Ok(read_from(Cursor::new(bytes), Extent::Whole).map_err(in_memory)?.object)
}

/// Reads an object from bytes in memory to decode frames of it, as [`read_frames`] does from a file.
///
/// # Errors
/// As [`read_frames`].
pub fn read_frames_bytes(bytes: &[u8]) -> Result<DicomObject, ReadError> {
    Ok(read_from(Cursor::new(bytes), Extent::Frames).map_err(in_memory)?.object)
}

/// Whether data sets of this transfer syntax are deflated as a whole: their size says nothing of what they take in memory, up
/// to [`MAX_INFLATED_BYTES`].
pub fn is_deflated(transfer_syntax: &str) -> bool {
    matches!(
        transfer_syntax,
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN | uids::JPIP_REFERENCED_DEFLATE | uids::JPIPHTJ2K_REFERENCED_DEFLATE
    )
}

fn in_memory(cause: ReadCause) -> ReadError {
    ReadError { path: PathBuf::from("memory"), cause }
}

fn read_path(path: &Path, extent: Extent) -> Result<ObjectHeader, ReadError> {
    let read = || {
        let file = File::open(path)?;
        let capacity = if extent == Extent::Header { 8 << 10 } else { 64 << 10 };
        read_from(BufReader::with_capacity(capacity, file), extent)
    };
    read().map_err(|cause| ReadError { path: path.to_path_buf(), cause })
}

fn read_from<R: Read + Seek>(reader: R, extent: Extent) -> Result<ObjectHeader, ReadCause> {
    let mut source = Source::new(reader)?;
    if source.end() > MAX_FILE_BYTES {
        return Err(ReadCause::TooLarge { bytes: source.end(), limit: MAX_FILE_BYTES });
    }
    let mut meta = Meta::read(&mut source)?;
    let mut begin = [0; 132];
    if source.look(source.position(), &mut begin)? == begin.len() && begin[128..] == *b"DICM" {
        let why = "the data set begins with the preamble of a file: a whole file was sent where its data set belongs";
        return Err(ReadCause::Malformed(why.into()));
    }
    let mut head = [0; 8];
    let known = source.look(source.position(), &mut head)?;
    let seen = Encoding::sniff(&head[..known]);
    let declared = meta.transfer_syntax.as_deref();
    // Some archives inflate the data set and leave the transfer syntax.
    let inflated_already = seen == Some(Encoding::ExplicitLittle) && head[..2] == [8, 0];
    if declared.is_some_and(is_deflated) && !inflated_already {
        let _turn = (extent == Extent::Header).then(|| INFLATING.lock().unwrap_or_else(PoisonError::into_inner));
        let inflated = inflate(source, &head, extent)?;
        let source = Source::new(Cursor::new(inflated))?;
        let (data_set, pixels) = read_data_set(source, Encoding::ExplicitLittle, extent)?;
        return Ok(ObjectHeader { object: meta.complete(data_set), pixels });
    }
    let encoding = match (declared, seen) {
        (None, None) => return Err(ReadCause::NotDicom),
        (None, Some(seen)) => {
            meta.transfer_syntax = Some(seen.uid().to_string());
            seen
        }
        (Some(declared), None) => Encoding::of(declared),
        // Only the encoding of uncompressed objects is another transfer syntax.
        (Some(declared), Some(seen)) => {
            if Encoding::of(declared) != seen && (is_native(declared) || is_deflated(declared)) {
                meta.transfer_syntax = Some(seen.uid().to_string());
            }
            seen
        }
    };
    let (data_set, pixels) = read_data_set(source, encoding, extent)?;
    Ok(ObjectHeader { object: meta.complete(data_set), pixels })
}

/// Held by whoever reads the header of a deflated object, for which the whole object is inflated: a few KiB may become hundreds of MiB, and a
/// program that reads several headers at one time must not need them several times.
static INFLATING: Mutex<()> = Mutex::new(());

fn is_native(transfer_syntax: &str) -> bool {
    [Encoding::ImplicitLittle, Encoding::ExplicitLittle, Encoding::ExplicitBig]
        .iter()
        .any(|encoding| encoding.uid() == transfer_syntax)
}

/// A deflated data set (PS3.5 section A.5), inflated.
fn inflate<R: Read + Seek>(mut source: Source<R>, head: &[u8; 8], extent: Extent) -> Result<Vec<u8>, ReadCause> {
    let left = source.left();
    let deflated = source.take(left)?;
    let mut inflated = Vec::new();
    let limit = MAX_INFLATED_BYTES + 1;
    let mut read = DeflateDecoder::new(&*deflated).take(limit).read_to_end(&mut inflated);
    // The header of zlib, which PS3.5 does not want and some toolkits write.
    if read.is_err() && head[0] & 0x0F == 8 && u16::from_be_bytes([head[0], head[1]]).is_multiple_of(31) {
        inflated.clear();
        read = ZlibDecoder::new(&*deflated).take(limit).read_to_end(&mut inflated);
    }
    // Of one that is cut off, what is there.
    if let Err(error) = read
        && (extent != Extent::Identity || inflated.is_empty())
    {
        return Err(ReadCause::Malformed(format!("the deflated data set does not inflate: {error}")));
    }
    if inflated.len() as u64 > MAX_INFLATED_BYTES {
        return Err(ReadCause::TooLarge { bytes: inflated.len() as u64, limit: MAX_INFLATED_BYTES });
    }
    Ok(inflated)
}

fn read_data_set<R: Read + Seek>(
    source: Source<R>,
    encoding: Encoding,
    extent: Extent,
) -> Result<(InMemDicomObject, Option<PixelExtent>), ReadCause> {
    let (data_set, pixels) = Parser::new(source, encoding, extent).read()?;
    if data_set.iter().next().is_none() {
        return Err(ReadCause::Malformed("the data set is empty".into()));
    }
    Ok((data_set, pixels))
}

#[cfg(test)]
mod tests {
    use std::io::{self, SeekFrom};

    use dicom_encoding::TransferSyntaxIndex;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

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
