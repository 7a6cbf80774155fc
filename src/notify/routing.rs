//! Who hears what: from an event to the messages that tell it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::ChannelError;
use super::schedule::{Schedule, zone};
use crate::config::{self, ChannelKind};
use crate::event::{Event, Kind};
use crate::ledger::{NewMessage, Step};

/// The routing table of the configuration.
#[derive(Debug, Clone)]
pub struct Routing {
    routes: Vec<Route>,
    zone: TimeZone,
    /// The channels that take documents about verdicts, and nothing else.
    document_channels: Vec<String>,
}

/// A row of the table. It holds for an event that fulfils all its conditions.
#[derive(Debug, Clone)]
struct Route {
    events: Vec<Kind>,
    /// A study that is incomplete because slices of it failed is told of to whoever hears of flagged ones.
    failures: bool,
    /// Upper case, as AE titles and station names are compared without regard to it.
    calling_ae_titles: Vec<String>,
    stations: Vec<String>,
    schedule: Schedule,
    minimum_score: Option<f64>,
    fallback: bool,
    channels: Vec<String>,
    /// In order of time.
    escalation: Vec<(Step, Vec<String>)>,
}

impl Routing {
    /// Reads the table. `channels` are the names of those that are open.
    pub fn new(settings: &config::Notify, channels: &[String]) -> Result<Routing, ChannelError> {
        let zone = zone(&settings.time_zone).map_err(|why| ChannelError::new("notify.time_zone", why))?;
        let all = settings.all_channels();
        let documents = all.iter().filter(|channel| matches!(channel.kind, ChannelKind::Pacs(_)));
        let document_channels: Vec<String> = documents.map(|channel| channel.name.clone()).collect();
        let mut routes = Vec::new();
        for (number, route) in (1..).zip(&settings.routes) {
            routes.push(
                Route::new(route, settings, channels, &document_channels)
                    .map_err(|why| ChannelError::new(format!("notify.routes, route {number}"), why))?,
            );
        }
        if settings.routes.is_empty() {
            let (documents, people): (Vec<String>, Vec<String>) =
                channels.iter().cloned().partition(|channel| document_channels.contains(channel));
            if !people.is_empty() {
                routes.push(Route::to_all(settings.events.clone(), settings.failures, people));
            }
            if !documents.is_empty() {
                routes.push(Route::to_all(verdicts(), false, documents));
            }
        }
        Ok(Routing { routes, zone, document_channels })
    }

    /// No channel, no message: for a process that tells nobody.
    pub fn silent() -> Routing {
        Routing { routes: Vec::new(), zone: TimeZone::UTC, document_channels: Vec::new() }
    }

    /// The messages that tell an event now, one a channel. None where nobody wants to hear of it.
    pub fn messages(&self, event: Event) -> Vec<NewMessage> {
        self.messages_at(event, Timestamp::now())
    }

    /// The channels that would hear of an event, and after how many minutes without an acknowledgement; nobody is told.
    pub fn preview(&self, event: &Event, at: Timestamp) -> Vec<(String, f64)> {
        let mut told: Vec<(String, f64)> = Vec::new();
        for route in self.holding(event, at) {
            told.extend(route.channels.iter().map(|channel| (channel.clone(), 0.0)));
            if event.kind().is_urgent() {
                for (step, channels) in &route.escalation {
                    let minutes = step.after.as_secs_f64() / 60.0;
                    told.extend(channels.iter().map(|channel| (channel.clone(), minutes)));
                }
            }
        }
        told.sort_by(|a, b| a.1.total_cmp(&b.1));
        told.dedup();
        told
    }

