//! The key image: the most suspicious slice as a Secondary Capture, with the verdict burned in in words.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids as classes};
use dicom_object::InMemDicomObject;

use super::codes::dcm;
use super::content::{plain, put_items, put_text, reference};
use super::picture::Picture;
use super::words::{score, slice_in_words, title};
use super::{Basis, Moment, ReportError, uids};
use crate::decoding::Slice;
use crate::objects::LocalFile;

/// Series Number of all key images.
const SERIES_NUMBER: &str = "9902";

/// The word that makes their UIDs differ from those of other documents.
const KIND: &str = "key image";

/// The words on every picture, whatever the verdict.
const NOTICE: &str =
    "AI result for prioritisation only, not for diagnostic use. A study that is not flagged is not cleared.";

pub(super) const SOP_CLASS: &str = classes::SECONDARY_CAPTURE_IMAGE_STORAGE;

/// Makes the key image of a verdict.
///
/// # Errors
/// No slice was scored, or the most suspicious one has lost its file or cannot be decoded.
pub(super) fn key_image(basis: &Basis<'_>) -> Result<InMemDicomObject, ReportError> {
    let verdict = basis.verdict;
    let top = basis.top();
    let Some(slice) = top.first() else {
        return Err(ReportError::Unavailable("there is no key image: no slice of the study was scored".into()));
    };
    let Some(path) = &slice.path else {
        return Err(ReportError::Unavailable(
            "there is no key image: the file of the most suspicious slice has left the archive".into(),
        ));
    };
    let file = basis.data_dir.join(path);
    let size = std::fs::metadata(&file).map_err(|error| {
        ReportError::Unavailable(format!("the file of the most suspicious slice cannot be read: {error}"))
    })?;
    let frame = u32::try_from(slice.frame - 1).unwrap_or(0);
    let place = Slice { object: path, transfer_syntax: &slice.transfer_syntax, frame };
    let frame = basis.frames.frame(LocalFile::own(file, size.len()), place)?;
    let moment = Moment::of(&verdict.decided_at, basis.zone);
    let mut above = vec![title(verdict, basis.finding, basis.was_flagged), score(verdict)];
    above.extend(verdict.missing.as_ref().map(|missing| format!("Missing: {missing}.")));
    let found = slice.pixel_box();
    let frame_in_words = if found.is_some() { ". The frame marks where the model sees it" } else { "" };
    let below = vec![
        format!("{}, brain window{frame_in_words}", slice_in_words(slice)),
        format!("Model {} ({}), {}", verdict.model, verdict.software, moment.readable),
        NOTICE.to_owned(),
    ];
    let ascii = |lines: Vec<String>| -> Vec<String> { lines.iter().map(|line| plain(line)).collect() };
    let picture = Picture::of_slice(&frame, found, &ascii(above), &ascii(below));

    let mut object = basis.context.clone();
    basis.put_common(&mut object, SOP_CLASS, &uids::instance(KIND, verdict));
    let text = put_text;
    text(&mut object, tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\OTHER");
    text(&mut object, tags::MODALITY, VR::CS, "OT");
    text(&mut object, tags::CONVERSION_TYPE, VR::CS, "WSD");
    text(&mut object, tags::SERIES_INSTANCE_UID, VR::UI, &uids::series(KIND, basis.first));
    text(&mut object, tags::SERIES_NUMBER, VR::IS, SERIES_NUMBER);
    text(&mut object, tags::SERIES_DESCRIPTION, VR::LO, "triaged key image, for prioritisation only");
    text(&mut object, tags::INSTANCE_NUMBER, VR::IS, &basis.ordinal.to_string());
    text(&mut object, tags::PATIENT_ORIENTATION, VR::CS, "");
    text(&mut object, tags::LATERALITY, VR::CS, "");
    text(&mut object, tags::CONTENT_DATE, VR::DA, &moment.date);
    text(&mut object, tags::CONTENT_TIME, VR::TM, &moment.time);
    text(&mut object, tags::DATE_OF_SECONDARY_CAPTURE, VR::DA, &moment.date);
    text(&mut object, tags::TIME_OF_SECONDARY_CAPTURE, VR::TM, &moment.time);
    text(&mut object, tags::BURNED_IN_ANNOTATION, VR::CS, "YES");
    text(&mut object, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
    let derivation = format!(
        "Most suspicious slice in the brain window, with the verdict of {} in words{}",
        verdict.model,
        if found.is_some() { " and a frame around the finding" } else { "" }
    );
    text(&mut object, tags::DERIVATION_DESCRIPTION, VR::ST, &plain(&derivation));
    let mut source = reference(&slice.sop_class_uid, &slice.sop_uid, slice.multi_frame.then_some(slice.frame));
    let purpose = dcm("121322", "Source image for image processing operation");
    put_items(&mut source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose.item()]);
    put_items(&mut object, tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    let mut short = |tag, value: u16| object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    short(tags::SAMPLES_PER_PIXEL, 1);
    short(tags::ROWS, picture.rows as u16);
    short(tags::COLUMNS, picture.columns as u16);
    short(tags::BITS_ALLOCATED, 8);
    short(tags::BITS_STORED, 8);
    short(tags::HIGH_BIT, 7);
    short(tags::PIXEL_REPRESENTATION, 0);
    text(&mut object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    let mut pixels = picture.pixels;
    if pixels.len() % 2 == 1 {
        pixels.push(0);
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into())));
    Ok(object)
}
