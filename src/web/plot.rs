//! Plots of the node page: something over a day or a week, as bars. Each bar has its number in words.

use jiff::{SignedDuration, Timestamp};

use crate::ledger::{Measurement, Traffic, format_time};

/// Something over time, as bars.
pub(super) struct Plot {
    pub title: String,
    pub bars: Vec<PlotBar>,
    /// Places along the time axis, of 10 units each.
    pub places: usize,
    /// What the plot's upper edge stands for.
    pub highest: String,
    pub caption: String,
}

pub(super) struct PlotBar {
    pub x: usize,
    /// In percent of the chart's height.
    pub height: f64,
    pub class: &'static str,
    pub label: String,
}

/// The time that a plot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Day,
    Week,
}

impl Span {
    fn in_words(self) -> &'static str {
        match self {
            Span::Day => "the last day",
            Span::Week => "the last week",
        }
    }

    /// How many bars, and how many minutes each is of.
    fn bars(self) -> (usize, i64) {
        match self {
            Span::Day => (96, 15),
            Span::Week => (84, 120),
        }
    }

    /// When it began, as the ledger writes it.
    pub fn begin(self, now: Timestamp) -> String {
        let (bars, minutes) = self.bars();
        format_time(now - SignedDuration::from_mins(minutes * bars as i64))
    }
}

/// The measurements of one bar.
struct Bin<'a> {
    /// From when to when, as people read it.
    time: String,
    of: Vec<&'a Measurement>,
}

fn bins(all: &[Measurement], span: Span, now: Timestamp) -> Vec<Bin<'_>> {
    let (count, minutes) = span.bars();
    let begin = now - SignedDuration::from_mins(minutes * count as i64);
    let place = |at: &str| -> Option<usize> {
        let seconds = at.parse::<Timestamp>().ok()?.duration_since(begin).as_secs();
        usize::try_from(seconds / (60 * minutes)).ok().filter(|place| *place < count && seconds >= 0)
    };
    let moment = |n: usize| format_time(begin + SignedDuration::from_mins(minutes * n as i64))[..16].replace('T', " ");
    let bin = |n| Bin { time: format!("{} to {}", moment(n), &moment(n + 1)[11..]), of: Vec::new() };
    let mut bins: Vec<Bin<'_>> = (0..count).map(bin).collect();
    for measurement in all {
        if let Some(place) = place(&measurement.at) {
            bins[place].of.push(measurement);
        }
    }
    bins
}

