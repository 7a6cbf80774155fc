//! `GET /`: the worklist page. Whatever it shows is in its address.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::connection::PeerAddress;
use super::pages::{Around, NoPage, filters, page, shape, short_uid};
use super::{Failed, Site, feed};
use crate::ledger::{
    ActorKind, Order, Permission, StandingCounts, Telling, VerdictFilter, WorklistFilter, WorklistPage, WorklistRow,
    format_time,
};
use crate::person;

/// Studies on a page.
const ROWS: u32 = 50;

/// Pages that can be asked for; further back one searches.
const MOST_PAGES: u32 = 10_000;

/// Senders that the filter offers.
const MOST_SENDERS: u32 = 100;

/// How long a study that waits for nobody stays in the usual view.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

/// The address's parameters; those that are empty count as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WorklistQuery {
    /// The search words.
    q: String,
    /// `flagged`, `incomplete`, `not-flagged`.
    verdict: String,
    /// `receiving`, `decided`.
    state: String,
    /// Acknowledged: `yes`, `no`.
    ack: String,
    ae: String,
    /// Received on this day or later, and on this day or earlier (UTC).
    from: String,
    to: String,
    sort: String,
    /// `all`: without the usual limit to the last 24 hours.
    view: String,
    /// From 1.
    page: String,
}

const SORTS: [(&str, &str, Order); 8] = [
    ("", "What needs a person first", Order::Working),
    ("newest", "Newest first", Order::Newest),
    ("oldest", "Oldest first", Order::Oldest),
    ("score", "Highest score first", Order::Score),
    ("name", "Name", Order::Name),
    ("id", "Patient ID", Order::PatientId),
    ("accession", "Accession number", Order::AccessionNumber),
    ("date", "Study date", Order::StudyDate),
];

impl WorklistQuery {
    /// Whether neither a search nor a filter limits the list.
    fn is_usual(&self) -> bool {
        [&self.q, &self.verdict, &self.state, &self.ack, &self.ae, &self.from, &self.to, &self.view]
            .iter()
            .all(|value| value.trim().is_empty())
    }

    fn page(&self) -> Result<u32, Failed> {
        match self.page.trim() {
            "" => Ok(1),
            page => page.parse().ok().filter(|page| (1..=MOST_PAGES).contains(page)).ok_or_else(|| wrong("page", page)),
        }
    }

    fn filter(&self) -> Result<WorklistFilter, Failed> {
        let given = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        let verdict = match self.verdict.as_str() {
            "" => None,
            "flagged" => Some(VerdictFilter::Flagged),
            "incomplete" => Some(VerdictFilter::Incomplete),
            "not-flagged" => Some(VerdictFilter::NotFlagged),
            other => return Err(wrong("verdict", other)),
        };
        let state = match self.state.as_str() {
            "" => None,
            "receiving" => Some("receiving"),
            "decided" => Some("decided"),
            other => return Err(wrong("state", other)),
        };
        let acknowledged = match self.ack.as_str() {
            "" => None,
            "yes" => Some(true),
            "no" => Some(false),
            other => return Err(wrong("ack", other)),
        };
        if !matches!(self.view.as_str(), "" | "all") {
            return Err(wrong("view", &self.view));
        }
        let order = SORTS.iter().find(|(name, ..)| *name == self.sort).ok_or_else(|| wrong("sort", &self.sort))?.2;
        let day = |name: &str, value: &str, days: i64| -> Result<Option<String>, Failed> {
            let Some(value) = given(value) else { return Ok(None) };
            let date: jiff::civil::Date = value.parse().map_err(|_| wrong(name, &value))?;
            let begin =
                TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight())).map_err(|_| wrong(name, &value))?;
            let moment = begin.checked_add(SignedDuration::from_hours(24 * days)).map_err(|_| wrong(name, &value))?;
            Ok(Some(format_time(moment)))
        };
        Ok(WorklistFilter {
            verdict,
            state,
            acknowledged,
            calling_ae: given(&self.ae),
            search: given(&self.q),
            since: day("from", &self.from, 0)?,
            before: day("to", &self.to, 1)?,
            rest_since: self.is_usual().then(|| format_time(Timestamp::now() - RECENT)),
            order,
            limit: Some(ROWS),
            offset: (self.page()? - 1) * ROWS,
            ..WorklistFilter::default()
        })
    }

    /// The address of this list with one parameter changed; the first page, unless it is the page that changes.
    fn with(&self, name: &str, value: &str) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        let page = if name == "page" { self.page.as_str() } else { "" };
        for (own, is) in [
            ("q", self.q.as_str()),
            ("verdict", &self.verdict),
            ("state", &self.state),
            ("ack", &self.ack),
            ("ae", &self.ae),
            ("from", &self.from),
            ("to", &self.to),
            ("sort", &self.sort),
            ("view", &self.view),
            ("page", page),
        ] {
            let is = if own == name { value } else { is };
            if !is.trim().is_empty() {
                pairs.append_pair(own, is);
            }
        }
        match pairs.finish() {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }
}

