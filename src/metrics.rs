//! The metrics of all stages: their names, units and buckets in one place, and the recorder that `/metrics` renders.
//!
//! The stages emit through the `metrics` macros and know nothing of Prometheus.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::event;

/// How often the recorder folds raw histogram samples into buckets. Without it they pile up while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}
use Kind::{Counter, Gauge, Histogram};

/// From 100 µs to 10 s: commits, decoding, inference, a C-STORE.
const SHORT_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From 10 ms to a minute: a request to another system.
const REQUEST_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From a second to half an hour. Triage devices promise some tens of seconds.
const NOTIFICATION_SECONDS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0];
const SMALL_COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Every metric of the node: name, kind, unit, meaning.
const ALL: &[(&str, Kind, Unit, &str)] = &[
    ("triaged_ready", Gauge, Unit::Count, "1 while every check of /readyz is well, else 0"),
    ("triaged_check_ok", Gauge, Unit::Count, "1 while a check of /readyz is well (`check`), else 0"),
    (
        "triaged_connections_displaced_total",
        Counter,
        Unit::Count,
        "Connections that asked for nothing and were closed, as there were too many",
    ),
    (
        "triaged_queue_refusals_total",
        Counter,
        Unit::Count,
        "Objects refused because too many slices wait, by `bound`: all, source (of this sender)",
    ),
    (
        "triaged_attributes_cut_total",
        Counter,
        Unit::Count,
        "Attributes that were kept only in part, as they were too long",
    ),
    (
        "triaged_volume_refusals_total",
        Counter,
        Unit::Count,
        "Objects refused because their address brought more bytes than it may in an hour",
    ),
    (
        "triaged_recovered_files_total",
        Counter,
        Unit::Count,
        "Files of the archive without a row that were taken in again after a start",
    ),
    (
        "triaged_files_without_row",
        Gauge,
        Unit::Count,
        "Files of the archive without a row, as the last start found them, that are not taken in again yet or could not be",
    ),
    (
        "triaged_decoder_ends_total",
        Counter,
        Unit::Count,
        "Decoder processes that ended over a slice, to be scored or shown (`why`): time, crash, killed, silent, broken",
    ),
    ("triaged_build_info", Gauge, Unit::Count, "Always 1; the label `version` is the software's"),
    ("triaged_associations_open", Gauge, Unit::Count, "DICOM associations that are open"),
    (
        "triaged_associations_total",
        Counter,
        Unit::Count,
        "Connections to the DICOM port by what came of them (`result`): accepted, rejected, garbage",
    ),
    (
        "triaged_rejections_total",
        Counter,
        Unit::Count,
        "Associations rejected, by `result`, `source` and `reason` as PS3.8 table 9-21 names them",
    ),
    (
        "triaged_certificate_expiry_timestamp_seconds",
        Gauge,
        Unit::Seconds,
        "When the first of the certificates in a `file` of TLS ends, in seconds since 1970",
    ),
    (
        "triaged_commitments_total",
        Counter,
        Unit::Count,
        "Reports of storage commitment by what became of them (`outcome`): delivered, dead",
    ),
    (
        "triaged_audit_messages_total",
        Counter,
        Unit::Count,
        "Audit messages by `outcome`: sent, failed (and tried again)",
    ),
    ("triaged_instances_total", Counter, Unit::Count, "Instances received by what became of them (`outcome`)"),
    (
        "triaged_set_aside_objects",
        Gauge,
        Unit::Count,
        "Objects kept and not taken in, by `kind`: conflict (other content under known UIDs), replaced (made room for a copy that \
         can be read), unreadable (refused)",
    ),
    ("triaged_received_bytes_total", Counter, Unit::Bytes, "Bytes of data sets received"),
    ("triaged_archive_bytes", Gauge, Unit::Bytes, "Files of the archive, where retention is configured"),
    ("triaged_removed_files_total", Counter, Unit::Count, "Files removed from the archive by retention"),
    ("triaged_store_seconds", Histogram(SHORT_SECONDS), Unit::Seconds, "C-STORE, from command to response"),
    ("triaged_ledger_commit_seconds", Histogram(SHORT_SECONDS), Unit::Seconds, "A commit of the ledger, sync included"),
    ("triaged_ledger_writes_per_commit", Histogram(SMALL_COUNTS), Unit::Count, "Writes that shared a commit"),
    ("triaged_leases_lost_total", Counter, Unit::Count, "Slices whose end came after their lease was another's"),
    ("triaged_queue_depth", Gauge, Unit::Count, "Slices that wait to be scored"),
    ("triaged_decode_seconds", Histogram(SHORT_SECONDS), Unit::Seconds, "A slice from file to model input"),
    ("triaged_inference_seconds", Histogram(SHORT_SECONDS), Unit::Seconds, "A batch through the model"),
    ("triaged_batch_size", Histogram(SMALL_COUNTS), Unit::Count, "Slices in a batch"),
    (
        "triaged_model_info",
        Gauge,
        Unit::Count,
        "1 while a model runs; `role` is verdict or shadow, other labels name model and `provider`",
    ),
    ("triaged_shadow_queue_depth", Gauge, Unit::Count, "Slices that wait for the shadow model"),
    (
        "triaged_shadow_seconds",
        Histogram(SHORT_SECONDS),
        Unit::Seconds,
        "A slice from file to the shadow model's score",
    ),
    ("triaged_shadow_slices_total", Counter, Unit::Count, "Slices by how they ended with the shadow model (`state`)"),
    (
        "triaged_slices_total",
        Counter,
        Unit::Count,
        "Slices that were queued by how they ended (`state`); not those that were ineligible when they came",
    ),
    ("triaged_verdicts_total", Counter, Unit::Count, "Verdicts by `flagged`: flagged, not flagged or incomplete"),
    ("triaged_notifications_total", Counter, Unit::Count, "Attempts to notify by `channel` and `outcome`"),
    ("triaged_notification_seconds", Histogram(REQUEST_SECONDS), Unit::Seconds, "An attempt to notify, by `channel`"),
    ("triaged_notifications_pending", Gauge, Unit::Count, "Notifications to be delivered, by `channel`"),
    ("triaged_notifications_dead", Gauge, Unit::Count, "Notifications given up and not requeued, by `channel`"),
    ("triaged_forwards_total", Counter, Unit::Count, "Attempts to forward an instance by `destination` and `outcome`"),
    ("triaged_forwards_pending", Gauge, Unit::Count, "Instances to be forwarded, by `destination`"),
    ("triaged_forwards_failed", Gauge, Unit::Count, "Instances that could not be forwarded, by `destination`"),
    ("triaged_escalations_total", Counter, Unit::Count, "Messages raised because nobody acknowledged in time"),
    (
        "triaged_unrouted_events_total",
        Counter,
        Unit::Count,
        "Events that a person should hear of and that no route tells to one, by `kind`",
    ),
    (
        "triaged_last_slice_to_notification_seconds",
        Histogram(NOTIFICATION_SECONDS),
        Unit::Seconds,
        "From the last slice received before the verdict to the delivery, by `channel`",
    ),
];