    fn messages_at(&self, event: Event, at: Timestamp) -> Vec<NewMessage> {
        let mut channels: Vec<&String> = Vec::new();
        let mut later: Vec<(Step, &String)> = Vec::new();
        for route in self.holding(&event, at) {
            if event.kind().is_urgent() {
                let steps = route.escalation.iter().flat_map(|(step, to)| to.iter().map(|channel| (*step, channel)));
                later.extend(steps);
            }
            for channel in route.channels.iter().filter(|channel| self.takes(channel, &event)) {
                if !channels.contains(&channel) {
                    channels.push(channel);
                }
            }
        }
        // Steps of an escalation go to people only.
        let somebody_hears =
            !later.is_empty() || channels.iter().any(|channel| !self.document_channels.contains(channel));
        if !somebody_hears && event.kind().is_urgent() && self.routes.iter().any(|route| self.would_tell(route, &event))
        {
            metrics::counter!("triaged_unrouted_events_total", "kind" => event.kind().as_str()).increment(1);
            tracing::warn!(
                study = event.study_uid(),
                kind = %event.kind(),
                "no route of notify.routes tells a person of this event: it shows only in the worklist"
            );
        }
        // If routes differ about a step's time, the earlier one is first, and the ledger keeps the first.
        later.sort_by_key(|(step, _)| step.after);
        let event = Arc::new(event);
        let message =
            |channel: &String, escalation| NewMessage { channel: channel.clone(), event: event.clone(), escalation };
        let now = channels.into_iter().map(|channel| message(channel, None));
        now.chain(later.into_iter().map(|(step, channel)| message(channel, Some(step)))).collect()
    }

    /// The routes that hold for an event: those without `fallback`, and where these tell no person, those with it, too. A PACS keeps a
    /// document and has told nobody; nor can a channel tell that it failed itself.
    fn holding(&self, event: &Event, at: Timestamp) -> Vec<&Route> {
        let holding = |fallback: bool| {
            let routes = self.routes.iter().filter(move |route| route.fallback == fallback);
            routes.filter(|route| route.holds(event, at, &self.zone))
        };
        let mut routes: Vec<&Route> = holding(false).collect();
        if !routes.iter().any(|route| self.tells_somebody(route, event)) {
            routes.extend(holding(true));
        }
        routes
    }

    /// Whether a channel can tell an event.
    fn takes(&self, channel: &str, event: &Event) -> bool {
        let is_its_own_failure = matches!(event, Event::DeliveryFailed(failed) if failed.channel == channel);
        let takes_documents = self.document_channels.iter().any(|documents| documents == channel);
        !is_its_own_failure && (event.kind().is_verdict() || !takes_documents)
    }

    /// Whether one of a route's channels tells a person of an event, at once.
    fn tells_somebody(&self, route: &Route, event: &Event) -> bool {
        let is_for_people = |channel: &&String| !self.document_channels.contains(channel);
        route.channels.iter().filter(is_for_people).any(|channel| self.takes(channel, event))
    }

    /// Whether a route would tell people of this kind of event, its other conditions aside.
    fn would_tell(&self, route: &Route, event: &Event) -> bool {
        route.hears(event) && self.tells_somebody(route, event)
    }

    /// The kinds of event that no person ever hears of.
    pub fn unheard(&self) -> Vec<Kind> {
        let tells_people =
            |route: &&Route| route.channels.iter().any(|channel| !self.document_channels.contains(channel));
        let is_heard = |kind: &Kind| self.routes.iter().filter(tells_people).any(|route| route.events.contains(kind));
        Kind::ALL.into_iter().filter(|kind| *kind != Kind::Test && !is_heard(kind)).collect()
    }
}

/// The events that tell a verdict.
fn verdicts() -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.is_verdict()).collect()
}

