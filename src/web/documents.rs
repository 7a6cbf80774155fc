//! Documents about a study's verdict, to download: the structured report and the key image.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::api::study_uid;
use super::{Failed, Site};
use crate::report::{Kind, ReportError, Which};

/// Documents that are made at one time: each holds one of the threads that everything that blocks shares.
static TURNS: Semaphore = Semaphore::const_new(4);

/// RFC 3240.
const DICOM: &str = "application/dicom";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionQuery {
    revision: Option<i64>,
}

/// `GET /api/v1/studies/{uid}/report.dcm?revision=n`: the structured report of the latest verdict, or of a revision's.
pub(super) async fn report(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
    query: Result<Query<RevisionQuery>, QueryRejection>,
) -> Result<Response, Failed> {
    document(site, uid, query, Kind::Report).await
}

/// `GET /api/v1/studies/{uid}/key-image.dcm?revision=n`: the most suspicious slice with the verdict in words.
pub(super) async fn key_image(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
    query: Result<Query<RevisionQuery>, QueryRejection>,
) -> Result<Response, Failed> {
    document(site, uid, query, Kind::KeyImage).await
}

async fn document(
    site: Site,
    uid: Result<Path<String>, PathRejection>,
    query: Result<Query<RevisionQuery>, QueryRejection>,
    kind: Kind,
) -> Result<Response, Failed> {
    let uid = study_uid(uid)?;
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let which = query.revision.map_or(Which::Latest, Which::Revision);
    let reports = site.reports.clone();
    let made = site.ledger(move |ledger| match reports.make(ledger, &uid, &which, kind) {
        Ok(document) => Ok(Ok(document)),
        Err(ReportError::Unavailable(why)) => Ok(Err(Failed::NotFound(why))),
        Err(ReportError::NotNow(why)) => Ok(Err(Failed::Refused(StatusCode::SERVICE_UNAVAILABLE, why))),
        Err(ReportError::Ledger(error)) => Err(error),
    });
    let turn = TURNS.acquire().await.map_err(|_| Failed::Internal)?;
    let document = made.await??;
    drop(turn);
    // The name holds nothing that came from outside.
    let name = format!("attachment; filename=\"{}.dcm\"", kind.as_str());
    Ok(([(CONTENT_TYPE, DICOM.to_owned()), (CONTENT_DISPOSITION, name)], document.file).into_response())
}
