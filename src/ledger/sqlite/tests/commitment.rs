//! Requests of storage commitment: whose turn it is, how many wait, and what is kept of those that are over.

use super::*;
use crate::ledger::{CommitmentEnd, NewCommitment, PendingCommitments};

fn request(transaction: &str, title: &str, items: &str) -> NewCommitment {
    NewCommitment {
        transaction_uid: transaction.into(),
        calling_ae: title.into(),
        called_ae: "TRIAGED".into(),
        peer: None,
        address: format!("address of {title}"),
        items: items.into(),
        next_attempt_at: now(),
    }
}

const TWO: &str = r#"[{"sop_class_uid":"1","sop_instance_uid":"2"},{"sop_class_uid":"1","sop_instance_uid":"3"}]"#;

#[tokio::test]
async fn a_peer_with_many_requests_hides_no_other() {
    let (_folder, ledger) = ledger();
    for number in 0..5 {
        ledger.request_commitment(request(&format!("1.{number}"), "ALPHA", TWO)).await.unwrap().unwrap();
    }
    ledger.request_commitment(request("2", "BETA", TWO)).await.unwrap().unwrap();
    // Its milliseconds may be the ones of now.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let due: Vec<String> = ledger.due_commitments(2, HOUR).unwrap().into_iter().map(|due| due.who).collect();
    assert_eq!(due, ["ALPHA", "ALPHA", "BETA"]);
}

#[tokio::test]
async fn what_waits_is_counted_by_title_or_address_and_in_all() {
    let (_folder, ledger) = ledger();
    let bytes = TWO.len() as u64;
    ledger.request_commitment(request("1", "ALPHA", TWO)).await.unwrap();
    let elsewhere = NewCommitment { address: "elsewhere".into(), ..request("2", "ALPHA", TWO) };
    ledger.request_commitment(elsewhere).await.unwrap();
    let disguised = NewCommitment { address: "address of ALPHA".into(), ..request("3", "GAMMA", TWO) };
    ledger.request_commitment(disguised).await.unwrap();
    let beta = ledger.request_commitment(request("4", "BETA", TWO)).await.unwrap().unwrap();
    let of = |requests| PendingCommitments { requests, bytes: requests * bytes };
    assert_eq!(ledger.pending_commitments("ALPHA", "address of ALPHA").unwrap(), [of(3), of(4)]);
    ledger.end_commitment(beta, CommitmentEnd::Delivered { committed: 2, failed: 0 }).await.unwrap();
    assert_eq!(ledger.pending_commitments("BETA", "address of BETA").unwrap(), [of(0), of(3)]);
}

#[tokio::test]
async fn of_what_is_over_the_count_is_kept() {
    let (folder, ledger) = ledger();
    let mut ids = Vec::new();
    for transaction in ["delivered", "dead", "pending"] {
        ids.push(ledger.request_commitment(request(transaction, "ALPHA", TWO)).await.unwrap().unwrap());
    }
    ledger.end_commitment(ids[0], CommitmentEnd::Delivered { committed: 2, failed: 0 }).await.unwrap();
    ledger.end_commitment(ids[1], CommitmentEnd::GivenUp { error: "no address".into() }).await.unwrap();
    let long_ago = "2026-01-01T00:00:00.000Z".to_owned();
    assert_eq!(ledger.forget_commitment_items(long_ago, 10).await.unwrap(), 0, "they ended just now");
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(ledger.forget_commitment_items(now(), 1).await.unwrap(), 1, "a few in a write");
    assert_eq!(ledger.forget_commitment_items(now(), 10).await.unwrap(), 1);
    assert_eq!(ledger.forget_commitment_items(now(), 10).await.unwrap(), 0);
    let administrator = Connection::open(folder.path().join("triaged.db")).unwrap();
    let of = |sql: &str| administrator.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let said = "SELECT group_concat(state || ' ' || instances) FROM (SELECT * FROM commitment_log ORDER BY id)";
    assert_eq!(of(said), "delivered 2,dead 2,pending 2");
    assert_eq!(of("SELECT group_concat(items = '[]') FROM (SELECT * FROM commitments ORDER BY id)"), "1,1,0");
    // Whoever asks anew is reported to anew.
    assert_eq!(ledger.request_commitment(request("dead", "ALPHA", TWO)).await.unwrap(), Some(ids[1]));
    assert_eq!(ledger.commitment(ids[1]).unwrap().unwrap().items, TWO);
    assert_eq!(of(said), "delivered 2,pending 2,pending 2");
}