fn wrong(name: &str, value: &str) -> Failed {
    let value: String = value.chars().take(40).collect();
    Failed::Refused(StatusCode::BAD_REQUEST, format!("{name} cannot be {value:?}"))
}

#[derive(Template)]
#[template(path = "worklist.html")]
struct Worklist {
    around: Around,
    rows: Vec<Row>,
    counts: StandingCounts,
    query: WorklistQuery,
    is_usual: bool,
    is_filtered: bool,
    total: u64,
    more_than_total: bool,
    /// The number of the first row; 0 where there is none.
    first: u64,
    last: u64,
    previous: Option<String>,
    next: Option<String>,
    here: String,
    senders: Vec<String>,
    set_aside: u64,
    dead: usize,
    /// Whether there is no login, so that a reader says who it is.
    is_anonymous: bool,
    may_acknowledge: bool,
    may_administer: bool,
}

impl Worklist {
    fn sorts(&self) -> &'static [(&'static str, &'static str, Order)] {
        &SORTS
    }

    /// Filters that are not in sight are in use.
    fn has_more_filters(&self) -> bool {
        let query = &self.query;
        [&query.state, &query.ack, &query.ae, &query.from, &query.to].iter().any(|value| !value.is_empty())
    }
}

/// A study as a row.
pub(super) struct Row {
    pub(super) study: WorklistRow,
    pub(super) verdict: &'static str,
    pub(super) class: &'static str,
    pub(super) shape: &'static str,
    pub(super) name: Option<String>,
    /// Age and sex.
    pub(super) person: String,
    pub(super) short_uid: String,
    pub(super) study_date: Option<String>,
    pub(super) birth_date: Option<String>,
    /// The name of the study's flag in the feed.
    pub(super) flag: String,
    /// What becomes of its messages, where that is still to be said.
    pub(super) telling: Option<Telling>,
}

impl From<WorklistRow> for Row {
    fn from(study: WorklistRow) -> Row {
        let verdict = study.verdict_in_words();
        let (class, shape) = shape(verdict);
        let taken = study.study_date.as_deref().and_then(person::date);
        let birth = study.birth_date.as_deref().and_then(person::date);
        let age = birth.and_then(|birth| {
            person::age(birth, taken.unwrap_or_else(|| TimeZone::UTC.to_datetime(Timestamp::now()).date()))
        });
        let sex = study.sex.clone().filter(|sex| !sex.trim().is_empty());
        Row {
            verdict,
            class,
            shape,
            name: study.patient_name.as_deref().and_then(person::name),
            person: age.into_iter().chain(sex).collect::<Vec<_>>().join(" · "),
            short_uid: short_uid(&study.study_uid),
            study_date: taken.map(|date| date.to_string()),
            birth_date: birth.map(|date| date.to_string()).or_else(|| study.birth_date.clone()),
            flag: feed::flag(&study.study_uid),
            telling: None,
            study,
        }
    }
}

impl Row {
    /// The sender by the name that people know it by, then its AE title.
    fn scanner(&self) -> (&str, Option<&str>) {
        match (&self.study.station_name, &self.study.calling_ae) {
            (Some(station), Some(ae)) if station != ae => (station, Some(ae)),
            (Some(name), _) | (None, Some(name)) => (name, None),
            (None, None) => ("–", None),
        }
    }

