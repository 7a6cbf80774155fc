//! What people mean by "since": of the commands' `--since` and of the API's `since`.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};

use crate::ledger::format_time;

/// The moment that was asked for, as the ledger writes it: a moment, a date (UTC, as all that the ledger keeps), `today` or
/// `yesterday` (from midnight of this machine's day), or a time before now such as `2h`, `90 minutes ago`, `3 days`.
///
/// # Errors
/// What was asked for, why it is none of these, and what is expected.
pub fn moment_of(asked: &str) -> Result<String, String> {
    let now = ZonedDateTime::now();
    parse(asked.trim(), &now).map(format_time).map_err(|why| {
        format!("since {asked}: {why}; a date (2026-11-24), a moment (2026-11-24T08:00:00Z), today, yesterday or 2h is expected")
    })
}

fn parse(asked: &str, now: &ZonedDateTime) -> Result<Timestamp, jiff::Error> {
    match asked.to_lowercase().as_str() {
        "today" => return Ok(now.start_of_day()?.timestamp()),
        "yesterday" => return Ok(now.yesterday()?.start_of_day()?.timestamp()),
        _ => {}
    }
    // A date's parser passes over a time of day behind it, which somebody meant.
    if asked.len() <= "2026-11-24".len()
        && let Ok(date) = asked.parse::<Date>()
    {
        return TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0));
    }
    if let Ok(span) = asked.parse::<Span>() {
        return Ok(now.checked_sub(span.abs())?.timestamp());
    }
    asked.parse::<Timestamp>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_a_day_or_a_time_before_now() {
        let now: ZonedDateTime = "2026-11-27T09:30:00+01:00[Europe/Berlin]".parse().unwrap();
        let moment = |asked: &str| parse(asked, &now).unwrap().to_string();
        assert_eq!(moment("2026-11-24"), "2026-11-24T00:00:00Z");
        assert_eq!(moment("2026-11-24T08:00:00+01:00"), "2026-11-24T07:00:00Z");
        assert_eq!(moment("today"), "2026-11-26T23:00:00Z");
        assert_eq!(moment("Yesterday"), "2026-11-25T23:00:00Z");
        for two_hours in ["2h", "2 hours ago", "PT2H", "120 minutes"] {
            assert_eq!(moment(two_hours), "2026-11-27T06:30:00Z", "{two_hours}");
        }
        assert_eq!(moment("1 week"), "2026-11-20T08:30:00Z");
        for nothing in ["", "tomorrow", "2", "2026-13-01", "2026-11-24T08:00:00", "99999999 years"] {
            assert!(parse(nothing, &now).is_err(), "{nothing}");
        }
    }
}