/// Counters with a label whose values are known beforehand. Each is there from the start, at 0: a rule on a counter that begins with its first
/// event does not see that event. Those whose labels name channels or destinations begin with their stage.
const LABELLED: &[(&str, &str, &[&str])] = &[
    ("triaged_queue_refusals_total", "bound", &["all", "source"]),
    ("triaged_decoder_ends_total", "why", &["time", "crash", "killed", "silent", "broken"]),
    ("triaged_associations_total", "result", &["accepted", "rejected", "garbage"]),
    ("triaged_commitments_total", "outcome", &["delivered", "dead"]),
    ("triaged_audit_messages_total", "outcome", &["sent", "failed"]),
    ("triaged_instances_total", "outcome", &["stored", "refused"]),
    ("triaged_shadow_slices_total", "state", &["scored", "failed"]),
    ("triaged_slices_total", "state", &["scored", "ineligible", "failed"]),
    ("triaged_verdicts_total", "flagged", &["flagged", "not flagged", "incomplete"]),
];

/// Why associations are rejected (PS3.8 table 9-21).
const REJECTIONS: &[[&str; 3]] = &[
    ["rejected-permanent", "service-user", "no-reason-given"],
    ["rejected-permanent", "service-user", "application-context-name-not-supported"],
    ["rejected-permanent", "service-user", "calling-AE-title-not-recognized"],
    ["rejected-permanent", "service-user", "called-AE-title-not-recognized"],
    ["rejected-permanent", "service-provider (ACSE)", "no-reason-given"],
    ["rejected-permanent", "service-provider (ACSE)", "protocol-version-not-supported"],
    ["rejected-transient", "service-provider (presentation)", "local-limit-exceeded"],
];

