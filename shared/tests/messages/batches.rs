//! Group commit: events that arrive together share a transaction.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shared::db::testing::{postgres_url, sqlite_url};
use shared::db::{Db, Row, query};
use shared::messages::Relay;
use shared::testing;

use crate::harness::*;

/// The number of inbox rows that were written in one transaction with another: they have the same time.
async fn handled_together(receives: &Db) -> i64 {
    let shared = "SELECT COUNT(*) - COUNT(DISTINCT seen_at) AS rows FROM inbox";
    query(shared).fetch_one(receives).await.unwrap().get("rows").unwrap()
}

#[actix_web::test]
async fn events_that_arrive_together_share_a_transaction_with_one_effect_each_in_order() {
    for Case { sender, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sender, transport(&receiver.url).await);
        let mut rounds = 0;
        while rounds < 3 || handled_together(&receives).await == 0 {
            let events = (0..24).map(|subject| event("thing.done.v1", &subject.to_string(), rounds));
            put_together(&sender, &outbox, events).await;
            drained(&sender).await;
            rounds += 1;
            assert!(rounds < 50, "events never share a transaction");
        }
        for subject in 0..24 {
            let numbers = effects(&receives, &subject.to_string(), usize::try_from(rounds).unwrap()).await;
            assert_eq!(numbers, (0..rounds).collect::<Vec<_>>());
        }
        assert_eq!(receiver.begun.load(Ordering::Relaxed), receiver.handled.load(Ordering::Relaxed));
        assert!(
            receiver.prepared.load(Ordering::Relaxed) > 1,
            "the handler sees all events of a transaction"
        );
        let text = receiver.admin.text("/metrics").await;
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap().parse().unwrap()
        };
        let (events, batches) = (value("inbox_batch_events_sum"), value("inbox_batch_events_count"));
        assert!(events > batches, "{events} events in {batches} transactions");
    }
}

#[actix_web::test]
async fn of_the_events_of_a_transaction_the_relay_gets_only_the_head_of_each_subject() {
    for Case { sender, transport: way, .. } in cases().await {
        let url = if way == "http://" { "http://127.0.0.1:9" } else { &way };
        // This relay does not run.
        let (outbox, _relay) = Relay::new(sender.clone(), transport(url).await, &["receiver"]);
        let done = |subject, number| event("thing.done.v1", subject, number);
        put_together(&sender, &outbox, [done("a", 1), done("a", 2), done("b", 3)]).await;
        put_together(&sender, &outbox, [done("b", 4), done("c", 5)]).await;
        let rows = query("SELECT subject, claimed_by FROM outbox ORDER BY seq").fetch_all(&sender).await;
        let claimed = |subject: &str| {
            let of_subject =
                rows.as_ref().unwrap().iter().filter(|row| row.get::<String>("subject").unwrap() == subject);
            let is_claimed = |row: &Row| row.get::<Option<String>>("claimed_by").unwrap().is_some();
            of_subject.map(is_claimed).collect::<Vec<_>>()
        };
        assert_eq!(
            [claimed("a"), claimed("b"), claimed("c")],
            [vec![true, false], vec![true, false], vec![true]]
        );
    }
}