/// A plot of one or two numbers a bar, the larger first: each with its class and its words.
fn plot(
    title: &str,
    unit: &str,
    span: Span,
    bins: &[Bin<'_>],
    numbers: impl Fn(&Bin<'_>) -> Vec<(f64, &'static str, String)>,
) -> Plot {
    let all: Vec<Vec<(f64, &'static str, String)>> = bins.iter().map(numbers).collect();
    let highest = all.iter().flatten().map(|(value, ..)| *value).fold(0.0, f64::max);
    let share = |value: f64| if highest > 0.0 { value * 100.0 / highest } else { 0.0 };
    let bars = (bins.iter().zip(&all).enumerate()).flat_map(|(n, (bin, values))| {
        values.iter().map(move |(value, class, words)| PlotBar {
            x: n * 10,
            height: share(*value),
            class,
            label: format!("{} UTC: {words}", bin.time),
        })
    });
    let measured = bins.iter().map(|bin| bin.of.len()).sum::<usize>();
    Plot {
        title: format!("{title}, {}", span.in_words()),
        bars: bars.collect(),
        places: bins.len(),
        // Slices are counted, the other units are measured.
        highest: if unit == "slices" { format!("{highest:.0} {unit}") } else { format!("{} {unit}", short(highest)) },
        caption: match measured {
            0 => "Not measured yet.".to_owned(),
            1 => "Measured once; the node measures itself every minute.".to_owned(),
            measured => format!("Of {measured} measurements, one a minute while the node ran."),
        },
    }
}

/// A number with as many digits as people compare.
fn short(number: f64) -> String {
    if number >= 10.0 || number == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// How long slices took, how many waited, and how much room was left.
pub(super) fn measured(all: &[Measurement], span: Span, now: Timestamp) -> [Plot; 3] {
    let bins = bins(all, span, now);
    let latency = plot("Seconds from received to scored", "s", span, &bins, |bin| {
        let of_slices = bin.of.iter().filter(|measurement| measurement.slices > 0);
        let most = of_slices.clone().filter_map(|measurement| measurement.most_seconds).fold(f64::NAN, f64::max);
        let mut medians: Vec<f64> = of_slices.clone().filter_map(|measurement| measurement.median_seconds).collect();
        medians.sort_by(f64::total_cmp);
        let slices: u64 = of_slices.map(|measurement| measurement.slices).sum();
        let Some(median) = medians.get(medians.len() / 2) else { return Vec::new() };
        let words = format!("{slices} slices, half of them within {median:.2} s, 95 of 100 within {most:.2} s");
        vec![(most, "negative", words.clone()), (*median, "inner", words)]
    });
    let waiting = plot("Slices waiting, the most", "slices", span, &bins, |bin| {
        let most = bin.of.iter().map(|measurement| measurement.waiting).max();
        most.map(|most| (most as f64, "negative", format!("at most {most} slices waited"))).into_iter().collect()
    });
    let disk = plot("Room on the disk, the least", "GiB", span, &bins, |bin| {
        let least = bin.of.iter().filter_map(|measurement| measurement.free_bytes).min();
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        least
            .map(|least| (gib(least), "negative", format!("at least {:.1} GiB free", gib(least))))
            .into_iter()
            .collect()
    });
    [latency, waiting, disk]
}

/// Objects that came, by the periods that are named.
pub(super) fn traffic(title: &str, periods: impl Iterator<Item = String>, traffic: &[Traffic]) -> Plot {
    let of = |period: &str| traffic.iter().find(|traffic| traffic.period == period);
    let periods: Vec<(String, u64, u64)> = periods
        .map(|period| {
            let (objects, bytes) = of(&period).map_or((0, 0), |traffic| (traffic.objects, traffic.bytes));
            (period, objects, bytes)
        })
        .collect();
    let highest = periods.iter().map(|(_, objects, _)| *objects).max().unwrap_or(0);
    let bars = periods.iter().enumerate().map(|(n, (period, objects, bytes))| PlotBar {
        x: n * 10,
        height: if highest == 0 { 0.0 } else { *objects as f64 * 100.0 / highest as f64 },
        class: "negative",
        label: format!("{}: {objects} objects, {} MiB", period.replace('T', " "), bytes >> 20),
    });
    let total: u64 = periods.iter().map(|(_, objects, _)| objects).sum();
    Plot {
        title: title.to_owned(),
        bars: bars.collect(),
        places: periods.len(),
        highest: highest.to_string(),
        caption: format!("{total} objects in all, of those that the archive still holds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(at: &str, slices: u64, seconds: f64, free_gib: u64) -> Measurement {
        Measurement {
            at: at.into(),
            waiting: 3,
            free_bytes: Some(free_gib << 30),
            slices,
            median_seconds: (slices > 0).then_some(seconds / 2.0),
            most_seconds: (slices > 0).then_some(seconds),
        }
    }

    #[test]
    fn a_bar_is_of_its_quarter_of_an_hour() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let all = [
            measurement("2026-11-20T12:00:00.000Z", 9, 99.0, 1),
            measurement("2026-11-23T11:31:00.000Z", 4, 2.0, 80),
            measurement("2026-11-23T11:44:00.000Z", 4, 8.0, 40),
            measurement("2026-11-23T11:46:00.000Z", 0, 0.0, 20),
        ];
        let [latency, waiting, disk] = measured(&all, Span::Day, now);
        assert_eq!((latency.places, latency.bars.len(), latency.highest.as_str()), (96, 2, "8.00 s"));
        assert_eq!((latency.bars[0].x, latency.bars[0].height, latency.bars[1].height), (940, 100.0, 50.0));
        assert!(
            latency.bars[0].label.starts_with("2026-11-23 11:30 to 11:45 UTC: 8 slices"),
            "{}",
            latency.bars[0].label
        );
        assert_eq!((waiting.bars.len(), waiting.highest.as_str()), (2, "3 slices"));
        assert_eq!((disk.bars[0].height, disk.bars[1].height, disk.highest.as_str()), (100.0, 50.0, "40 GiB"));
        let [latency, ..] = measured(&all, Span::Week, now);
        assert_eq!((latency.places, latency.highest.as_str()), (84, "99 s"));
        let [latency, waiting, disk] = measured(&[], Span::Week, now);
        assert!(
            [latency, waiting, disk].iter().all(|plot| plot.bars.is_empty() && plot.caption.contains("Not measured"))
        );
    }

    #[test]
    fn what_is_no_moment_or_in_the_future_is_passed_over() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let all = [measurement("never", 1, 1.0, 1), measurement("2027-01-01T00:00:00.000Z", 1, 1.0, 1)];
        assert!(measured(&all, Span::Day, now).iter().all(|plot| plot.bars.is_empty()));
    }
}