/// The metrics whose labels only their stages know.
const OF_STAGES: &[&str] = &[
    "triaged_notifications_total",
    "triaged_notification_seconds",
    "triaged_last_slice_to_notification_seconds",
    "triaged_forwards_total",
];

/// Makes every counter and histogram be there before its first event.
fn begin() {
    for (name, label, values) in LABELLED {
        for value in *values {
            let _ = metrics::counter!(*name, *label => *value);
        }
    }
    for [result, source, reason] in REJECTIONS {
        let _ = metrics::counter!("triaged_rejections_total", "result" => *result, "source" => *source, "reason" => *reason);
    }
    for kind in event::Kind::ALL.into_iter().filter(|kind| kind.is_urgent()) {
        let _ = metrics::counter!("triaged_unrouted_events_total", "kind" => kind.as_str());
    }
    let has_labels = |name: &str| {
        LABELLED.iter().any(|(labelled, ..)| *labelled == name)
            || OF_STAGES.contains(&name)
            || ["triaged_rejections_total", "triaged_unrouted_events_total"].contains(&name)
    };
    for (name, kind, ..) in ALL.iter().filter(|(name, ..)| !has_labels(name)) {
        match kind {
            Counter => _ = metrics::counter!(*name),
            Histogram(_) => _ = metrics::histogram!(*name),
            // What is not measured yet is not known: 0 would say that it is.
            Gauge => {}
        }
    }
    metrics::gauge!("triaged_associations_open").set(0.0);
}

/// Installs the recorder for this process; further calls return the same handle. The only error is another recorder
/// that was installed before.
pub fn install() -> Result<PrometheusHandle, String> {
    static INSTALLED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    INSTALLED.get_or_init(start).clone()
}

fn start() -> Result<PrometheusHandle, String> {
    let mut builder = PrometheusBuilder::new();
    for (name, kind, _, _) in ALL {
        if let Histogram(buckets) = kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full((*name).into()), buckets)
                .map_err(|error| format!("metrics: {error}"))?;
        }
    }
    let handle = builder.install_recorder().map_err(|error| format!("metrics: {error}"))?;
    for (name, kind, unit, meaning) in ALL {
        match kind {
            Counter => metrics::describe_counter!(*name, *unit, *meaning),
            Gauge => metrics::describe_gauge!(*name, *unit, *meaning),
            Histogram(_) => metrics::describe_histogram!(*name, *unit, *meaning),
        }
    }
    begin();
    metrics::gauge!("triaged_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        })
        .map_err(|error| format!("metrics: cannot start a thread: {error}"))?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_twice_it_is_one_recorder_with_described_bucketed_metrics() {
        let first = install().unwrap();
        metrics::histogram!("triaged_last_slice_to_notification_seconds", "channel" => "test").record(33.5);
        let text = install().unwrap().render();
        assert_eq!(text.contains("triaged_build_info"), first.render().contains("triaged_build_info"));
        assert!(text.contains("# TYPE triaged_last_slice_to_notification_seconds histogram"), "{text}");
        let bucket =
            |le: &str| format!("triaged_last_slice_to_notification_seconds_bucket{{channel=\"test\",le=\"{le}\"}}");
        assert!(text.contains(&format!("{} 0", bucket("30"))), "{text}");
        assert!(text.contains(&format!("{} 1", bucket("45"))), "{text}");
    }

    #[test]
    fn counters_are_there_before_their_first_event() {
        let text = install().unwrap().render();
        for (name, kind, ..) in ALL.iter().filter(|(name, ..)| !OF_STAGES.contains(name)) {
            let first = match kind {
                Counter => format!("\n{name}"),
                Histogram(_) => format!("\n{name}_bucket"),
                Gauge => continue,
            };
            assert!(text.contains(&first), "{name} is not there: {text}");
        }
        for (name, label, values) in LABELLED {
            for value in *values {
                assert!(text.contains(&format!("\n{name}{{{label}=\"{value}\"}}")), "{name} {value}");
            }
        }
    }

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for (name, kind, _, _) in ALL {
            assert_eq!(matches!(kind, Counter), name.ends_with("_total"), "{name}");
        }
    }
}
