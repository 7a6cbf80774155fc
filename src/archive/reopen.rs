//! A file of the archive, opened again: for one that no row of the ledger names.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use dicom_object::FileMetaTable;

use super::{Archive, Meta};

impl Archive {
    /// Opens a file of the archive: what its head says, and a reader that stands at its data set. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or does not begin as the archive's files do.
    pub fn reopen(&self, relative: &str) -> io::Result<(Meta, impl Read + use<>)> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut file = File::open(self.file(relative))?;
        file.seek(SeekFrom::Start(128))?;
        let table = FileMetaTable::from_reader(&mut file).map_err(|error| wrong(error.to_string()))?;
        // Preamble, prefix, the group length with its own header, and what that counts.
        let begin = 128 + 4 + 12 + u64::from(table.information_group_length);
        file.seek(SeekFrom::Start(begin))?;
        let text = |text: &str| text.trim_end_matches(['\0', ' ']).to_owned();
        let meta = Meta {
            sop_class_uid: text(&table.media_storage_sop_class_uid),
            sop_instance_uid: text(&table.media_storage_sop_instance_uid),
            transfer_syntax: text(&table.transfer_syntax),
            source_ae_title: table.source_application_entity_title.as_deref().map(text).unwrap_or_default(),
        };
        Ok((meta, file))
    }
}
