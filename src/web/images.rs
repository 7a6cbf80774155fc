//! Slices as PNG. A browser keeps them for itself, and asks each time whether it still may show them.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{Failed, Site, api};
use crate::ledger::{ImageFile, Studies};
use crate::rendering::{DisplayWindow, NoPicture, Picture, Renderer, Size};

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
    send(&renderer, file, frame, query.window, Size::Full, &headers).await
}

/// `GET /studies/{uid}/thumbnail`: the slice with the highest probability.
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
            Ok(ledger.image_file(&uid, &top.series_uid, &top.sop_uid, top.frame)?.map(|file| (file, top.frame)))
        })
        .await?;
    let (file, frame) = found.ok_or_else(|| Failed::NotFound("no slice of this study has a score".into()))?;
    send(&renderer, file, frame, DisplayWindow::Brain, Size::Thumbnail, &headers).await
}

async fn send(
    renderer: &Renderer,
    file: ImageFile,
    frame: u32,
    window: DisplayWindow,
    size: Size,
    headers: &HeaderMap,
) -> Result<Response, Failed> {
    let Some(path) = file.path else { return Ok(no_picture(&NoPicture::Gone)) };
    // Pictures are decoded in this process. An object that a decoder of its own could not decode is not tried here.
    match file.state.as_str() {
        "failed" => {
            return Ok(no_picture(&NoPicture::Undecodable("it could not be decoded to be scored, either".into())));
        }
        "queued" => return Ok(no_picture(&NoPicture::Busy)),
        _ => {}
    }
    let picture = Picture { path, digest: file.digest, frame, window, size };
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

fn no_picture(why: &NoPicture) -> Response {
    let status = match why {
        NoPicture::Undecodable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        NoPicture::Gone => StatusCode::GONE,
        NoPicture::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = api::refusal(status, &why.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
