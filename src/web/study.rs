//! `GET /studies/{uid}`: one study, its slices as pictures, and what persons do about it.

use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::{Redirect, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::api::{self, WholeStudy};
use super::connection::PeerAddress;
use super::form::FormSaid;
use super::pages::{Around, NoPage, filters, page, shape, short_uid};
use super::timeline::{Moment, timeline};
use super::worklist::Row;
use super::{Failed, Site};
use crate::ledger::{ActorKind, Outbox, SeriesRow, SliceRow, WorklistRow};
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
}

/// The series that is shown.
struct Stack {
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
        address(&self.series_uid, slice, window, self.marks)
    }

    /// Whether the model says of any slice of the series where the finding is.
    fn has_marks(&self) -> bool {
        self.bars.iter().any(|bar| bar.mark.is_some())
    }

    /// The address of the same slice with its marks, or without.
    fn other_marks(&self) -> String {
        address(&self.series_uid, self.shown, self.window, !self.marks)
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
fn address(series_uid: &str, slice: usize, window: DisplayWindow, marks: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("series", series_uid)
        .append_pair("slice", &(slice + 1).to_string())
        .append_pair("window", window.name());
    if !marks {
        query.append_pair("marks", "off");
    }
    format!("?{}#viewer", query.finish())
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
    let mut whole = api::whole_study(&site, uid).await?;
    let link = escaped(&whole.row.study_uid);
    let stack = stack(&whole, &link, &query);
    let series = whole.series.iter().map(|series| series_line(series, &whole.slices, stack.as_ref())).collect();
    let timeline = timeline(&whole);
    let is_cut = whole.slices.len() > MOST_SLICES;
    whole.slices.truncate(MOST_SLICES);
    if let Some(shadow) = &mut whole.shadow {
        shadow.slices.truncate(MOST_SLICES);
    }
    Ok(page(&Study {
        viewer_link: viewer_link(&site.viewer_url, &whole.row),
        here: format!("/studies/{link}"),
        link,
        stack,
        series,
        timeline,
        is_cut,
        may_agree: !whole.verdicts.is_empty(),
        study: Row::from(whole.row.clone()),
        around: Around::of(&site, Some(&peer)),
        me: Some(peer.actor()).filter(|actor| actor.kind != ActorKind::Peer).map(|actor| actor.name),
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
    Some(Stack {
        series_uid: series[0].series_uid.clone(),
        window: query.window,
        marks,
        bars: series.iter().enumerate().map(|(n, slice)| bar(n, slice, link, query.window, marks)).collect(),
        shown,
        // A series of one slice is a bar like others, not a wall.
        width: series.len().max(20) * 10,
        threshold: whole.slice_threshold.map(|threshold| (100.0 - threshold * 100.0, threshold)),
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
        show: address(&slice.series_uid, n, window, marks),
        mark: Mark::of(slice),
    }
}

fn series_line(series: &SeriesRow, slices: &[SliceRow], stack: Option<&Stack>) -> SeriesLine {
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
            true => format!("?{query}#viewer"),
            false => String::new(),
        },
        is_shown: stack.is_some_and(|stack| stack.series_uid == series.series_uid),
        series: series.clone(),
    }
}

type Uid = Result<Path<String>, PathRejection>;
/// `POST /studies/{uid}/acknowledge`
pub(super) async fn acknowledge(State(site): State<Site>, uid: Uid, form: FormSaid) -> Result<Redirect, NoPage> {
    let (uid, back, said) = (api::study_uid(uid)?, form.way_back(), form.said);
    site.ledger(move |ledger| ledger.acknowledge(&uid, &said.who, said.note.as_deref())).await?;
    Ok(back)
}

/// `POST /studies/{uid}/unacknowledge`
pub(super) async fn unacknowledge(State(site): State<Site>, uid: Uid, form: FormSaid) -> Result<Redirect, NoPage> {
    let (uid, back, said) = (api::study_uid(uid)?, form.way_back(), form.said);
    site.ledger(move |ledger| ledger.undo_acknowledgement(&uid, &said.who)).await?;
    Ok(back)
}

/// `POST /studies/{uid}/feedback`
pub(super) async fn feedback(State(site): State<Site>, uid: Uid, form: FormSaid) -> Result<Redirect, NoPage> {
    let (uid, back, said) = (api::study_uid(uid)?, form.way_back(), form.said);
    let opinion = said.opinion()?;
    site.ledger(move |ledger| ledger.give_feedback(&uid, &said.who, opinion, said.note.as_deref())).await?;
    Ok(back)
}

/// `POST /studies/{uid}/rescore`
pub(super) async fn rescore(State(site): State<Site>, uid: Uid, form: FormSaid) -> Result<Redirect, NoPage> {
    let back = form.way_back();
    api::rescore_study(&site, api::study_uid(uid)?, form.said.who).await?;
    Ok(back)
}

/// `POST /notifications/{id}/requeue`
pub(super) async fn requeue(
    State(site): State<Site>,
    id: Result<Path<i64>, PathRejection>,
    form: FormSaid,
) -> Result<Redirect, NoPage> {
    let (id, back, said) = (api::notification_id(id)?, form.way_back(), form.said);
    site.ledger(move |ledger| ledger.requeue_dead(Some(id), &said.who)).await?;
    Ok(back)
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