impl Route {
    /// `documents`: the channels that take documents, and nothing else.
    fn new(
        route: &config::Route,
        settings: &config::Notify,
        channels: &[String],
        documents: &[String],
    ) -> Result<Route, String> {
        if route.channels.is_empty() {
            return Err("channels is empty: the route tells nobody".into());
        }
        if route.minimum_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
            return Err("minimum_score is between 0 and 1".into());
        }
        let known = |names: &[String]| match names.iter().find(|name| !channels.contains(name)) {
            None => Ok(()),
            Some(unknown) => {
                let known = if channels.is_empty() { "none".to_owned() } else { channels.join(", ") };
                Err(format!("there is no channel {unknown:?}; configured: {known}"))
            }
        };
        known(&route.channels)?;
        let mut escalation = Vec::new();
        let mut before = 0.0;
        for (number, step) in (1..).zip(&route.escalation) {
            known(&step.channels)?;
            if let Some(pacs) = step.channels.iter().find(|channel| documents.contains(channel)) {
                return Err(format!("escalation, step {number}: channel {pacs:?} is a PACS, which tells nobody"));
            }
            if step.channels.is_empty() || !(step.after_minutes > before && step.after_minutes <= 14_400.0) {
                return Err(format!(
                    "escalation, step {number}: it needs channels, and after_minutes that grow from step to step, at most \
                     14400"
                ));
            }
            before = step.after_minutes;
            let after = Duration::from_secs_f64(step.after_minutes * 60.0);
            escalation.push((Step { number, after }, step.channels.clone()));
        }
        let only_documents = route.channels.iter().all(|channel| documents.contains(channel));
        let events = match route.events.is_empty() {
            true if only_documents => verdicts(),
            true => settings.events.clone(),
            false => route.events.clone(),
        };
        let upper = |names: &[String]| names.iter().map(|name| name.trim().to_uppercase()).collect();
        Ok(Route {
            events,
            failures: settings.failures,
            calling_ae_titles: upper(&route.calling_ae_titles),
            stations: upper(&route.stations),
            schedule: Schedule::parse(&route.hours, &route.weekdays)?,
            minimum_score: route.minimum_score,
            fallback: route.fallback,
            channels: route.channels.clone(),
            escalation,
        })
    }

    fn to_all(events: Vec<Kind>, failures: bool, channels: Vec<String>) -> Route {
        Route {
            events,
            failures,
            calling_ae_titles: Vec::new(),
            stations: Vec::new(),
            schedule: Schedule::default(),
            minimum_score: None,
            fallback: false,
            channels,
            escalation: Vec::new(),
        }
    }

    /// Whether the route tells of this kind of event, its other conditions aside.
    fn hears(&self, event: &Event) -> bool {
        let has_failures = matches!(event, Event::Incomplete(study) if study.slices_failed > 0);
        self.events.contains(&event.kind()) || self.failures && has_failures && self.events.contains(&Kind::Flagged)
    }

    fn holds(&self, event: &Event, at: Timestamp, zone: &TimeZone) -> bool {
        let is_wanted = |wanted: &[String], name: &str| wanted.contains(&name.trim().to_uppercase());
        // What is said of no study, such as that the node is not ready, is held back by no condition about studies; what has no score,
        // such as a study of which no slice could be scored, by none about scores.
        let suits = || {
            (self.calling_ae_titles.is_empty()
                || event.calling_ae_titles().iter().any(|title| is_wanted(&self.calling_ae_titles, title)))
                && (self.stations.is_empty()
                    || event.station_name().is_some_and(|name| is_wanted(&self.stations, name)))
        };
        self.hears(event)
            && (event.study_uid().is_none() || suits())
            && self.minimum_score.is_none_or(|least| event.score().is_none_or(|score| score >= least))
            && self.schedule.holds(at, zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::event::{Acknowledged, DeliveryFailed, NodeTrouble, StudyEvent};

    const CHANNELS: &str = "
        [[notify.channels]]\nname = 'day'\nkind = 'webhook'\nurl = 'http://127.0.0.1:1/'
        [[notify.channels]]\nname = 'night'\nkind = 'webhook'\nurl = 'http://127.0.0.1:1/'
        [[notify.channels]]\nname = 'chief'\nkind = 'webhook'\nurl = 'http://127.0.0.1:1/'\n";

    fn settings(routes: &str) -> config::Notify {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("notify.time_zone = 'UTC'\n{CHANNELS}{routes}")).unwrap();
        Settings::load(Some(file.path()), &[]).unwrap().notify
    }

    fn routing(routes: &str) -> Result<Routing, ChannelError> {
        Routing::new(&settings(routes), &["day", "night", "chief"].map(String::from))
    }

    // 2026-11-27 is a Friday.
    fn heard(routes: &str, event: Event, at: &str) -> Vec<String> {
        let messages = routing(routes).unwrap().messages_at(event, at.parse().unwrap());
        messages.into_iter().map(|message| message.channel).collect()
    }

    const NOON: &str = "2026-11-27T12:00:00Z";

    #[test]
    fn without_routes_every_channel_hears_what_notify_events_says() {
        assert_eq!(heard("", Event::Flagged(StudyEvent::sample()), NOON), ["day", "night", "chief"]);
        assert!(heard("", Event::NotFlagged(StudyEvent::sample()), NOON).is_empty());
    }

    #[test]
    fn whoever_hears_of_flagged_studies_hears_of_failed_slices_unless_that_is_off() {
        let incomplete = |slices_failed| Event::Incomplete(StudyEvent { slices_failed, ..StudyEvent::sample() });
        assert_eq!(heard("", incomplete(1), NOON), ["day", "night", "chief"]);
        assert!(heard("", incomplete(0), NOON).is_empty(), "nothing failed: a chest, say, or a few slices");
        let routes = "[[notify.routes]]\nevents = ['flagged']\nchannels = ['day']\n
            [[notify.routes]]\nevents = ['not_flagged']\nchannels = ['night']\n
            [[notify.routes]]\nevents = ['incomplete']\nchannels = ['chief']\n";
        assert_eq!(heard(routes, incomplete(1), NOON), ["day", "chief"]);
        assert_eq!(heard(routes, incomplete(0), NOON), ["chief"]);
        let off = config::Notify { failures: false, ..settings("") };
        let routing = Routing::new(&off, &["day".into()]).unwrap();
        assert!(routing.messages_at(incomplete(1), NOON.parse().unwrap()).is_empty());
    }

    #[test]
    fn every_condition_of_a_route_must_hold() {
        let route = |condition: &str| format!("[[notify.routes]]\n{condition}\nchannels = ['day']\n");
        for (condition, holds) in [
            ("", true),
            ("events = ['incomplete']", false),
            ("calling_ae_titles = ['ct2']", true),
            ("calling_ae_titles = ['MR']", false),
            ("stations = ['ROOM 2']", true),
            ("stations = ['ROOM 3']", false),
            ("hours = '07:00-18:00'", true),
            ("hours = '18:00-07:00'", false),
            ("weekdays = ['fri']", true),
            ("weekdays = ['sat', 'sun']", false),
            ("minimum_score = 0.7", true),
            ("minimum_score = 0.71", false),
            ("calling_ae_titles = ['CT1']\nweekdays = ['sat']", false),
        ] {
            let heard = heard(&route(condition), Event::Flagged(StudyEvent::sample()), NOON);
            assert_eq!(heard == ["day"], holds, "{condition}: {heard:?}");
        }
    }

    #[test]
    fn all_routes_that_hold_count_once_a_channel_and_a_fallback_only_where_none_does() {
        let routes = "[[notify.routes]]\nhours = '07:00-18:00'\nchannels = ['day', 'chief']\n
            [[notify.routes]]\nminimum_score = 0.6\nchannels = ['chief']\n
            [[notify.routes]]\nfallback = true\nchannels = ['night']\n";
        assert_eq!(heard(routes, Event::Flagged(StudyEvent::sample()), NOON), ["day", "chief"]);
        let weak = StudyEvent { score: Some(0.5), ..StudyEvent::sample() };
        assert_eq!(heard(routes, Event::Flagged(weak), "2026-11-27T20:00:00Z"), ["night"]);
    }

    /// A message of `channel` about a flagged study does not arrive.
    fn failed(channel: &str) -> Event {
        Event::DeliveryFailed(DeliveryFailed {
            notification: 1,
            channel: channel.into(),
            attempts: 3,
            created_at: String::new(),
            undelivered: Box::new(Event::Flagged(StudyEvent::sample())),
        })
    }

    #[test]
    fn a_channel_that_failed_does_not_hear_of_its_failure() {
        assert_eq!(heard("", failed("day"), NOON), ["night", "chief"]);
    }

    #[test]
    fn a_channel_that_failed_does_not_keep_the_fallback_from_hearing_of_it() {
        let routes = "[[notify.routes]]\nchannels = ['day']\n
            [[notify.routes]]\nfallback = true\nchannels = ['night']\n";
        assert_eq!(heard(routes, failed("day"), NOON), ["night"]);
        assert_eq!(heard(routes, failed("night"), NOON), ["day"], "somebody else is told");
    }

    #[test]
    fn a_pacs_has_told_nobody_and_does_not_keep_the_fallback_from_hearing() {
        let pacs =
            "[[notify.channels]]\nname = 'pacs'\nkind = 'pacs'\naddress = '127.0.0.1:104'\ncalled_ae_title = 'PACS'\n";
        let heard = |routes: &str, at: &str| -> Vec<String> {
            let names = ["day", "night", "chief", "pacs"].map(String::from);
            let routing = Routing::new(&settings(&format!("{pacs}{routes}")), &names).unwrap();
            let messages = routing.messages_at(Event::Flagged(StudyEvent::sample()), at.parse().unwrap());
            messages.into_iter().map(|message| message.channel).collect()
        };
        let by_day = "[[notify.routes]]\nchannels = ['pacs']\n
            [[notify.routes]]\nhours = '07:00-18:00'\nchannels = ['day']\n";
        let routes = format!("{by_day}[[notify.routes]]\nfallback = true\nchannels = ['night']\n");
        assert_eq!(heard(&routes, NOON), ["pacs", "day"]);
        assert_eq!(heard(&routes, "2026-11-27T20:00:00Z"), ["pacs", "night"]);
        // Without a fallback nobody is told, and that is counted.
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let told = metrics::with_local_recorder(&recorder, || heard(by_day, "2026-11-27T20:00:00Z"));
        assert_eq!(told, ["pacs"]);
        let counted = recorder.handle().render();
        assert!(counted.contains("triaged_unrouted_events_total{kind=\"flagged\"} 1"), "{counted}");
    }

    #[test]
    fn a_condition_about_scores_or_studies_holds_back_only_what_has_them() {
        let acknowledged = |score| {
            Event::Acknowledged(Acknowledged {
                study_uid: "1.2.3".into(),
                accession_number: None,
                patient_id: None,
                calling_ae_titles: vec!["CT1".into()],
                station_name: None,
                revision: 1,
                score,
                by: "Dr A".into(),
                acknowledged_at: String::new(),
            })
        };
        let trouble = NodeTrouble {
            ae_title: "TRIAGED".into(),
            ready: false,
            since: String::new(),
            reasons: vec![],
            software: String::new(),
        };
        let routes = "[[notify.routes]]\nevents = ['flagged', 'acknowledged', 'node_trouble', 'incomplete']\n
            minimum_score = 0.8\ncalling_ae_titles = ['CT1']\nstations = []\nchannels = ['day']\n";
        assert_eq!(heard(routes, acknowledged(Some(0.9)), NOON), ["day"]);
        assert!(heard(routes, acknowledged(Some(0.7)), NOON).is_empty(), "its alert was not told there");
        assert_eq!(heard(routes, Event::NodeTrouble(trouble), NOON), ["day"]);
        let unscored = StudyEvent { score: None, ..StudyEvent::sample() };
        assert_eq!(heard(routes, Event::Incomplete(unscored), NOON), ["day"], "it may be worse than any score");
    }

    #[test]
    fn an_escalation_tells_further_channels_later_and_only_of_what_is_urgent() {
        let routes = "[[notify.routes]]\nevents = ['flagged', 'not_flagged']\nchannels = ['day']
            escalation = [{ after_minutes = 10, channels = ['night'] }, { after_minutes = 20, channels = ['chief', 'day'] }]\n";
        let told = |event| -> Vec<(String, u32, u64)> {
            let messages = routing(routes).unwrap().messages_at(event, NOON.parse().unwrap());
            let step = |message: &NewMessage| {
                message.escalation.map_or((0, 0), |step| (step.number, step.after.as_secs() / 60))
            };
            messages.iter().map(|message| (message.channel.clone(), step(message).0, step(message).1)).collect()
        };
        let expected = [("day", 0, 0), ("night", 1, 10), ("chief", 2, 20), ("day", 2, 20)];
        let expected = expected.map(|(channel, step, minutes)| (channel.to_owned(), step, minutes));
        assert_eq!(told(Event::Flagged(StudyEvent::sample())), expected);
        assert_eq!(told(Event::NotFlagged(StudyEvent::sample())), [("day".to_owned(), 0, 0)]);
    }

    #[test]
    fn a_route_that_cannot_be_meant_is_refused_by_its_number() {
        for (route, word) in [
            ("channels = ['nite']", "\"nite\""),
            ("channels = []", "tells nobody"),
            ("channels = ['day']\nhours = 'night'", "time span"),
            ("channels = ['day']\nweekdays = ['someday']", "weekday"),
            ("channels = ['day']\nminimum_score = 7.0", "minimum_score"),
            ("channels = ['day']\nescalation = [{ after_minutes = 5, channels = ['nite'] }]", "\"nite\""),
            ("channels = ['day']\nescalation = [{ after_minutes = 0, channels = ['chief'] }]", "step 1"),
            (
                "channels = ['day']\nescalation = [{ after_minutes = 5, channels = ['chief'] },
                  { after_minutes = 5, channels = ['night'] }]",
                "step 2",
            ),
        ] {
            let error = routing(&format!("[[notify.routes]]\n{route}\n")).unwrap_err().to_string();
            assert!(error.contains("route 1") && error.contains(word), "{error}");
        }
    }
}
