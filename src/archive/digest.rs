//! The digest of a file that the archive keeps, read again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use super::Archive;

/// Preamble and prefix, then the group length (0002,0000): tag, VR, its own length, and 4 bytes of value (PS3.10 7.1).
const HEAD: usize = 128 + 4 + 8 + 4;
const GROUP_LENGTH: &[u8] = b"DICM\x02\0\0\0UL\x04\0";

impl Archive {
    /// SHA-256 of the data set in a file of the archive, hexadecimal: what [`Received`](super::Received) had when it came. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or does not begin as the archive's files do.
    pub fn digest(&self, relative: &str) -> io::Result<String> {
        let mut file = File::open(self.file(relative))?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let (begin, length) = head[128..].split_at(GROUP_LENGTH.len());
        if begin != GROUP_LENGTH {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not begin as a DICOM file"));
        }
        let meta = u32::from_le_bytes(length.try_into().expect("four bytes are left of the head"));
        file.seek(SeekFrom::Current(i64::from(meta)))?;
        sha256(file)
    }
}

/// SHA-256 of all bytes, hexadecimal.
pub fn sha256(mut bytes: impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match bytes.read(&mut piece) {
            Ok(0) => return Ok(hex::encode(digest.finalize())),
            Ok(count) => digest.update(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Meta;
    use super::*;

    #[test]
    fn the_digest_is_of_the_data_set_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _) = Archive::open(folder.path()).unwrap();
        let data_set = vec![7; 600_000];
        let meta = Meta {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            sop_instance_uid: "1.2".into(),
            transfer_syntax: "1.2.840.10008.1.2".into(),
            source_ae_title: "CT".into(),
        };
        let digest = hex::encode(Sha256::digest(&data_set));
        let mut incoming = archive.begin(&meta.head().unwrap()).unwrap();
        archive.append(&mut incoming, &data_set).unwrap();
        let path = archive.keep(incoming.finish(digest.clone()).unwrap(), "1", "1.2").unwrap();
        assert_eq!(archive.digest(&path).unwrap(), digest);
        let mut bytes = std::fs::read(archive.file(&path)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(archive.file(&path), &bytes).unwrap();
        assert_ne!(archive.digest(&path).unwrap(), digest, "a flipped bit");
        std::fs::write(archive.file(&path), b"short").unwrap();
        assert!(archive.digest(&path).is_err());
    }
}
