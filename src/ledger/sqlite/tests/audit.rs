//! The audit log.

use rusqlite::Connection;
use serde_json::json;

use super::{alert, instance, ledger, verdict};
use crate::ledger::{Actor, AuditFilter, Deed, Delivery, Instances, Ledger, Outbox, Studies};

/// Deed, kind of actor, actor, study and details of all rows.
fn rows(ledger: &Ledger) -> Vec<(String, String, String, Option<String>, serde_json::Value)> {
    let rows = ledger.audit(&AuditFilter::default()).unwrap().into_iter();
    let details = |text: &str| serde_json::from_str(text).unwrap();
    rows.map(|row| (row.deed, row.actor_kind, row.actor, row.study_uid, details(&row.details))).collect()
}

fn row(
    deed: &str,
    kind: &str,
    actor: &str,
    study: Option<&str>,
    details: serde_json::Value,
) -> (String, String, String, Option<String>, serde_json::Value) {
    (deed.into(), kind.into(), actor.into(), study.map(str::to_owned), details)
}

#[tokio::test]
async fn every_deed_says_who_did_it() {
    let (_folder, ledger) = ledger();
    ledger.store(instance("1", "s", "aa")).await.unwrap();
    let claim = super::next(&ledger, 1).await.remove(0);
    crate::ledger::Queue::complete(&ledger, vec![super::score(&claim, 0.9)]).await.unwrap();
    let study = ledger.open_studies("00").unwrap().remove(0);
    ledger.decide(verdict(&study, false, true), alert()).await.unwrap();
    let due = ledger.due("webhook", 1, super::HOUR).unwrap().remove(0);
    ledger.settle(due.id, Delivery::Dead { at: "2999-01-01T00:00:00.000Z".into(), error: "404".into() }).await.unwrap();
    let deeds = ledger.clone();
    tokio::task::spawn_blocking(move || {
        deeds.acknowledge("s", &Actor::person("ann"), None).unwrap();
        deeds.acknowledge("s", &Actor::peer("web 192.0.2.7").by_way_of(&Actor::token("t")), None).unwrap();
        assert!(deeds.undo_acknowledgement("s", &Actor::person("ann")).unwrap());
        deeds.requeue_dead(None, &Actor::token("script")).unwrap();
        deeds.requeue_study("s", &Actor::system()).unwrap();
        // Nothing is done, and nothing is written.
        assert!(deeds.acknowledge("none", &Actor::person("ann"), None).is_err());
        assert!(deeds.requeue_dead(Some(99), &Actor::person("ann")).is_err());
        assert_eq!(deeds.requeue_study("none", &Actor::person("ann")).unwrap(), 0);
    })
    .await
    .unwrap();
    let login = Deed { actor: Actor::person("ann"), name: "person.login", study_uid: None, details: json!({}) };
    ledger.record_deed(login).await.unwrap();
    assert_eq!(
        rows(&ledger),
        [
            row("study.acknowledge", "person", "ann", Some("s"), json!({ "outcome": "first" })),
            row(
                "study.acknowledge",
                "peer",
                "web 192.0.2.7",
                Some("s"),
                json!({ "outcome": "acknowledged before", "by_way_of": "t" })
            ),
            row("study.undo_acknowledgement", "person", "ann", Some("s"), json!({})),
            row(
                "notification.requeue",
                "token",
                "script",
                Some("s"),
                json!({ "notification": due.id, "channel": "webhook" })
            ),
            row("study.rescore", "system", "triaged", Some("s"), json!({ "slices": 1 })),
            row("person.login", "person", "ann", None, json!({})),
        ]
    );
    let newest = AuditFilter { study_uid: Some("s".into()), limit: Some(2), ..AuditFilter::default() };
    let newest: Vec<String> = ledger.audit(&newest).unwrap().into_iter().map(|row| row.deed).collect();
    assert_eq!(newest, ["notification.requeue", "study.rescore"], "the newest two, oldest first");
    let later = AuditFilter { since: Some("2999-01-01T00:00:00.000Z".into()), ..AuditFilter::default() };
    assert!(ledger.audit(&later).unwrap().is_empty());
}

#[tokio::test]
async fn no_row_is_changed_removed_or_replaced() {
    let (folder, ledger) = ledger();
    let deed = |name| Deed { actor: Actor::system(), name, study_uid: None, details: json!({}) };
    ledger.record_deed(deed("first.deed")).await.unwrap();
    ledger.record_deed(deed("second.deed")).await.unwrap();
    let database = Connection::open(folder.path().join("triaged.db")).unwrap();
    for change in [
        "UPDATE audit SET actor = 'nobody' WHERE id = 1",
        "DELETE FROM audit WHERE id = 2",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit VALUES (1, '2026', 'person', 'nobody', 'first.deed', NULL, '{}', NULL)",
        "REPLACE INTO audit VALUES (2, '2026', 'person', 'nobody', 'second.deed', NULL, '{}', NULL)",
        "INSERT INTO audit VALUES (1, '2026', 'person', 'x', 'x', NULL, '{}', NULL)
             ON CONFLICT (id) DO UPDATE SET actor = 'nobody'",
    ] {
        let refused = database.execute_batch(change).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    assert_eq!(rows(&ledger).len(), 2);
    assert!(rows(&ledger).iter().all(|row| row.2 == "triaged"));
}
