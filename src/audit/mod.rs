//! The audit log leaves the node: each row becomes a DICOM audit message (PS3.15 A.5) and goes to a collector by syslog
//! (RFC 5424; over UDP, TCP, or TLS as RFC 5425 says; IHE ITI-20).
//!
//! The row is the queue: what was sent is noted after it was sent, so a restart repeats some messages at most, and a collector that is
//! away for a week misses none (but UDP tells nobody whether it arrived).

mod message;
mod syslog;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config;
use crate::ledger::Ledger;
use crate::tls::TlsError;

use message::Source;
use syslog::Collector;

/// How often new rows are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Rows that are sent before it is noted.
const BATCH: u32 = 100;

/// The stage that sends audit messages.
pub struct Exporter {
    ledger: Ledger,
    source: Source,
    collector: Collector,
}

impl Exporter {
    /// `None` where no collector is configured.
    ///
    /// # Errors
    /// The files of TLS cannot be used.
    pub fn new(settings: &config::Settings, ledger: Ledger) -> Result<Option<Exporter>, TlsError> {
        let syslog = &settings.audit.syslog;
        if syslog.address.is_empty() {
            return Ok(None);
        }
        let source = Source::of_this_process(settings.dimse.ae_title.trim());
        Ok(Some(Exporter { ledger, source, collector: Collector::new(syslog)? }))
    }

    /// Whether an exporter could be made of these settings.
    ///
    /// # Errors
    /// The files of TLS cannot be used.
    pub fn verify(settings: &config::Syslog) -> Result<(), TlsError> {
        if settings.address.is_empty() { Ok(()) } else { Collector::new(settings).map(|_| ()) }
    }

    /// Sends until `stop`, and once more then: the row of the stop itself.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut fails = false;
        loop {
            let last = stop.is_cancelled();
            let sent = self.round().await;
            match &sent {
                Ok(_) if fails => info!("audit messages reach their collector again"),
                Err(why) if !fails => warn!("audit messages do not reach their collector, and wait: {why}"),
                _ => {}
            }
            fails = sent.is_err();
            if last {
                return;
            }
            match sent {
                Ok(count) if count == BATCH as usize => continue,
                sent => tokio::select! {
                    () = tokio::time::sleep(if sent.is_ok() { LOOK_EVERY } else { RETRY_AFTER }) => {}
                    () = stop.cancelled() => {}
                },
            }
        }
    }

    /// Sends what waits, and returns how many rows that were.
    async fn round(&mut self) -> Result<usize, String> {
        let ledger = self.ledger.clone();
        let rows = tokio::task::spawn_blocking(move || ledger.unexported_audit(BATCH)).await;
        let rows = rows.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let Some(last) = rows.last().map(|row| row.id) else { return Ok(0) };
        let messages: Vec<String> = rows.iter().map(|row| syslog::line(&self.source, row)).collect();
        let mut collector = std::mem::take(&mut self.collector);
        let sent = tokio::task::spawn_blocking(move || {
            let sent = messages.iter().try_for_each(|message| collector.send(message));
            (collector, sent)
        });
        let (collector, sent) = sent.await.map_err(|error| error.to_string())?;
        self.collector = collector;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        metrics::counter!("triaged_audit_messages_total", "outcome" => outcome).increment(rows.len() as u64);
        sent?;
        self.ledger.note_exported(last).await.map_err(|error| error.to_string())?;
        Ok(rows.len())
    }
}
