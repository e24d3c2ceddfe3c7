//! Outages of the broker, redelivery, and events that cannot be handled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::web::Bytes;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use shared::db::query;
use shared::testing::Gate;
use url::Url;

use crate::harness::*;

/// A connection to the broker, and the name of the case's stream.
async fn broker(case: &Case) -> (async_nats::Client, String) {
    let url = Url::parse(&case.transport).unwrap();
    let client = async_nats::connect(&url[..url::Position::BeforePath]).await.unwrap();
    (client, url.path()[1..].to_owned())
}

/// The consumer of the subject "a".
async fn consumer(case: &Case) -> PullConsumer {
    let (client, stream) = broker(case).await;
    let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
    stream.get_consumer("receiver-10").await.unwrap()
}

async fn health(receiver: &Receiver) -> (u16, Value) {
    let reply = receiver.admin.get("/health/ready").await;
    (reply.status, reply.body)
}

#[actix_web::test]
async fn a_service_starts_degraded_without_nats_and_sends_its_events_when_nats_is_up() {
    let Some(case) = nats_case().await else { return };
    let mut gate = Gate::before(&case.transport).await;
    let url = gate.url(&case.transport);
    gate.shut().await;
    let receiver = receiver(&case.receives, &url).await;
    let (outbox, _relay) = relay(&case.sender, transport(&url).await);
    for number in 0..3 {
        put(&case.sender, &outbox, event("thing.done.v1", "a", number)).await;
    }
    let (status, body) = health(&receiver).await;
    assert_eq!((status, &body["status"]), (200, &"degraded".into()), "{body}");
    assert_eq!(body["checks"]["nats"], "degraded");

    gate.open().await;
    assert_eq!(effects(&case.receives, "a", 3).await, [0, 1, 2]);
    drained(&case.sender).await;
    eventually("it is well", || async { (health(&receiver).await.1["status"] == "ok").then_some(()) }).await;
}

#[actix_web::test]
async fn an_outage_of_nats_loses_no_event_and_keeps_the_order() {
    let Some(case) = nats_case().await else { return };
    let mut gate = Gate::before(&case.transport).await;
    let url = gate.url(&case.transport);
    let receiver = receiver(&case.receives, &url).await;
    let (outbox, _relay) = relay(&case.sender, transport(&url).await);
    for number in 0..90 {
        put(&case.sender, &outbox, event("thing.done.v1", "a", number)).await;
        match number {
            30 => gate.shut().await,
            60 => {
                let away = || async { (health(&receiver).await.1["status"] == "degraded").then_some(()) };
                eventually("it is noticed", away).await;
                gate.open().await;
            }
            _ => {}
        }
    }
    assert_eq!(effects(&case.receives, "a", 90).await, (0..90).collect::<Vec<_>>());
    drained(&case.sender).await;
}

#[actix_web::test]
async fn an_event_that_always_fails_becomes_a_dead_letter_at_the_tenth_failure_and_later_events_pass() {
    let Some(case) = nats_case().await else { return };
    let receiver = receiver(&case.receives, &case.transport).await;
    let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
    put(&case.sender, &outbox, event("thing.broken.v1", "a", 1)).await;
    put(&case.sender, &outbox, event("thing.done.v1", "a", 2)).await;
    assert_eq!(effects(&case.receives, "a", 1).await, [2]);
    let kept = ("thing.broken.v1".to_owned(), 10, "receiver".to_owned());
    assert_eq!(dead_letters(&case.receives).await, [kept]);
}

#[actix_web::test]
async fn only_failures_of_the_handler_are_attempts_and_redeliveries_are_none() {
    for case in cases().await.into_iter().filter(|case| case.transport != "http://") {
        let receiver = receiver(&case.receives, &case.transport).await;
        let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
        put(&case.sender, &outbox, event("thing.late.v1", "a", 1)).await;
        put(&case.sender, &outbox, event("thing.done.v1", "a", 2)).await;
        assert_eq!(effects(&case.receives, "a", 1).await, [2]);
        assert_eq!(
            dead_letters(&case.receives).await,
            [("thing.late.v1".to_owned(), 10, "receiver".to_owned())]
        );
        let all = LATE + 10 + 1;
        assert_eq!(receiver.begun.load(Ordering::Relaxed), all, "it had its ten attempts after the outage");
    }
}

#[actix_web::test]
async fn an_event_that_takes_longer_than_the_broker_waits_is_delivered_once() {
    let Some(case) = nats_case().await else { return };
    let _replicas =
        (receiver(&case.receives, &case.transport).await, receiver(&case.receives, &case.transport).await);
    let (outbox, _relay) = relay(&case.sender, transport(&case.transport).await);
    put(&case.sender, &outbox, event("thing.slow.v1", "a", 1)).await;
    assert_eq!(effects(&case.receives, "a", 1).await, [1]);
    assert_eq!(consumer(&case).await.get_info().await.unwrap().delivered.consumer_sequence, 1);
}

#[actix_web::test]
async fn the_events_that_the_broker_stores_are_in_the_metrics() {
    let Some(case) = nats_case().await else { return };
    let receiver = receiver(&case.receives, &case.transport).await;
    let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
    receiver.metric("broker_pending", |count| count == 0.0).await;
    put(&case.sender, &outbox, event("thing.stuck.v1", "a", 1)).await;
    put(&case.sender, &outbox, event("thing.done.v1", "a", 2)).await;
    receiver.metric("broker_pending", |count| count == 2.0).await;
    receiver.metric("broker_oldest_age_seconds", |age| (1.0..60.0).contains(&age)).await;
    let week = 7.0 * 24.0 * 3600.0;
    receiver.metric("broker_oldest_expires_seconds", |left| (week - 60.0..week).contains(&left)).await;
}

