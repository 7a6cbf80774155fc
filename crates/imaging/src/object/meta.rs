//! The file meta group (PS3.10 section 7.1), read as far as it is there.

use std::io::{Read, Seek};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTable, FileMetaTableBuilder, InMemDicomObject};

use super::DicomObject;
use super::encoding::Encoding;
use super::error::ReadCause;
use super::head::is_long;
use super::limits::MAX_META_VALUE;
use super::source::Source;

/// The file meta group as far as it is there.
#[derive(Debug, Default)]
pub(super) struct Meta {
    sop_class: Option<String>,
    sop_instance: Option<String>,
    pub transfer_syntax: Option<String>,
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
    /// it is missing or wrong in too many files. Leaves `source` at the data set.
    pub fn read<R: Read + Seek>(source: &mut Source<R>) -> Result<Meta, ReadCause> {
        let mut head = [0; 132];
        let known = source.look(0, &mut head)?;
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
        source.go_to(begin)?;
        let mut meta = Meta::default();
        loop {
            let at = source.position();
            let mut header = [0; 8];
            if source.read(&mut header)? < 8 || header[..2] != [2, 0] {
                source.go_to(at)?;
                return Ok(meta);
            }
            let tag = Tag(2, u16::from_le_bytes([header[2], header[3]]));
            let length = match VR::from_binary([header[4], header[5]]) {
                Some(vr) if is_long(vr) => {
                    let mut long = [0; 4];
                    source.read(&mut long)?;
                    u64::from(u32::from_le_bytes(long))
                }
                Some(_) => u64::from(u16::from_le_bytes([header[6], header[7]])),
                // written in implicit VR against PS3.10 section 7.1
                None => u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]])),
            };
            let (position, left) = (source.position(), source.left());
            if length > left || length > MAX_META_VALUE {
                return Err(ReadCause::Truncated { tag, position, length, left });
            }
            meta.keep(tag, source.take(length)?);
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
    pub fn complete(self, data_set: InMemDicomObject) -> DicomObject {
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
