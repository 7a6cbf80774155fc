//! How far a long job is: a bar with slices a second and time left on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines.
const QUIET: Duration = Duration::from_secs(15);

pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    begun: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// The progress of a job over `total` slices.
    pub fn new(what: impl Into<String>, total: usize) -> Self {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} [{bar:30}] {pos}/{len} slices, {per_sec}, {eta} left";
            let bar = ProgressBar::new(total as u64);
            bar.set_style(ProgressStyle::with_template(style).expect("the template above is well formed"));
            bar.set_message(what.clone());
            bar
        });
        let now = Instant::now();
        Self { what, total: total as u64, done: 0, begun: now, told: now, bar }
    }

    /// `slices` more are done; `note` is shown beside (the loss so far, say).
    pub fn advance(&mut self, slices: usize, note: &str) {
        self.done += slices as u64;
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{} {note}", self.what));
                bar.inc(slices as u64);
            }
            None if self.told.elapsed() >= QUIET && self.done < self.total => {
                self.told = Instant::now();
                let rate = self.rate();
                let left = (self.total - self.done) as f64 / rate.max(1e-9);
                eprintln!("{}: {}/{} slices, {rate:.1}/s, {left:.0} s left {note}", self.what, self.done, self.total);
            }
            None => {}
        }
    }

    /// Slices a second so far.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.begun.elapsed().as_secs_f64().max(1e-9)
    }

    /// Ends the bar and leaves one line.
    pub fn finish(self, note: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        eprintln!("{}: {} slices in {seconds:.0} s ({:.1}/s) {note}", self.what, self.done, self.rate());
    }
}