#[actix_web::test]
async fn the_time_until_the_broker_drops_an_event_is_in_the_metrics() {
    let Some(case) = nats_case().await else { return };
    let (client, stream) = broker(&case).await;
    let config = async_nats::jetstream::stream::Config {
        subjects: vec![format!("{stream}.>")],
        name: stream,
        retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue,
        max_age: Duration::from_secs(3600),
        ..Default::default()
    };
    async_nats::jetstream::new(client).create_stream(config).await.unwrap();
    let receiver = receiver(&case.receives, &case.transport).await;
    let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
    put(&case.sender, &outbox, event("thing.stuck.v1", "a", 1)).await;
    receiver.metric("broker_oldest_expires_seconds", |left| (3000.0..3600.0).contains(&left)).await;
}

#[actix_web::test]
async fn a_payload_that_is_no_event_becomes_a_dead_letter() {
    let Some(case) = nats_case().await else { return };
    let receiver = receiver(&case.receives, &case.transport).await;
    let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
    put(&case.sender, &outbox, event("thing.done.v1", "a", 1)).await;
    effects(&case.receives, "a", 1).await;

    let (client, stream) = broker(&case).await;
    let subject = format!("{stream}.receiver.0");
    for nonsense in [&b"{}"[..], b"\0\xff", b"\0\xff"] {
        client.publish(subject.clone(), Bytes::from_static(nonsense)).await.unwrap();
    }
    let kept = eventually("both are kept, and the same one once", || async {
        let kept = dead_letters(&case.receives).await;
        (kept.len() == 2).then_some(kept)
    })
    .await;
    for letter in kept {
        assert_eq!(letter, ("unreadable".to_owned(), 1, "receiver".to_owned()));
    }
}

#[actix_web::test]
async fn an_event_that_the_database_cannot_store_does_not_block_others() {
    for case in cases().await.into_iter().filter(|case| case.transport != "http://") {
        let receiver = receiver(&case.receives, &case.transport).await;
        let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
        put(&case.sender, &outbox, event("thing.done.v1", "a", 1)).await;
        effects(&case.receives, "a", 1).await;

        let (client, stream) = broker(&case).await;
        let jetstream = async_nats::jetstream::new(client);
        // The partition of the subject "a".
        let subject = format!("{stream}.receiver.10");
        for kind in ["thing.invented.v9", "thing.spoilt.v1", "thing.\0.v1"] {
            let mut strange = event(kind, "a\0", 2);
            strange.data = json!({ "a\0": ["b\0"] });
            // Wait for the acknowledgement, so that the relay's next event comes later.
            let stored = jetstream.publish(subject.clone(), strange.to_json().to_string().into());
            stored.await.unwrap().await.unwrap();
        }
        put(&case.sender, &outbox, event("thing.done.v1", "a", 3)).await;
        assert_eq!(effects(&case.receives, "a", 2).await, [1, 3]);
        let shown: Vec<_> =
            receiver.dead_letters().await.iter().map(|letter| letter["subject"].clone()).collect();
        assert_eq!(shown, ["a\u{fffd}"; 3]);
    }
}

#[actix_web::test]
async fn an_event_of_a_source_that_the_table_does_not_list_has_no_effect() {
    let Some(case) = nats_case().await else { return };
    let receiver = receiver(&case.receives, &case.transport).await;
    let (outbox, _relay) = relay(&case.sender, transport(&receiver.url).await);
    let mut forged = event("thing.done.v1", "a", 1);
    forged.source = "stranger".to_owned();
    put(&case.sender, &outbox, forged).await;
    put(&case.sender, &outbox, event("thing.unlisted.v1", "a", 2)).await;
    put(&case.sender, &outbox, event("thing.done.v1", "a", 3)).await;
    assert_eq!(effects(&case.receives, "a", 1).await, [3]);
    assert_eq!(dead_letters(&case.receives).await.len(), 2);
}

#[actix_web::test]
async fn an_event_of_a_crashed_replica_is_redelivered_to_another_and_no_attempt_is_counted() {
    let Some(case) = nats_case().await else { return };
    let first = receiver(&case.receives, &case.transport).await;
    let (outbox, _relay) = relay(&case.sender, transport(&first.url).await);
    put(&case.sender, &outbox, event("thing.done.v1", "a", 1)).await;
    effects(&case.receives, "a", 1).await;
    first.handle.stop().await;

    let consumer = consumer(&case).await;
    put(&case.sender, &outbox, event("thing.done.v1", "a", 2)).await;
    let taken = consumer.batch().max_messages(1).expires(Duration::from_secs(10));
    let mut taken = taken.messages().await.unwrap();
    drop(taken.next().await.unwrap().unwrap());

    let _second = receiver(&case.receives, &case.transport).await;
    assert_eq!(effects(&case.receives, "a", 2).await, [1, 2]);
    let row = query("SELECT attempt FROM effects WHERE number = 2").fetch_one(&case.receives).await.unwrap();
    assert_eq!(row.get::<i64>("attempt").unwrap(), 1);
}
