//! `GET /studies/{uid}`: one study, its slices as pictures, and what persons do about it.

use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::api::{self, WholeStudy};
use super::connection::PeerAddress;
use super::form::{Asker, FormSaid};
use super::pages::{Around, NoPage, filters, page, shape, short_uid};
use super::said::Said;
use super::timeline::{Moment, timeline};
use super::worklist::Row;
use super::{Failed, Site};
use crate::ledger::{ActorKind, Ledger, NotificationRow, Outbox, Permission, SeriesRow, SliceRow, WorklistRow, now};
use crate::rendering::DisplayWindow;
use triaged_imaging::PixelBox;

/// Rows in a study's slice table.
const MOST_SLICES: usize = 2000;

/// The query that chooses the shown slice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownQuery {
    series: Option<String>,
    /// From 1, in the order of the series.
    slice: Option<usize>,
    window: DisplayWindow,
    /// `off`: the slice without what the model marks on it.
    marks: String,
}

#[derive(Template)]
#[template(path = "study.html")]
struct Study {
    around: Around,
    study: Row,
    link: String,
    viewer_link: Option<String>,
    stack: Option<Stack>,
    series: Vec<SeriesLine>,
    timeline: Vec<Moment>,
    whole: WholeStudy,
    is_cut: bool,
    here: String,
    may_agree: bool,
    /// Who was recognized; none without a login.
    me: Option<String>,
    /// Whether who looks at it may acknowledge, and score again.
    may_acknowledge: bool,
    may_operate: bool,
    /// When it was made.
    as_of: String,
    again: Option<Again>,
}

impl Study {
    /// The verdict that the page shows, as forms name it.
    fn shown(&self) -> i64 {
        self.study.study.verdict_id.unwrap_or(0)
    }

    fn note(&self, is_remark: bool) -> &str {
        self.again.as_ref().filter(|again| again.is_remark == is_remark).map_or("", |again| &again.note)
    }

    /// When a message that could not be delivered is tried again.
    fn next_try<'a>(&self, message: &'a NotificationRow) -> Option<&'a str> {
        let at = message.next_attempt_at.as_deref()?;
        (at > self.as_of.as_str()).then_some(at)
    }

    fn by(&self) -> &str {
        self.again.as_ref().map_or("", |again| &again.by)
    }
}

/// The series that is shown.
struct Stack {
    /// The study's page.
    page: String,
    series_uid: String,
    window: DisplayWindow,
    /// Whether what the model marks is drawn.
    marks: bool,
    bars: Vec<Bar>,
    /// From 0.
    shown: usize,
    width: usize,
    /// Height of the slice threshold, from the top in percent of the chart's height.
    threshold: Option<(f64, f64)>,
}

impl Stack {
    fn windows(&self) -> [(DisplayWindow, String); 4] {
        DisplayWindow::ALL.map(|window| (window, self.address(self.shown, window)))
    }

    fn bar(&self) -> &Bar {
        &self.bars[self.shown]
    }

    fn address(&self, slice: usize, window: DisplayWindow) -> String {
        address(&self.page, &self.series_uid, slice, window, self.marks)
    }

    /// Whether the model says of any slice of the series where the finding is.
    fn has_marks(&self) -> bool {
        self.bars.iter().any(|bar| bar.mark.is_some())
    }

    /// The address of the same slice with its marks, or without.
    fn other_marks(&self) -> String {
        address(&self.page, &self.series_uid, self.shown, self.window, !self.marks)
    }

    /// What is drawn on the slice that is shown.
    fn mark(&self) -> Option<&Mark> {
        self.bar().mark.as_ref()
    }

    fn image(&self) -> String {
        format!("{}?window={}", self.bar().image, self.window.name())
    }

    fn before(&self) -> Option<String> {
        self.shown.checked_sub(1).map(|slice| self.address(slice, self.window))
    }

    fn after(&self) -> Option<String> {
        (self.shown + 1 < self.bars.len()).then(|| self.address(self.shown + 1, self.window))
    }
}

/// The address, on the study's page, at which a slice is shown in a window, with what the model marks on it or without.
fn address(page: &str, series_uid: &str, slice: usize, window: DisplayWindow, marks: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("series", series_uid)
        .append_pair("slice", &(slice + 1).to_string())
        .append_pair("window", window.name());
    if !marks {
        query.append_pair("marks", "off");
    }
    format!("{page}?{}#viewer", query.finish())
}

