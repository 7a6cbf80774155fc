//! The pages for people. Plain HTML without scripts; everything that came from outside is escaped by the templates.

use askama::Template;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::api::{self, WholeStudy};
use super::connection::PeerAddress;
use super::{Failed, Site};
use crate::ledger::{
    AcknowledgementRow, NotificationRow, SeriesRow, SetAsideRow, SliceRow, VerdictRow, WorklistFilter, WorklistRow,
};
use crate::triage::ShadowStudy;

/// Studies on the worklist page; the rest is a matter for the API.
const MOST_STUDIES: u32 = 500;

/// Rows in a study's slice table.
const MOST_SLICES: usize = 2000;

#[derive(Template)]
#[template(path = "worklist.html")]
struct Worklist {
    studies: Vec<WorklistRow>,
    unread: usize,
    incomplete: usize,
    set_aside: u64,
    dead: usize,
    is_cut: bool,
}

#[derive(Template)]
#[template(path = "study.html")]
struct Study {
    row: WorklistRow,
    series: Vec<Series>,
    slices: Vec<SliceRow>,
    is_cut: bool,
    verdicts: Vec<VerdictRow>,
    series_results: Vec<SeriesRow>,
    acknowledgements: Vec<AcknowledgementRow>,
    set_aside: Vec<SetAsideRow>,
    notifications: Vec<NotificationRow>,
    shadow: Option<ShadowStudy>,
}

/// A series' slices as bars, in the order of the series.
struct Series {
    uid: String,
    bars: Vec<Bar>,
    width: usize,
}

struct Bar {
    x: usize,
    /// In percent of the chart's height.
    height: f64,
    class: &'static str,
    label: String,
}

#[derive(Template)]
#[template(path = "failure.html")]
struct Failure {
    status: u16,
    why: String,
}

/// Why a page was not made; shown as a page.
pub(super) struct NoPage(Failed);

impl From<Failed> for NoPage {
    fn from(failed: Failed) -> NoPage {
        NoPage(failed)
    }
}

impl IntoResponse for NoPage {
    fn into_response(self) -> Response {
        failure(self.0)
    }
}

pub(super) fn failure(failed: Failed) -> Response {
    let (status, why) = failed.in_words();
    (status, page(&Failure { status: status.as_u16(), why })).into_response()
}

pub(super) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made; this is a bug");
            api::failure(Failed::Internal)
        }
    }
}

/// `GET /`
pub(super) async fn worklist(State(site): State<Site>) -> Result<Response, NoPage> {
    let (studies, dead, [set_aside, ..]) = site
        .ledger(|ledger| {
            let filter = WorklistFilter { limit: Some(MOST_STUDIES), ..WorklistFilter::default() };
            let dead = ledger.newest_notifications(Some("dead"), 100)?;
            Ok((ledger.worklist(&filter)?, dead.len(), ledger.count_set_aside()?))
        })
        .await?;
    let unread = studies.iter().filter(|row| row.flagged == Some(true) && row.is_unread()).count();
    let incomplete = studies.iter().filter(|row| row.is_incomplete() && row.is_unread()).count();
    let is_cut = studies.len() == MOST_STUDIES as usize;
    Ok(page(&Worklist { studies, unread, incomplete, set_aside, dead, is_cut }))
}

/// `GET /studies/{uid}`
pub(super) async fn study(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
) -> Result<Response, NoPage> {
    let whole = api::whole_study(&site, uid).await?;
    let WholeStudy { row, mut slices, verdicts, notifications, mut shadow, .. } = whole;
    let (series_results, acknowledgements, set_aside) = (whole.series, whole.acknowledgements, whole.set_aside);
    let series = charts(&slices);
    let is_cut = slices.len() > MOST_SLICES;
    slices.truncate(MOST_SLICES);
    if let Some(shadow) = &mut shadow {
        shadow.slices.truncate(MOST_SLICES);
    }
    Ok(page(&Study {
        row,
        series,
        slices,
        is_cut,
        verdicts,
        series_results,
        acknowledgements,
        set_aside,
        notifications,
        shadow,
    }))
}

/// `POST /studies/{uid}/acknowledge`, from the study's page.
pub(super) async fn acknowledge(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    uid: Result<Path<String>, PathRejection>,
) -> Result<Redirect, NoPage> {
    let uid = api::study_uid(uid)?;
    site.ledger(move |ledger| ledger.acknowledge(&uid, &peer.actor(), None)).await?;
    Ok(Redirect::to("/"))
}

/// `POST /studies/{uid}/unacknowledge`, from the study's page.
pub(super) async fn unacknowledge(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    uid: Result<Path<String>, PathRejection>,
) -> Result<Redirect, NoPage> {
    let uid = api::study_uid(uid)?;
    site.ledger(move |ledger| ledger.undo_acknowledgement(&uid, &peer.actor())).await?;
    Ok(Redirect::to("/"))
}

/// `POST /notifications/{id}/requeue`, from the study's page.
pub(super) async fn requeue(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Redirect, NoPage> {
    let id = api::notification_id(id)?;
    site.ledger(move |ledger| ledger.requeue_dead(Some(id), &peer.actor())).await?;
    Ok(Redirect::to("/"))
}

/// `GET /style.css`
pub(super) async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css")).into_response()
}

/// Bars for each series. `slices` come ordered by series.
fn charts(slices: &[SliceRow]) -> Vec<Series> {
    slices
        .chunk_by(|a, b| a.series_uid == b.series_uid)
        .map(|slices| Series {
            uid: slices[0].series_uid.clone(),
            bars: slices.iter().enumerate().map(|(n, slice)| bar(n, slice)).collect(),
            // A series of one slice is a bar like others, not a wall.
            width: slices.len().max(20) * 10,
        })
        .collect()
}

fn bar(n: usize, slice: &SliceRow) -> Bar {
    let number = slice.instance_number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    let (height, class, what) = match slice.probability {
        Some(p) if slice.positive == Some(true) => (p * 100.0, "positive", format!("{p:.3}, positive")),
        Some(p) => (p * 100.0, "negative", format!("{p:.3}")),
        None => (100.0, "unscored", slice.state.clone()),
    };
    // A bar of nothing could not be pointed at.
    Bar { x: n * 10, height: height.max(1.0), class, label: format!("slice {number}, frame {}: {what}", slice.frame) }
}

/// Filters of the templates.
mod filters {
    use std::fmt::Display;

    use askama::{Result, Values};

    /// `2026-11-23T15:42:07.123Z` as `2026-11-23 15:42:07`; the page says that it is UTC.
    #[askama::filter_fn]
    pub(super) fn moment(time: impl Display, _: &dyn Values) -> Result<String> {
        let time = time.to_string();
        Ok(time.get(..19).unwrap_or(&time).replace('T', " "))
    }

    /// A score as people compare it.
    #[askama::filter_fn]
    pub(super) fn score(value: impl Display, _: &dyn Values) -> Result<String> {
        Ok(format!("{value:.3}"))
    }
}