#[actix_web::test]
async fn an_event_whose_predecessor_was_sent_before_its_commit_does_not_wait_for_the_next_poll() {
    let Some(url) = postgres_url().await else { return };
    let (sender, receives) = (open(&url).await, open(&sqlite_url()).await);
    let receiver = receiver(&receives, "http://").await;
    let (outbox, _stopper) = relay(&sender, transport(&receiver.url).await);
    // This relay does not run.
    let (other, _relay) = Relay::new(sender.clone(), transport("http://127.0.0.1:9").await, &["receiver"]);
    let mut waits = Vec::new();
    for round in 0..20 {
        let subject = round.to_string();
        put(&sender, &other, event("thing.done.v1", &subject, 1)).await;
        let mut tx = sender.begin().await.unwrap();
        outbox.put(&mut tx, "receiver", event("thing.done.v1", &subject, 2));
        tx.write_deferred().await.unwrap();
        let sent = query("UPDATE outbox SET sent_at = created_at WHERE subject = $1");
        sent.bind(subject.as_str()).execute(&sender).await.unwrap();
        let begun = Instant::now();
        tx.commit().await.unwrap();
        effects(&receives, &subject, 1).await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    // The relay polls once a second, so half of the events would wait for longer than half a second.
    assert!(waits[10] < Duration::from_millis(300), "{waits:?}");
}

#[actix_web::test]
async fn a_bad_event_in_a_batch_costs_only_itself() {
    for Case { sender, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sender, transport(&receiver.url).await);
        let mut rounds = 0;
        // A handler that is called again is called because a batch with a bad event has failed.
        while receiver.begun.load(Ordering::Relaxed) <= 24 * rounds {
            let kind = |subject| match subject {
                3 => "thing.spoilt.v1",
                5 => "thing.contradicted.v1",
                11 => "thing.deadly.v1",
                17 => "thing.deadly_end.v1",
                _ => "thing.done.v1",
            };
            let number = i64::try_from(rounds).unwrap();
            let events = (0..24).map(|subject| event(kind(subject), &subject.to_string(), number));
            put_together(&sender, &outbox, events).await;
            drained(&sender).await;
            rounds += 1;
            let kept = if way == "http://" { &sender } else { &receives };
            eventually("all are handled", async || {
                let effects = all_rows(&receives, "effects").await;
                let letters = all_rows(kept, "dead_letters").await;
                (effects >= 20 * (number + 1) && letters >= 4 * (number + 1)).then_some(())
            })
            .await;
            assert!(rounds < 50, "no batch with a bad event");
        }
        let rounds = i64::try_from(rounds).unwrap();
        for subject in (0..24).filter(|subject| ![3, 5, 11, 17].contains(subject)) {
            let numbers = effects(&receives, &subject.to_string(), 1).await;
            assert_eq!(numbers, (0..rounds).collect::<Vec<_>>(), "once each, and in order");
        }
        let kept = if way == "http://" { &sender } else { &receives };
        assert_eq!(all_rows(kept, "dead_letters").await, 4 * rounds);
    }
}

async fn all_rows(db: &Db, table: &str) -> i64 {
    let count = query(format!("SELECT COUNT(*) AS rows FROM {table}"));
    count.fetch_one(db).await.unwrap().get("rows").unwrap()
}

/// Subjects whose rows another transaction has locked: more than the inbox handles alone at the same time.
const LOCKED: i64 = 6;

#[actix_web::test]
async fn a_locked_row_holds_up_only_the_events_that_need_it() {
    let Some(url) = postgres_url().await else { return };
    let (sender, receives) = (open(&sqlite_url()).await, open(&url).await);
    let receiver = receiver(&receives, "http://").await;
    let (outbox, _relay) = relay(&sender, transport(&receiver.url).await);
    query("CREATE TABLE counts (subject text PRIMARY KEY, number bigint NOT NULL)")
        .execute(&receives)
        .await
        .unwrap();
    for subject in 0..LOCKED {
        let insert = query("INSERT INTO counts VALUES ($1, 0)").bind(subject.to_string());
        insert.execute(&receives).await.unwrap();
    }
    let mut rounds = 0;
    while rounds < 4 || handled_together(&receives).await == 0 {
        let mut holder = receives.begin().await.unwrap();
        // In every second round nothing is locked, so that events share a transaction.
        if rounds % 2 == 0 {
            query("SELECT subject FROM counts FOR UPDATE").fetch_all(&mut holder).await.unwrap();
        }
        let kind = |subject| if subject < LOCKED { "thing.counted.v1" } else { "thing.done.v1" };
        let events = (0..24).map(|subject| event(kind(subject), &subject.to_string(), rounds));
        put_together(&sender, &outbox, events).await;
        // Sooner than a wait for the lock would end.
        testing::eventually("the others are handled", Duration::from_secs(10), async || {
            (all_rows(&receives, "effects").await >= 24 * rounds + 24 - LOCKED).then_some(())
        })
        .await;
        drop(holder);
        drained(&sender).await;
        rounds += 1;
        assert!(rounds < 50, "events never share a transaction");
    }
    for subject in 0..24 {
        let numbers = effects(&receives, &subject.to_string(), 1).await;
        assert_eq!(numbers, (0..rounds).collect::<Vec<_>>(), "once each, and in order");
    }
}