/// A slice in the chart.
struct Bar {
    x: usize,
    /// In percent of the chart's height.
    height: f64,
    class: &'static str,
    label: String,
    /// The address of its picture, without the window.
    image: String,
    /// The address at which it is shown.
    show: String,
    mark: Option<Mark>,
}

/// What the model marks on a slice, in pixels of the slice.
struct Mark {
    part: PixelBox,
    rows: i64,
    columns: i64,
}

impl Mark {
    fn of(slice: &SliceRow) -> Option<Mark> {
        Some(Mark { part: slice.pixel_box()?, rows: slice.slice_rows?, columns: slice.slice_columns? })
    }

    /// For SVG: the slice's own pixels.
    fn view(&self) -> String {
        format!("0 0 {} {}", self.columns, self.rows)
    }

    /// Left, top, width and height.
    fn numbers(&self) -> String {
        let PixelBox { left, top, width, height } = self.part;
        format!("{left} {top} {width} {height}")
    }
}

/// A series in the list.
struct SeriesLine {
    series: SeriesRow,
    class: &'static str,
    shape: &'static str,
    short_uid: String,
    /// Shows it, from its most suspicious slice.
    show: String,
    is_shown: bool,
}

/// `GET /studies/{uid}?series=…&slice=…&window=…`
pub(super) async fn study(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    uid: Result<Path<String>, PathRejection>,
    query: Result<Query<ShownQuery>, QueryRejection>,
) -> Result<Response, NoPage> {
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    show(&site, &peer, uid, query, None).await
}

/// A deed that was not done, because the study was judged again: its page is shown once more, with what was typed.
struct Again {
    why: String,
    by: String,
    note: String,
    /// The note is one beside an opinion.
    is_remark: bool,
}

async fn show(
    site: &Site,
    peer: &PeerAddress,
    uid: Uid,
    query: ShownQuery,
    again: Option<Again>,
) -> Result<Response, NoPage> {
    let mut whole = api::whole_study(site, uid).await?;
    let link = escaped(&whole.row.study_uid);
    let stack = stack(&whole, &link, &query);
    let here = format!("/studies/{link}");
    let line = |series| series_line(series, &whole.slices, &here, stack.as_ref());
    let series = whole.series.iter().map(line).collect();
    let timeline = timeline(&whole);
    let is_cut = whole.slices.len() > MOST_SLICES;
    whole.slices.truncate(MOST_SLICES);
    if let Some(shadow) = &mut whole.shadow {
        shadow.slices.truncate(MOST_SLICES);
    }
    Ok(page(&Study {
        viewer_link: viewer_link(&site.viewer_url, &whole.row),
        here,
        link,
        stack,
        series,
        timeline,
        is_cut,
        may_agree: !whole.verdicts.is_empty(),
        study: Row::from(whole.row.clone()),
        around: Around::of(site, Some(peer)),
        me: Some(peer.actor()).filter(|actor| actor.kind != ActorKind::Peer).map(|actor| actor.name),
        may_acknowledge: peer.may(Permission::Acknowledge),
        may_operate: peer.may(Permission::Operate),
        as_of: now(),
        again,
        whole,
    }))
}

/// Letters, digits and what a UID has stay as they are.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// A text as a part of an address.
fn escaped(text: &str) -> String {
    utf8_percent_encode(text, IN_PATH).to_string()
}

/// `web.viewer_url` with the study's values in place of `{study_uid}`, `{accession_number}` and `{patient_id}`.
fn viewer_link(template: &str, row: &WorklistRow) -> Option<String> {
    let value = |value: &Option<String>| escaped(value.as_deref().unwrap_or_default());
    (!template.is_empty()).then(|| {
        template
            .replace("{study_uid}", &escaped(&row.study_uid))
            .replace("{accession_number}", &value(&row.accession_number))
            .replace("{patient_id}", &value(&row.patient_id))
    })
}

