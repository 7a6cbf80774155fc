//! Hours and weekdays in local time, for routes and quiet hours.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

/// A part of each day, from its start up to but not including its end. An end at or before the start is on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hours {
    start: Time,
    end: Time,
}

/// When something holds: hours, weekdays, or always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    hours: Option<Hours>,
    /// Empty: every day.
    weekdays: Vec<Weekday>,
}

impl Hours {
    /// `HH:MM-HH:MM`.
    fn parse(text: &str) -> Result<Hours, String> {
        let wrong = || format!("{text:?} is not a time span such as 22:00-06:30");
        let (start, end) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| -> Option<Time> {
            let (hour, minute) = text.trim().split_once(':')?;
            if !(1..=2).contains(&hour.len()) || minute.len() != 2 {
                return None;
            }
            let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
            // The end of the day has two names.
            Time::new(if (hour, minute) == (24, 0) { 0 } else { hour }, minute, 0, 0).ok()
        };
        Ok(Hours { start: time(start).ok_or_else(wrong)?, end: time(end).ok_or_else(wrong)? })
    }

    /// Whether a local time lies in this part, and whether in the part of it that began the day before.
    fn holds(self, time: Time) -> (bool, bool) {
        if self.start < self.end {
            (self.start <= time && time < self.end, false)
        } else {
            (time >= self.start || time < self.end, time < self.end)
        }
    }
}

impl Schedule {
    /// Reads a setting's text. Empty hours are the whole day, no weekdays all of them.
    pub fn parse(hours: &str, weekdays: &[String]) -> Result<Schedule, String> {
        let hours = if hours.is_empty() { None } else { Some(Hours::parse(hours)?) };
        let weekdays = weekdays.iter().map(|day| weekday(day)).collect::<Result<_, _>>()?;
        Ok(Schedule { hours, weekdays })
    }

    /// Whether it holds at a moment. Hours over midnight belong to the day on which they began.
    pub fn holds(&self, at: Timestamp, zone: &TimeZone) -> bool {
        let local = zone.to_datetime(at);
        let (within, since_yesterday) = self.hours.map_or((true, false), |hours| hours.holds(local.time()));
        let day = if since_yesterday { local.weekday().previous() } else { local.weekday() };
        within && (self.weekdays.is_empty() || self.weekdays.contains(&day))
    }
}

/// Whether there are quiet hours, and they are now. `quiet` is empty where there are none.
#[derive(Debug, Clone)]
pub(super) struct QuietHours {
    quiet: Option<Hours>,
    zone: TimeZone,
}

impl QuietHours {
    pub fn parse(quiet: &str, time_zone: &str) -> Result<QuietHours, String> {
        let text = quiet;
        let quiet = if text.is_empty() { None } else { Some(Hours::parse(text)?) };
        if quiet.is_some_and(|hours| hours.start == hours.end) {
            return Err(format!("{text:?} is the whole day: the channel would never tell anybody"));
        }
        Ok(QuietHours { quiet, zone: zone(time_zone)? })
    }

    pub fn hold(&self, at: Timestamp) -> bool {
        self.quiet.is_some_and(|hours| hours.holds(self.zone.to_datetime(at).time()).0)
    }
}

/// The zone of a setting: a name such as Europe/Berlin, or the system's where it is empty.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::try_system().unwrap_or(TimeZone::UTC));
    }
    TimeZone::get(name).map_err(|error| format!("{name:?} is not a time zone that this system knows: {error}"))
}

fn weekday(text: &str) -> Result<Weekday, String> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    Ok(match text.to_ascii_lowercase().as_str() {
        "mon" | "monday" => Monday,
        "tue" | "tuesday" => Tuesday,
        "wed" | "wednesday" => Wednesday,
        "thu" | "thursday" => Thursday,
        "fri" | "friday" => Friday,
        "sat" | "saturday" => Saturday,
        "sun" | "sunday" => Sunday,
        _ => return Err(format!("{text:?} is not a weekday; one is mon, tue, wed, thu, fri, sat or sun")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(hours: &str, weekdays: &[&str], at: &str) -> bool {
        let weekdays: Vec<String> = weekdays.iter().map(|day| (*day).into()).collect();
        Schedule::parse(hours, &weekdays).unwrap().holds(at.parse().unwrap(), &TimeZone::UTC)
    }

    // 2026-11-27 is a Friday.
    #[test]
    fn hours_hold_from_their_start_up_to_their_end() {
        assert!(holds("07:00-18:00", &[], "2026-11-27T07:00:00Z"));
        assert!(holds("07:00-18:00", &[], "2026-11-27T17:59:59Z"));
        assert!(!holds("07:00-18:00", &[], "2026-11-27T18:00:00Z"));
        assert!(!holds("07:00-18:00", &[], "2026-11-27T06:59:59Z"));
        assert!(
            holds("18:00-24:00", &[], "2026-11-27T23:59:59Z") && !holds("18:00-24:00", &[], "2026-11-27T00:00:00Z")
        );
        assert!(holds("00:00-24:00", &[], "2026-11-27T00:00:00Z") && holds("00:00-24:00", &[], "2026-11-27T12:00:00Z"));
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_began() {
        assert!(holds("18:00-07:00", &["fri"], "2026-11-27T23:00:00Z"));
        assert!(holds("18:00-07:00", &["fri"], "2026-11-28T06:59:00Z"), "the night of Friday ends on Saturday");
        assert!(!holds("18:00-07:00", &["fri"], "2026-11-27T06:59:00Z"), "that night began on Thursday");
        assert!(!holds("18:00-07:00", &["fri"], "2026-11-28T19:00:00Z"));
        assert!(holds("", &["Saturday"], "2026-11-28T12:00:00Z") && !holds("", &["sun"], "2026-11-28T12:00:00Z"));
    }

    #[test]
    fn quiet_hours_end() {
        for whole_day in ["00:00-24:00", "22:00-22:00"] {
            assert!(QuietHours::parse(whole_day, "UTC").unwrap_err().contains("never"), "{whole_day}");
        }
        assert!(QuietHours::parse("", "UTC").is_ok() && QuietHours::parse("22:00-06:00", "UTC").is_ok());
    }

    #[test]
    fn what_is_not_a_time_or_a_day_is_refused() {
        for hours in ["7", "25:00-26:00", "07:60-08:00", "7:0-8:00", "07:00", "-", "aa:bb-cc:dd", "-1:00-02:00"] {
            assert!(Hours::parse(hours).is_err(), "{hours}");
        }
        assert!(weekday("fr").is_err());
        assert!(zone("Nowhere/City").is_err());
        assert_eq!(zone("UTC").unwrap(), TimeZone::UTC);
    }
}
