//! `/api/v1`: the ledger's views as JSON. Every error is `{"error": "…"}`.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::said::JsonSaid;
use super::{Failed, Site};
use crate::ledger::{
    Acknowledged, AcknowledgementRow, Actor, AuditFilter, AuditRow, FeedbackRow, ForwardRow, Ledger, NotificationRow,
    Order, Outbox, SentDocument, SeriesRow, SetAsideRow, SliceRow, VerdictRow, WorklistFilter, WorklistRow,
};
use crate::triage::ShadowStudy;
use triaged_model::VerdictRule;

/// Rows in an answer, where the request does not say and at most.
const USUAL_LIMIT: u32 = 100;
const MOST_LIMIT: u32 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StudiesQuery {
    #[serde(default)]
    flagged: bool,
    state: Option<StudyState>,
    /// Exactly this one.
    accession: Option<String>,
    acknowledged: Option<bool>,
    /// Whose last object came then or later: as `--since` of the commands takes it.
    since: Option<String>,
    #[serde(default)]
    order: StudyOrder,
    limit: Option<u32>,
    #[serde(default)]
    offset: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StudyOrder {
    #[default]
    Reading,
    Newest,
    Oldest,
    Score,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StudyState {
    Receiving,
    Decided,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotificationsQuery {
    state: Option<NotificationState>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum NotificationState {
    Pending,
    Delivered,
    Dead,
}

/// A row of the worklist; `verdict` is what people read: FLAGGED, not flagged, incomplete, not triaged or receiving.
#[derive(Serialize)]
#[serde(transparent)]
struct Study(WorklistRow);

impl From<WorklistRow> for Study {
    fn from(row: WorklistRow) -> Study {
        let verdict = Some(row.verdict_in_words().to_owned());
        Study(WorklistRow { verdict, ..row })
    }
}

type Answer = Result<Response, Failed>;

/// `GET /api/v1/studies?flagged=true&state=receiving|decided&acknowledged=false&accession=…&since=…&order=…&
/// limit=n&offset=n`
pub(super) async fn studies(State(site): State<Site>, query: Result<Query<StudiesQuery>, QueryRejection>) -> Answer {
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let filter = WorklistFilter {
        flagged_only: query.flagged,
        state: query.state.map(|state| match state {
            StudyState::Receiving => "receiving",
            StudyState::Decided => "decided",
        }),
        accession_number: query.accession,
        acknowledged: query.acknowledged,
        since: since(query.since)?,
        order: match query.order {
            StudyOrder::Reading => Order::Reading,
            StudyOrder::Newest => Order::Newest,
            StudyOrder::Oldest => Order::Oldest,
            StudyOrder::Score => Order::Score,
        },
        limit: Some(limit(query.limit)?),
        offset: query.offset,
        ..WorklistFilter::default()
    };
    let rows = site.ledger(move |ledger| ledger.worklist(&filter)).await?;
    let studies: Vec<Study> = rows.into_iter().map(Study::from).collect();
    Ok(Json(json!({ "studies": studies })).into_response())
}

/// `GET /api/v1/studies/{uid}`: the worklist row, slices, verdicts and notifications, and what a shadow model
/// scored.
pub(super) async fn study(State(site): State<Site>, uid: Result<Path<String>, PathRejection>) -> Answer {
    let whole = whole_study(&site, uid).await?;
    Ok(Json(json!({
        "study": Study::from(whole.row),
        "slices": whole.slices,
        "series": whole.series,
        "verdicts": whole.verdicts,
        "acknowledgements": whole.acknowledgements,
        "feedback": whole.feedback,
        "set_aside": whole.set_aside,
        "notifications": whole.notifications,
        "shadow": whole.shadow,
        "documents": whole.documents,
        "forwards": whole.forwards,
    }))
    .into_response())
}

/// `POST /api/v1/studies/{uid}/acknowledge`: `first` is false where somebody was faster; `seen` is true where the study is not
/// flagged, so that there is nothing to acknowledge. 409 where `verdict_id`, `revision` or `kind` say that something else was seen.
pub(super) async fn acknowledge(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
    JsonSaid(said): JsonSaid,
) -> Answer {
    let uid = study_uid(uid)?;
    let (acknowledged, row) = site
        .ledger(move |ledger| {
            let acknowledged = ledger.acknowledge_as_shown(&uid, &said.who, said.note.as_deref(), &said.shown)?;
            Ok((acknowledged, ledger.study(&uid)?))
        })
        .await?;
    let acknowledged_at = row.and_then(|row| row.acknowledged_at);
    let (first, seen) = (acknowledged == Acknowledged::First, acknowledged == Acknowledged::Seen);
    Ok(Json(json!({ "first": first, "seen": seen, "acknowledged_at": acknowledged_at })).into_response())
}

/// `POST /api/v1/studies/{uid}/unacknowledge`: takes the present acknowledgement back; `undone` is false where there is none.
pub(super) async fn unacknowledge(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
    JsonSaid(said): JsonSaid,
) -> Answer {
    let uid = study_uid(uid)?;
    let undo = move |ledger: &Ledger| ledger.undo_acknowledgement_as_shown(&uid, &said.who, &said.shown);
    let undone = site.ledger(undo).await?;
    Ok(Json(json!({ "undone": undone })).into_response())
}

/// `POST /api/v1/studies/{uid}/feedback`: `{"opinion": "agree"}` or `{"opinion": "disagree"}` with the present verdict.
pub(super) async fn give_feedback(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
    JsonSaid(said): JsonSaid,
) -> Answer {
    let (uid, opinion) = (study_uid(uid)?, said.opinion()?);
    let give = move |ledger: &Ledger| ledger.give_feedback(&uid, &said.who, opinion, said.note.as_deref(), &said.shown);
    site.ledger(give).await?;
    Ok(Json(json!({ "opinion": opinion.name() })).into_response())
}

/// `POST /api/v1/studies/{uid}/rescore`: queues its slices to be scored again, as a new revision; `slices` is how many.
pub(super) async fn rescore(
    State(site): State<Site>,
    uid: Result<Path<String>, PathRejection>,
    JsonSaid(said): JsonSaid,
) -> Answer {
    let slices = rescore_study(&site, study_uid(uid)?, said.who).await?;
    Ok(Json(json!({ "slices": slices })).into_response())
}

pub(super) async fn rescore_study(site: &Site, uid: String, actor: Actor) -> Result<u64, Failed> {
    let queued = site
        .ledger(move |ledger| match ledger.study(&uid)? {
            Some(_) => ledger.requeue_study(&uid, &actor).map(Some),
            None => Ok(None),
        })
        .await?;
    queued.ok_or_else(|| Failed::NotFound("there is no study with this UID".into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedbackQuery {
    since: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/feedback?since=…&limit=n`: what readers said of verdicts, oldest first; the newest where there are more than `limit`.
pub(super) async fn feedback(State(site): State<Site>, query: Result<Query<FeedbackQuery>, QueryRejection>) -> Answer {
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let (since, limit) = (since(query.since)?, limit(query.limit)?);
    let rows = site.ledger(move |ledger| ledger.feedback(None, since.as_deref(), limit)).await?;
    Ok(Json(json!({ "feedback": rows })).into_response())
}

/// `GET /api/v1/notifications?state=pending|delivered|dead&limit=n`, newest first.
pub(super) async fn notifications(
    State(site): State<Site>,
    query: Result<Query<NotificationsQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let state = query.state.map(|state| match state {
        NotificationState::Pending => "pending",
        NotificationState::Delivered => "delivered",
        NotificationState::Dead => "dead",
    });
    let limit = limit(query.limit)?;
    let rows = site.ledger(move |ledger| ledger.newest_notifications(state, limit)).await?;
    Ok(Json(json!({ "notifications": rows })).into_response())
}

/// `POST /api/v1/notifications/{id}/requeue`: sends a dead one again.
pub(super) async fn requeue(
    State(site): State<Site>,
    id: Result<Path<i64>, PathRejection>,
    JsonSaid(said): JsonSaid,
) -> Answer {
    let id = notification_id(id)?;
    let requeued = site.ledger(move |ledger| ledger.requeue_dead(Some(id), &said.who)).await?;
    Ok(Json(json!({ "requeued": requeued })).into_response())
}

/// All that is known of a study.
pub(super) struct WholeStudy {
    pub(super) row: WorklistRow,
    pub(super) slices: Vec<SliceRow>,
    pub(super) series: Vec<SeriesRow>,
    pub(super) verdicts: Vec<VerdictRow>,
    pub(super) acknowledgements: Vec<AcknowledgementRow>,
    pub(super) feedback: Vec<FeedbackRow>,
    /// Deeds of persons that no other list has.
    pub(super) audit: Vec<AuditRow>,
    /// The threshold of the newest score.
    pub(super) slice_threshold: Option<f64>,
    pub(super) set_aside: Vec<SetAsideRow>,
    pub(super) notifications: Vec<NotificationRow>,
    /// A shadow model's scores, used for nothing.
    pub(super) shadow: Option<ShadowStudy>,
    /// Reports and key images that channels sent.
    pub(super) documents: Vec<SentDocument>,
    /// Its instances on their way to other nodes.
    pub(super) forwards: Vec<ForwardRow>,
}

impl WholeStudy {
    /// The rule behind the newest verdict's score, in words.
    pub(super) fn judged_by(&self) -> Option<String> {
        // The oldest verdict comes first.
        VerdictRule::words_of(&self.verdicts.last()?.rule)
    }
}

pub(super) async fn whole_study(site: &Site, uid: Result<Path<String>, PathRejection>) -> Result<WholeStudy, Failed> {
    let uid = study_uid(uid)?;
    let judge = site.shadow.clone();
    let whole = site
        .ledger(move |ledger| {
            // The row first: it has the id of the verdict that it tells, and deeds name that one.
            let Some(row) = ledger.study(&uid)? else { return Ok(None) };
            Ok(Some(WholeStudy {
                row,
                slices: ledger.slices(&uid)?,
                series: ledger.series(&uid)?,
                verdicts: ledger.verdicts(&uid)?,
                acknowledgements: ledger.acknowledgements(&uid)?,
                feedback: ledger.feedback(Some(&uid), None, MOST_LIMIT)?,
                audit: ledger.audit(&AuditFilter { study_uid: Some(uid.clone()), limit: Some(1000), since: None })?,
                slice_threshold: ledger.slice_threshold(&uid)?,
                set_aside: ledger.set_aside(Some(&uid), MOST_LIMIT)?,
                notifications: ledger.notifications(Some(&uid))?,
                shadow: ShadowStudy::of_study(ledger, &uid, &judge)?,
                documents: ledger.documents_of(&uid)?,
                forwards: ledger.forwards(&uid, MOST_LIMIT)?,
            }))
        })
        .await?;
    whole.ok_or_else(|| Failed::NotFound("there is no study with this UID".into()))
}

/// From the address, percent-decoded. What cannot be decoded cannot be a study's.
pub(super) fn study_uid(uid: Result<Path<String>, PathRejection>) -> Result<String, Failed> {
    uid.map(|Path(uid)| uid).map_err(|_| Failed::NotFound("there is no study with this UID".into()))
}

pub(super) fn notification_id(id: Result<Path<i64>, PathRejection>) -> Result<i64, Failed> {
    id.map(|Path(id)| id).map_err(|_| Failed::NotFound("a notification's id is a number".into()))
}

fn since(asked: Option<String>) -> Result<Option<String>, Failed> {
    let moment = asked.as_deref().map(crate::since::moment_of).transpose();
    moment.map_err(|why| Failed::Refused(StatusCode::BAD_REQUEST, why))
}

fn limit(asked: Option<u32>) -> Result<u32, Failed> {
    match asked.unwrap_or(USUAL_LIMIT) {
        limit @ 1..=MOST_LIMIT => Ok(limit),
        _ => Err(Failed::Refused(StatusCode::BAD_REQUEST, format!("limit is between 1 and {MOST_LIMIT}"))),
    }
}

pub(super) fn failure(failed: Failed) -> Response {
    let (status, why) = failed.in_words();
    refusal(status, &why)
}

pub(super) fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

impl Failed {
    pub(super) fn in_words(self) -> (StatusCode, String) {
        match self {
            Failed::NotFound(why) => (StatusCode::NOT_FOUND, why),
            Failed::Refused(status, why) => (status, why),
            Failed::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "this could not be done; the node's log says why".into())
            }
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        failure(self)
    }
}