/// The series that the address names, or else the most suspicious one, at the slice that it names, or else the most suspicious.
fn stack(whole: &WholeStudy, link: &str, query: &ShownQuery) -> Option<Stack> {
    let suspicion = |series: &[SliceRow]| {
        let highest = series.iter().filter_map(|slice| slice.probability).fold(-1.0, f64::max);
        let row = whole.series.iter().find(|row| row.series_uid == series[0].series_uid);
        let verdict = row.and_then(|row| row.verdict.as_deref());
        let rank = match verdict {
            Some("flagged") => 3,
            Some("incomplete") => 2,
            Some(_) => 1,
            None => 0,
        };
        (rank, highest, series.len())
    };
    let all: Vec<&[SliceRow]> = whole.slices.chunk_by(|a, b| a.series_uid == b.series_uid).collect();
    let named = all.iter().find(|series| query.series.as_deref() == Some(series[0].series_uid.as_str()));
    let series = match named {
        Some(series) => series,
        None => {
            all.iter().max_by(|a, b| suspicion(a).partial_cmp(&suspicion(b)).unwrap_or(std::cmp::Ordering::Equal))?
        }
    };
    let asked = if named.is_some() || query.series.is_none() { query.slice } else { None };
    let shown = match asked {
        Some(slice) => slice.clamp(1, series.len()) - 1,
        None => most_suspicious(series),
    };
    let marks = query.marks != "off";
    let page = format!("/studies/{link}");
    Some(Stack {
        series_uid: series[0].series_uid.clone(),
        window: query.window,
        marks,
        bars: series.iter().enumerate().map(|(n, slice)| bar(n, slice, link, query.window, marks)).collect(),
        shown,
        // A series of one slice is a bar like others, not a wall.
        width: series.len().max(20) * 10,
        threshold: whole.slice_threshold.map(|threshold| (100.0 - threshold * 100.0, threshold)),
        page,
    })
}

/// The slice with the highest probability, from 0, of equal ones the first; the middle one where none has any.
fn most_suspicious(series: &[SliceRow]) -> usize {
    let scored = series.iter().enumerate().filter_map(|(n, slice)| Some((n, slice.probability?)));
    scored.rev().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(series.len() / 2, |(n, _)| n)
}

fn bar(n: usize, slice: &SliceRow, link: &str, window: DisplayWindow, marks: bool) -> Bar {
    let number = slice.instance_number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    let (height, class, what) = match slice.probability {
        Some(p) if slice.positive == Some(true) => (p * 100.0, "positive", format!("{p:.3}, positive")),
        Some(p) => (p * 100.0, "negative", format!("{p:.3}")),
        None => (100.0, "unscored", slice.state.clone()),
    };
    let (series, sop) = (escaped(&slice.series_uid), escaped(&slice.sop_uid));
    Bar {
        x: n * 10,
        // A bar of nothing could not be pointed at.
        height: height.max(1.0),
        class,
        label: format!("slice {number}, frame {}: {what}", slice.frame),
        image: format!("/studies/{link}/series/{series}/slices/{sop}/{}", slice.frame),
        show: address(&format!("/studies/{link}"), &slice.series_uid, n, window, marks),
        mark: Mark::of(slice),
    }
}

fn series_line(series: &SeriesRow, slices: &[SliceRow], page: &str, stack: Option<&Stack>) -> SeriesLine {
    let (class, shape) = series.verdict.as_deref().map_or(("unflagged", ""), shape);
    let window = stack.map(|stack| stack.window).unwrap_or_default();
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("series", &series.series_uid)
        .append_pair("window", window.name())
        .finish();
    SeriesLine {
        class,
        shape,
        short_uid: short_uid(&series.series_uid),
        show: match slices.iter().any(|slice| slice.series_uid == series.series_uid) {
            true => format!("{page}?{query}#viewer"),
            false => String::new(),
        },
        is_shown: stack.is_some_and(|stack| stack.series_uid == series.series_uid),
        series: series.clone(),
    }
}

type Uid = Result<Path<String>, PathRejection>;

/// `POST /studies/{uid}/acknowledge`
pub(super) async fn acknowledge(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    uid: Uid,
    form: FormSaid,
) -> Response {
    about_verdict(&site, &peer, uid, &form, |ledger, uid, said| {
        ledger.acknowledge_as_shown(uid, &said.who, said.note.as_deref(), &said.shown).map(drop)
    })
    .await
}

