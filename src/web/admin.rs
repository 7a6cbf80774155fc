//! `GET /admin`: how the node is doing, what could not be done, and by which settings it works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::connection::PeerAddress;
use super::figures::Figures;
use super::health::Check;
use super::pages::{Around, NoPage, filters, page};
use super::plot::{Plot, Span, measured, traffic};
use super::{Failed, Site};
use crate::event::{Event, StudyEvent};
use crate::ledger::{Ledger, NotificationRow, Queue, Sender, SetAsideRow, SliceTimes, format_time, now};
use crate::triage::{Comparison, ShadowJudge};

/// Slices from which the stages' times are told.
const SLICES: u32 = 2000;

/// Studies that are compared with a shadow model's opinion: those of this time.
const SHADOW: SignedDuration = SignedDuration::from_hours(24 * 7);

/// The comparison with a shadow is made anew after this time: it reads every slice of a week, and an open page asks several times a second.
const KEPT: Duration = Duration::from_secs(60);

/// The last week's comparison of the model with its shadow, and when it was made.
#[derive(Clone, Default)]
pub(super) struct ShadowWeek(Arc<Mutex<Option<Made>>>);

/// A comparison, or none where there is no shadow, and when it was made.
type Made = (Instant, Option<Comparison>);

impl ShadowWeek {
    /// Blocks. Whoever else asks meanwhile waits for the same one.
    fn comparison(
        &self,
        ledger: &Ledger,
        judge: &ShadowJudge,
        at: Timestamp,
    ) -> crate::ledger::Result<Option<Comparison>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, comparison)) = &*kept
            && made.elapsed() < KEPT
        {
            return Ok(comparison.clone());
        }
        let made = Comparison::make(ledger, judge, Some(&format_time(at - SHADOW)), |_| ())?;
        *kept = Some((Instant::now(), made.clone()));
        Ok(made)
    }
}

/// Rows of a list.
const ROWS: u32 = 100;

/// A study that is not there: who would hear of it?
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TryQuery {
    /// `flagged`, `incomplete`, `not_flagged`; empty: nothing is tried.
    verdict: String,
    ae: String,
    station: String,
    score: String,
    /// RFC 3339; empty: now.
    at: String,
}

#[derive(Template)]
#[template(path = "admin.html")]
struct Admin {
    around: Around,
    checks: Vec<Check>,
    waiting: u64,
    stages: Vec<StageTimes>,
    plots: Vec<Plot>,
    figures: Figures,
    shadow: Option<Comparison>,
    senders: Vec<Sender>,
    dead: Vec<NotificationRow>,
    set_aside: Vec<SetAsideRow>,
    settings: Vec<(String, String)>,
    card: Vec<(String, String)>,
    query: TryQuery,
    told: Option<Result<Vec<(String, f64)>, String>>,
}

/// How long a stage took: half of the slices, and 95 of 100, took no longer. Seconds.
struct StageTimes {
    name: &'static str,
    median: f64,
    most: f64,
}

pub(super) async fn admin(
    State(site): State<Site>,
    State(week): State<ShadowWeek>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    query: Result<Query<TryQuery>, QueryRejection>,
) -> Result<Response, NoPage> {
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let at = Timestamp::now();
    let day_ago = format_time(at - SignedDuration::from_hours(24));
    let (readiness, judge) = (site.readiness.clone(), site.shadow.clone());
    let (waiting, times, by_hour, by_day, senders, dead, set_aside, measurements, shadow) = site
        .ledger(move |ledger| {
            let week_ago = format_time(at - SignedDuration::from_hours(24 * 6));
            Ok((
                ledger.queue_depth()?,
                ledger.newest_slice_times(SLICES)?,
                ledger.traffic(&format!("{}:00:00.000Z", &day_ago[..13]), false)?,
                ledger.traffic(&format!("{}T00:00:00.000Z", &week_ago[..10]), true)?,
                ledger.sender_traffic(&day_ago, ROWS)?,
                ledger.newest_notifications(Some("dead"), ROWS)?,
                ledger.set_aside(None, ROWS)?,
                ledger.measurements(&Span::Week.begin(at))?,
                week.comparison(ledger, &judge, at)?,
            ))
        })
        .await?;
    let checks = tokio::task::spawn_blocking(move || readiness().checks).await.unwrap_or_default();
    let hours = (0..=24).rev().map(|hour| format_time(at - SignedDuration::from_hours(hour))[..13].to_owned());
    let days = (0..7).rev().map(|day| format_time(at - SignedDuration::from_hours(24 * day))[..10].to_owned());
    let mut plots: Vec<Plot> =
        [Span::Day, Span::Week].into_iter().flat_map(|span| measured(&measurements, span, at)).collect();
    plots.push(traffic("Objects an hour, the last day (UTC)", hours, &by_hour));
    plots.push(traffic("Objects a day, the last week (UTC)", days, &by_day));
    Ok(page(&Admin {
        told: (!query.verdict.is_empty()).then(|| try_route(&site, &query)),
        checks,
        waiting,
        stages: stages(&times),
        plots,
        figures: Figures::of(&site.card),
        shadow,
        around: Around::of(&site, Some(&peer)),
        senders,
        dead,
        set_aside,
        settings: lines(&site.settings),
        card: lines(&site.card),
        query,
    }))
}