    fn has_thumbnail(&self) -> bool {
        self.study.slices_scored > 0
    }
}

pub(super) async fn worklist(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    query: Result<Query<WorklistQuery>, QueryRejection>,
) -> Result<Response, NoPage> {
    let Query(query) = query.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
    let filter = query.filter()?;
    let (list, rows, counts, senders, dead, [set_aside, ..]) = site
        .ledger(move |ledger| {
            let dead = ledger.newest_notifications(Some("dead"), 100)?.len();
            let mut list = ledger.worklist_page(&filter)?;
            let mut rows: Vec<Row> = std::mem::take(&mut list.rows).into_iter().map(Row::from).collect();
            for row in &mut rows {
                let study = &row.study;
                if study.flagged == Some(true) && study.notified_at.is_none() && study.acknowledged_at.is_none() {
                    row.telling = Some(ledger.telling(&study.study_uid)?);
                }
            }
            Ok((list, rows, ledger.standing_counts()?, ledger.senders(MOST_SENDERS)?, dead, ledger.count_set_aside()?))
        })
        .await?;
    let WorklistPage { total, more_than_total, .. } = list;
    let number = query.page()?;
    let before = u64::from(number - 1) * u64::from(ROWS);
    let (shown, page_of) = (rows.len() as u64, |number: u32| query.with("page", &number.to_string()));
    let here = query.with("page", &query.page);
    Ok(page(&Worklist {
        around: Around::of(&site, Some(&peer)),
        counts,
        is_usual: query.is_usual(),
        is_filtered: !query.is_usual() && query.view.is_empty(),
        total,
        more_than_total,
        first: if shown > 0 { before + 1 } else { 0 },
        last: before + shown,
        previous: (number > 1).then(|| page_of(number - 1)),
        next: (before + shown < total || (more_than_total && shown == u64::from(ROWS))).then(|| page_of(number + 1)),
        rows,
        here,
        senders,
        set_aside,
        dead,
        is_anonymous: peer.actor().kind == ActorKind::Peer,
        may_acknowledge: peer.may(Permission::Acknowledge),
        may_administer: peer.may(Permission::Administer),
        query,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_one_parameter_changed() {
        let query = WorklistQuery { q: "a&b=é".into(), sort: "name".into(), page: "3".into(), ..Default::default() };
        assert_eq!(query.with("page", "4"), "/?q=a%26b%3D%C3%A9&sort=name&page=4");
        assert_eq!(query.with("sort", ""), "/?q=a%26b%3D%C3%A9");
        assert_eq!(WorklistQuery::default().with("page", ""), "/");
    }

    #[test]
    fn only_the_usual_view_is_limited_to_a_day() {
        let filter = |query: WorklistQuery| query.filter().unwrap();
        assert!(filter(WorklistQuery::default()).rest_since.is_some());
        assert!(
            filter(WorklistQuery { page: "2".into(), sort: "name".into(), ..Default::default() }).rest_since.is_some()
        );
        for query in [
            WorklistQuery { q: "a".into(), ..Default::default() },
            WorklistQuery { view: "all".into(), ..Default::default() },
            WorklistQuery { ack: "no".into(), ..Default::default() },
        ] {
            assert!(filter(query).rest_since.is_none());
        }
        let day = filter(WorklistQuery { from: "2026-11-23".into(), to: "2026-11-23".into(), ..Default::default() });
        assert_eq!(day.since.as_deref(), Some("2026-11-23T00:00:00.000Z"));
        assert_eq!(day.before.as_deref(), Some("2026-11-24T00:00:00.000Z"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for query in [
            WorklistQuery { page: "0".into(), ..Default::default() },
            WorklistQuery { page: "99999999999".into(), ..Default::default() },
            WorklistQuery { sort: "'; DROP TABLE studies".into(), ..Default::default() },
            WorklistQuery { from: "2026-02-30".into(), ..Default::default() },
            WorklistQuery { to: "9999-12-31".into(), from: "yesterday".into(), ..Default::default() },
        ] {
            assert!(query.filter().is_err(), "{query:?}");
        }
        // The last day that there is has no next one, and that is no panic.
        let _ = WorklistQuery { to: "9999-12-31".into(), ..Default::default() }.filter();
    }
}
