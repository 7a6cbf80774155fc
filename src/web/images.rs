//! Slices as PNG. A browser keeps them for itself, and asks each time whether it still may show them.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{Failed, Site, api};
use crate::decoding::NoFrame;
use crate::ledger::{ImageFile, Studies};
use crate::rendering::{DisplayWindow, Picture, Renderer, Size, heat_map};
use triaged_imaging::PixelBox;

#[derive(Debug, Default, Deserialize)]
pub(super) struct SliceQuery {
    #[serde(default)]
    window: DisplayWindow,
}

/// `GET /studies/{uid}/series/{series}/slices/{sop}/{frame}?window=brain|subdural|stroke|bone`
pub(super) async fn slice(
    State(site): State<Site>,
    State(renderer): State<Renderer>,
    path: Result<Path<(String, String, String, u32)>, PathRejection>,
    query: Result<Query<SliceQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let none = || Failed::NotFound("there is no such slice".into());
    let Path((study, series, sop, frame)) = path.map_err(|_| none())?;
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let file = site.ledger(move |ledger| ledger.image_file(&study, &series, &sop, frame)).await?.ok_or_else(none)?;
    if frame == 0 {
        return Err(none());
    }
    let drawn = Drawn { frame, window: query.window, size: Size::Full, marked: None };
    send(&renderer, file, drawn, &headers).await
}

/// `GET /studies/{uid}/series/{series}/slices/{sop}/{frame}/heat-map`: the model's own map as a picture of the slice's shape, the clearer the
/// less likely. Pages lay it over the slice.
pub(super) async fn heat(
    State(site): State<Site>,
    path: Result<Path<(String, String, String, u32)>, PathRejection>,
) -> Result<Response, Failed> {
    let none = || Failed::NotFound("there is no heat map of this slice".into());
    let Path((study, series, sop, frame)) = path.map_err(|_| none())?;
    let (map, rows, columns) =
        site.ledger(move |ledger| ledger.heat_map(&study, &series, &sop, frame)).await?.ok_or_else(none)?;
    let png = heat_map(&map, rows, columns).map_err(|error| {
        tracing::error!(%error, "a heat map could not be drawn");
        Failed::Internal
    })?;
    let kept = [(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "private, no-cache")];
    Ok((kept, Body::from(png)).into_response())
}

/// `GET /studies/{uid}/thumbnail`: the slice with the highest probability, with a frame around the finding where its model says where.
pub(super) async fn thumbnail(
    State(site): State<Site>,
    State(renderer): State<Renderer>,
    uid: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let uid = api::study_uid(uid)?;
    let found = site
        .ledger(move |ledger| {
            let Some(top) = ledger.top_slices(&uid, 1)?.pop() else { return Ok(None) };
            let file = ledger.image_file(&uid, &top.series_uid, &top.sop_uid, top.frame)?;
            Ok(file.map(|file| (file, top)))
        })
        .await?;
    let (file, top) = found.ok_or_else(|| Failed::NotFound("no slice of this study has a score".into()))?;
    let drawn = Drawn { frame: top.frame, window: DisplayWindow::Brain, size: Size::Thumbnail, marked: top.pixel_box };
    send(&renderer, file, drawn, &headers).await
}

/// How a slice is to be shown.
struct Drawn {
    frame: u32,
    window: DisplayWindow,
    size: Size,
    marked: Option<PixelBox>,
}

async fn send(renderer: &Renderer, file: ImageFile, drawn: Drawn, headers: &HeaderMap) -> Result<Response, Failed> {
    let Some(path) = file.path else { return Ok(no_picture(&NoFrame::Gone)) };
    // It would end its process again, or take as long, and whoever wants to see another slice would wait for it.
    if file.state == "failed" {
        return Ok(no_picture(&NoFrame::Undecodable("it could not be decoded to be scored, either".into())));
    }
    let Drawn { frame, window, size, marked } = drawn;
    let picture =
        Picture { path, digest: file.digest, transfer_syntax: file.transfer_syntax, frame, window, size, marked };
    let tag = format!("\"{}\"", picture.tag());
    let kept = [
        (ETAG, HeaderValue::from_str(&tag).map_err(|_| Failed::Internal)?),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    ];
    let asked = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    if asked.flat_map(|tags| tags.split(',')).any(|asked| asked.trim().trim_start_matches("W/") == tag) {
        return Ok((StatusCode::NOT_MODIFIED, kept).into_response());
    }
    match renderer.picture(picture).await {
        Ok(png) => Ok((kept, [(CONTENT_TYPE, "image/png")], Body::from(png.to_vec())).into_response()),
        Err(why) => Ok(no_picture(&why)),
    }
}

fn no_picture(why: &NoFrame) -> Response {
    let status = match why {
        NoFrame::Undecodable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        NoFrame::Gone => StatusCode::GONE,
        NoFrame::Busy | NoFrame::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = api::refusal(status, &why.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