/// `POST /studies/{uid}/unacknowledge`
pub(super) async fn unacknowledge(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    uid: Uid,
    form: FormSaid,
) -> Response {
    about_verdict(&site, &peer, uid, &form, |ledger, uid, said| {
        ledger.undo_acknowledgement_as_shown(uid, &said.who, &said.shown).map(drop)
    })
    .await
}

/// `POST /studies/{uid}/feedback`
pub(super) async fn feedback(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    uid: Uid,
    form: FormSaid,
) -> Response {
    let opinion = match form.said.opinion() {
        Ok(opinion) => opinion,
        Err(failed) => return form.answer(Err(failed)),
    };
    about_verdict(&site, &peer, uid, &form, move |ledger, uid, said| {
        ledger.give_feedback(uid, &said.who, opinion, said.note.as_deref(), &said.shown)
    })
    .await
}

/// Does what a form asks for, unless the study says something else by now than the form's page: then its page is shown, with what
/// was typed.
async fn about_verdict(
    site: &Site,
    peer: &PeerAddress,
    uid: Uid,
    form: &FormSaid,
    deed: impl FnOnce(&Ledger, &str, &Said) -> crate::ledger::Result<()> + Send + 'static,
) -> Response {
    let uid = match api::study_uid(uid) {
        Ok(uid) => uid,
        Err(failed) => return form.answer(Err(failed)),
    };
    let (said, of) = (form.said.clone(), uid.clone());
    match site.ledger(move |ledger| deed(ledger, &of, &said)).await {
        Err(Failed::Refused(StatusCode::CONFLICT, why)) if form.asker == Asker::Page => {
            let again = Again {
                why,
                by: form.by.clone(),
                note: form.said.note.clone().unwrap_or_default(),
                is_remark: form.said.opinion().is_ok(),
            };
            let shown = show(site, peer, Ok(Path(uid)), ShownQuery::default(), Some(again)).await;
            (StatusCode::CONFLICT, shown).into_response()
        }
        done => form.answer(done),
    }
}

/// `POST /studies/{uid}/rescore`
pub(super) async fn rescore(State(site): State<Site>, uid: Uid, form: FormSaid) -> Response {
    let who = form.said.who.clone();
    let queued = async { api::rescore_study(&site, api::study_uid(uid)?, who).await.map(drop) };
    form.answer(queued.await)
}

/// `POST /notifications/{id}/requeue`
pub(super) async fn requeue(
    State(site): State<Site>,
    id: Result<Path<i64>, PathRejection>,
    form: FormSaid,
) -> Response {
    let who = form.said.who.clone();
    let requeued = async {
        let id = api::notification_id(id)?;
        site.ledger(move |ledger| ledger.requeue_dead(Some(id), &who)).await.map(drop)
    };
    form.answer(requeued.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_opens_in_a_viewer_whatever_it_is_called() {
        let fixed = [("study_uid", "1.2/3&x=\"<")];
        let row = row(&fixed);
        let link = |template: &str| viewer_link(template, &row);
        assert_eq!(link(""), None);
        let ohif = "https://pacs.example/ohif/viewer?StudyInstanceUIDs={study_uid}";
        assert_eq!(link(ohif).unwrap(), "https://pacs.example/ohif/viewer?StudyInstanceUIDs=1.2%2F3%26x%3D%22%3C");
        assert_eq!(link("weasis://x?a={accession_number}&p={patient_id}").unwrap(), "weasis://x?a=&p=PAT%201");
    }

    /// A row with nothing in it but a UID and a patient.
    fn row(fixed: &[(&str, &str)]) -> WorklistRow {
        use crate::ledger::{Field, Record};
        WorklistRow::from_columns(|name| {
            let text = |text: &str| Field::Text(text.into());
            let given = fixed.iter().find(|(own, _)| *own == name).map(|(_, value)| text(value));
            Ok::<_, crate::ledger::FieldError>(given.unwrap_or_else(|| match name {
                "state" | "first_received_at" | "last_received_at" => text("decided"),
                "patient_id" => text("PAT 1"),
                name if name.starts_with("slices_") || matches!(name, "revision" | "set_aside") => Field::Integer(0),
                _ => Field::Null,
            }))
        })
        .unwrap()
    }
}
