//! Tests of forwarding: its order, its receivers, and that it misses nothing.

use super::*;
use crate::ledger::{ForwardEnd, ForwardRule, Instances, Studies};

fn rule(flagged_only: bool) -> ForwardRule {
    ForwardRule { destination: "pacs".into(), flagged_only, calling_ae_titles: vec![] }
}

fn due(ledger: &Ledger) -> Vec<String> {
    ledger.due_forwards("pacs", 100, HOUR).unwrap().into_iter().map(|row| row.sop_uid).collect()
}

#[tokio::test]
async fn stat_and_flagged_studies_go_first_and_a_destination_begins_with_what_comes_after_it() {
    let (_folder, ledger) = ledger();
    ledger.store(instance("0", "before", "00")).await.unwrap();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    ledger.store(instance("1", "a", "aa")).await.unwrap();
    ledger.store(instance("2", "b", "bb")).await.unwrap();
    ledger.store(NewInstance { stat: true, ..instance("3", "c", "cc") }).await.unwrap();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    assert_eq!(due(&ledger), ["3", "1", "2"]);
    let open = ledger.open_studies("00").unwrap();
    let study = open.iter().find(|study| study.study_uid == "b").unwrap();
    assert!(ledger.decide(verdict(study, true, true), vec![]).await.unwrap());
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    assert_eq!(due(&ledger), ["2", "3", "1"]);
}

#[tokio::test]
async fn a_destination_of_flagged_studies_gets_all_of_them_once_they_are_flagged_and_what_comes_later() {
    let (_folder, ledger) = ledger();
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    ledger.store(instance("1", "a", "aa")).await.unwrap();
    ledger.store(instance("2", "b", "bb")).await.unwrap();
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    assert!(due(&ledger).is_empty());
    let open = ledger.open_studies("00").unwrap();
    let study = open.iter().find(|study| study.study_uid == "a").unwrap();
    assert!(ledger.decide(verdict(study, true, true), vec![]).await.unwrap());
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    assert_eq!(due(&ledger), ["1"]);
    ledger.store(instance("3", "a", "cc")).await.unwrap();
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    assert_eq!(due(&ledger), ["1", "3"]);
}

#[tokio::test]
async fn each_instance_ends_stored_or_failed_and_what_failed_can_be_sent_again() {
    let (_folder, ledger) = ledger();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    for (n, digest) in [("1", "aa"), ("2", "bb"), ("3", "cc")] {
        ledger.store(instance(n, "a", digest)).await.unwrap();
    }
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    let copies = || ledger.due_forwards("pacs", 10, HOUR).unwrap().into_iter().map(|row| row.copy);
    let [first, second, third] = copies().collect::<Vec<_>>().try_into().expect("three");
    let later = crate::ledger::format_time(jiff::Timestamp::now() + Duration::from_secs(60));
    let ends = vec![
        (first, ForwardEnd::Stored { transfer_syntax: "1.2".into() }),
        (second, ForwardEnd::Retry { at: later, error: "busy".into() }),
        (third, ForwardEnd::Failed { error: "refused".into() }),
    ];
    ledger.settle_forwards(ends).await.unwrap();
    assert!(due(&ledger).is_empty());
    assert_eq!(ledger.forward_counts("pacs").unwrap(), (1, 1));
    let again = ledger.clone();
    assert_eq!(tokio::task::spawn_blocking(move || again.requeue_forwards().unwrap()).await.unwrap(), 1);
    assert_eq!(due(&ledger), ["3"]);
    let states: Vec<String> = ledger.forwards("a", 10).unwrap().into_iter().map(|row| row.state).collect();
    assert_eq!(states, ["stored", "pending", "pending"]);
    assert_eq!(ledger.drop_destinations_but(vec![]).await.unwrap(), 2);
    assert_eq!(ledger.forward_waiting().unwrap(), [("pacs".to_owned(), 2)], "an administrator sees what did not go on");
    assert_eq!(ledger.forward_counts("pacs").unwrap(), (0, 2));
}