/// Who would hear of a study like this.
fn try_route(site: &Site, query: &TryQuery) -> Result<Vec<(String, f64)>, String> {
    let given = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
    let score = match given(&query.score) {
        None => None,
        Some(score) => Some(
            score
                .parse::<f64>()
                .ok()
                .filter(|score| (0.0..=1.0).contains(score))
                .ok_or("A score is between 0 and 1.")?,
        ),
    };
    let at = match given(&query.at) {
        None => Timestamp::now(),
        Some(at) => at.parse().map_err(|_| "A moment is written like 2026-11-23T03:00:00Z.")?,
    };
    let study = StudyEvent {
        study_uid: "1".into(),
        accession_number: None,
        patient_id: None,
        calling_ae_titles: given(&query.ae).into_iter().collect(),
        station_name: given(&query.station),
        finding: String::new(),
        revision: 1,
        provisional: false,
        score,
        threshold: 0.0,
        model: String::new(),
        model_sha256: String::new(),
        slices_received: 0,
        slices_scored: 0,
        slices_ineligible: 0,
        slices_failed: 0,
        remarks: Vec::new(),
        top_slices: Vec::new(),
        first_received_at: now(),
        last_received_at: now(),
        decided_at: now(),
        software: crate::SOFTWARE.into(),
    };
    let event = match query.verdict.as_str() {
        "flagged" => Event::Flagged(study),
        "incomplete" => Event::Incomplete(study),
        "not_flagged" => Event::NotFlagged(study),
        _ => return Err("A verdict is flagged, incomplete or not_flagged.".into()),
    };
    Ok(site.routing.preview(&event, at))
}

fn stages(times: &[SliceTimes]) -> Vec<StageTimes> {
    let seconds = |from: &str, to: &str| -> Option<f64> {
        let (from, to): (Timestamp, Timestamp) = (from.parse().ok()?, to.parse().ok()?);
        Some(to.duration_since(from).as_secs_f64().max(0.0))
    };
    let stage = |name, between: &dyn Fn(&SliceTimes) -> Option<f64>| {
        let mut all: Vec<f64> = times.iter().filter_map(between).collect();
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all.get(((all.len().max(1) - 1) as f64 * share).round() as usize).copied();
        Some(StageTimes { name, median: at(0.5)?, most: at(0.95)? })
    };
    [
        stage("waits for its turn", &|slice| seconds(&slice.received_at, &slice.claimed_at)),
        stage("decoded", &|slice| seconds(&slice.claimed_at, &slice.decoded_at)),
        stage("scored", &|slice| seconds(&slice.decoded_at, &slice.scored_at)),
        stage("in all, from received to scored", &|slice| seconds(&slice.received_at, &slice.scored_at)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A tree of values as lines `a.b.c` and what is there.
fn lines(value: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Object(table) => table.iter().for_each(|(key, value)| walk(&below(key), value, lines)),
            Value::Array(all) if all.iter().any(|value| value.is_object()) => {
                all.iter().enumerate().for_each(|(n, value)| walk(&below(&(n + 1).to_string()), value, lines));
            }
            Value::String(text) => lines.push((path.to_owned(), text.clone())),
            other => lines.push((path.to_owned(), other.to_string())),
        }
    }
    let mut all = Vec::new();
    walk("", value, &mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_lines_and_no_secret_is_among_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "notify.webhook.url = 'https://hooks.example/services/T0/B0/token-one'\nnotify.webhook.secret = 'token-two'\n\
                    [[notify.channels]]\nname = 'mail'\nkind = 'email'\nserver = 'mail.example'\nfrom = 'a@b.example'\n\
                    to = ['c@d.example']\nusername = 'u'\npassword = 'token-three'\n";
        std::fs::write(file.path(), text).unwrap();
        let settings = crate::config::Settings::load(Some(file.path()), &[]).unwrap();
        let lines = lines(&settings.in_force());
        let value = |key: &str| lines.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
        assert_eq!(value("dimse.ae_title"), Some("TRIAGED"));
        assert_eq!(value("notify.webhook.url"), Some("https://hooks.example/(secret)"));
        assert_eq!(value("notify.webhook.secret"), Some("(secret)"));
        assert_eq!(value("notify.channels.1.password"), Some("(secret)"));
        assert_eq!(value("notify.channels.1.to"), Some("[\"c@d.example\"]"));
        assert!(lines.iter().all(|(_, value)| !value.contains("token-")), "{lines:?}");
    }

    #[test]
    fn a_stage_is_told_by_its_median_and_its_95th_percentile() {
        let times: Vec<SliceTimes> = (0..100)
            .map(|n| SliceTimes {
                received_at: "2026-11-23T00:00:00.000Z".into(),
                claimed_at: format!("2026-11-23T00:00:{:02}.000Z", n / 10),
                decoded_at: "2026-11-23T00:00:10.000Z".into(),
                scored_at: "2026-11-23T00:00:11.000Z".into(),
            })
            .collect();
        let stages = stages(&times);
        assert_eq!((stages[0].median, stages[0].most), (5.0, 9.0));
        assert_eq!(stages[3].median, 11.0);
        assert!(super::stages(&[]).is_empty());
    }

    #[test]
    fn a_tree_is_lines() {
        let tree = json!({ "a": { "b": 1, "c": [1, 2] }, "d": [{ "e": "x" }] });
        let expected = [("a.b", "1"), ("a.c", "[1,2]"), ("d.1.e", "x")];
        assert_eq!(lines(&tree), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