#[tokio::test]
async fn what_was_put_off_before_the_clock_was_set_back_is_due() {
    let (_folder, ledger) = ledger();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    ledger.store(instance("1", "a", "aa")).await.unwrap();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    let put_off = async |until: &'static str| {
        ledger.write(move |c| Ok(c.execute("UPDATE forwards SET next_attempt_at = ?1", [until])?)).await.unwrap()
    };
    put_off("2999-01-01T00:00:00.000Z").await;
    assert_eq!(due(&ledger), ["1"]);
    let soon = crate::ledger::format_time(jiff::Timestamp::now() + Duration::from_secs(600));
    put_off(soon.leak()).await;
    assert!(due(&ledger).is_empty(), "it waits for its time");
}

#[tokio::test]
async fn a_copy_that_was_replaced_while_it_was_sent_is_not_what_the_peer_has() {
    let (_folder, ledger) = ledger();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    ledger.store(instance("1", "a", "aa")).await.unwrap();
    while ledger.enqueue_forwards(rule(false)).await.unwrap() {}
    let sent = ledger.due_forwards("pacs", 10, HOUR).unwrap().remove(0).copy;
    let claim = next(&ledger, 1).await.remove(0);
    ledger.fail(claim.lease, "cut off".into()).await.unwrap();
    assert_eq!(ledger.store(instance("1", "a", "bb")).await.unwrap(), Stored::Replaced);
    let stored = || ForwardEnd::Stored { transfer_syntax: "1.2".into() };
    ledger.settle_forwards(vec![(sent, stored())]).await.unwrap();
    let again = ledger.due_forwards("pacs", 10, HOUR).unwrap().remove(0).copy;
    ledger.settle_forwards(vec![(again, stored())]).await.unwrap();
    assert!(due(&ledger).is_empty());
}

#[tokio::test]
async fn files_that_a_destination_has_no_row_for_yet_stay() {
    use crate::ledger::RemovalRule;

    let (_folder, ledger) = ledger();
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    ledger.store(instance("1", "a", "aa")).await.unwrap();
    let claim = next(&ledger, 1).await.remove(0);
    ledger.complete(vec![score(&claim, 0.9)]).await.unwrap();
    let decide = async |provisional| {
        let study = ledger.open_studies("00").unwrap().remove(0);
        assert!(ledger.decide(verdict(&study, provisional, true), vec![]).await.unwrap());
    };
    decide(true).await;
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    let sent = async || {
        let due = ledger.due_forwards("pacs", 10, HOUR).unwrap();
        let stored = || ForwardEnd::Stored { transfer_syntax: "1.2".into() };
        ledger.settle_forwards(due.into_iter().map(|row| (row.copy, stored())).collect()).await.unwrap();
    };
    sent().await;
    // The verdict that ends the study, and then another object of it: the forwarder hangs, and has looked at neither.
    decide(false).await;
    let late = crate::ledger::format_time(jiff::Timestamp::now() + Duration::from_secs(60));
    let may_go = async || ledger.oldest_removable(RemovalRule::Age, &late).unwrap().is_some();
    assert!(!may_go().await, "a verdict that was not looked at");
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    assert!(may_go().await);
    ledger.store(instance("2", "a", "bb")).await.unwrap();
    let claim = next(&ledger, 1).await.remove(0);
    ledger.complete(vec![score(&claim, 0.9)]).await.unwrap();
    decide(false).await;
    assert!(!may_go().await, "an object that was not looked at");
    while ledger.enqueue_forwards(rule(true)).await.unwrap() {}
    assert!(!may_go().await, "it is to be sent");
    sent().await;
    assert!(may_go().await);
    // A destination that is not configured any more waits for nothing.
    ledger.store(instance("3", "a", "cc")).await.unwrap();
    let claim = next(&ledger, 1).await.remove(0);
    ledger.complete(vec![score(&claim, 0.9)]).await.unwrap();
    decide(false).await;
    assert!(!may_go().await);
    ledger.drop_destinations_but(vec![]).await.unwrap();
    assert!(may_go().await);
}
