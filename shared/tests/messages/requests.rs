//! Over HTTP: several events in one request, and the result of each.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::{App, HttpMessage as _, HttpRequest, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use serde_json::{Value, json};
use shared::db::testing::{databases, postgres_url, sqlite_url};
use shared::db::{Db, query};
use shared::messages::{Event, Outgoing, SendError, SendResult, Transport};
use shared::testing::Api;

use crate::harness::*;

const CLOUD_EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// Posts a batch to a receiver as the sender; returns the items of the answer.
async fn post(receiver: &Receiver, batch: &[Value]) -> Vec<Value> {
    let api = Api::at(&receiver.url).with_token(KEYS.service_token("sender", "receiver", None));
    let api = api.with("content-type", BATCH);
    let answer = api.send_text(Method::POST, "/messages", json!(batch).to_string()).await;
    answer.expect(200).as_array().unwrap().clone()
}

fn statuses(items: &[Value]) -> Vec<i64> {
    items.iter().map(|item| item["status"].as_i64().unwrap()).collect()
}

fn done(subject: &str, number: i64) -> Event {
    event("thing.done.v1", subject, number)
}

/// How many transactions wrote inbox rows.
async fn transactions(receives: &Db) -> i64 {
    let distinct = query("SELECT COUNT(DISTINCT seen_at) AS transactions FROM inbox");
    distinct.fetch_one(receives).await.unwrap().get("transactions").unwrap()
}

#[actix_web::test]
async fn a_batch_is_applied_in_one_transaction_and_each_event_has_a_result() {
    for db in databases().await {
        let receiver = receiver(&db, "http://").await;
        let batch: Vec<_> = (0..8).map(|number| done(&number.to_string(), number).to_json()).collect();
        let items = post(&receiver, &batch).await;
        assert_eq!(items, vec![json!({ "status": 204 }); 8]);
        assert_eq!(transactions(&db).await, 1);
        for number in 0..8 {
            assert_eq!(effects(&db, &number.to_string(), 1).await, [number]);
        }
    }
}

#[actix_web::test]
async fn a_bad_event_of_a_batch_costs_only_itself() {
    for db in databases().await {
        let receiver = receiver(&db, "http://").await;
        let batch = [
            done("a", 1).to_json(),
            event("thing.spoilt.v1", "b", 1).to_json(),
            json!({ "specversion": "0.3" }),
            event("thing.deadly.v1", "c", 1).to_json(),
            event("thing.broken.v1", "d", 1).to_json(),
            event("thing.invented.v9", "e", 1).to_json(),
            done("f", 2).to_json(),
        ];
        let items = post(&receiver, &batch).await;
        assert_eq!(statuses(&items), [204, 422, 422, 422, 500, 204, 204]);
        assert_eq!(items[1]["code"], "message_rejected");
        assert_eq!(items[4]["code"], "internal");
        assert!(items[1..5].iter().all(|item| item["detail"].is_string()), "{items:?}");
        assert_eq!([effects(&db, "a", 1).await, effects(&db, "f", 1).await], [[1], [2]]);
        assert_eq!(dead_letters(&db).await.len(), 1, "the receiver keeps the event of an unknown type");
    }
}

#[actix_web::test]
async fn the_second_event_of_a_subject_in_a_batch_waits_if_the_first_fails() {
    for db in databases().await {
        let receiver = receiver(&db, "http://").await;
        let batch = [
            event("thing.stuck.v1", "a", 1),
            done("a", 2),
            done("b", 3),
            done("b", 4),
            event("thing.broken.v1", "c", 5),
            done("c", 6),
            // The sender will not send this again: it becomes a dead letter, and the next events pass.
            event("thing.spoilt.v1", "d", 7),
            done("d", 8),
        ];
        let items = post(&receiver, &batch.map(|event| event.to_json())).await;
        assert_eq!(statuses(&items), [503, 503, 204, 204, 500, 503, 422, 204]);
        assert!(effects(&db, "a", 0).await.is_empty() && effects(&db, "c", 0).await.is_empty());
        assert_eq!(effects(&db, "b", 2).await, [3, 4]);
        assert_eq!(effects(&db, "d", 1).await, [8]);
    }
}

#[actix_web::test]
async fn of_a_batch_only_the_events_that_the_sender_may_send_have_an_effect() {
    let db = open(&sqlite_url()).await;
    let receiver = receiver(&db, "http://").await;
    let mut forged = done("c", 3);
    forged.source = "another".to_owned();
    let batch = [done("a", 1), event("thing.found.v1", "b", 2), forged, done("d", 4)];
    let items = post(&receiver, &batch.map(|event| event.to_json())).await;
    assert_eq!(statuses(&items), [204, 403, 403, 204]);
    assert_eq!(items[1]["code"], "forbidden");
    let inbox = query("SELECT COUNT(*) AS rows FROM inbox").fetch_one(&db).await.unwrap();
    assert_eq!(inbox.get::<i64>("rows").unwrap(), 2);
}

#[actix_web::test]
async fn a_body_that_is_no_batch_is_rejected_and_a_repeated_batch_has_one_effect() {
    let db = open(&sqlite_url()).await;
    let receiver = receiver(&db, "http://").await;
    let api = Api::at(&receiver.url).with_token(KEYS.service_token("sender", "receiver", None));
    let api = api.with("content-type", BATCH);
    for body in ["", "{}", "[", &done("a", 1).to_json().to_string()] {
        let answer = api.send_text(Method::POST, "/messages", body.to_owned()).await;
        answer.expect_problem(422, "message_rejected");
    }
    assert!(post(&receiver, &[]).await.is_empty());
    let event = done("a", 2).to_json();
    for _ in 0..2 {
        assert_eq!(statuses(&post(&receiver, &[event.clone(), event.clone()]).await), [204, 204]);
    }
    assert_eq!(effects(&db, "a", 1).await, [2]);
}

#[actix_web::test]
async fn a_batch_with_more_events_than_fit_into_a_transaction_is_refused_whole() {
    let db = open(&sqlite_url()).await;
    let receiver = receiver(&db, "http://").await;
    let batch: Vec<_> = (0..33).map(|number| done(&number.to_string(), number).to_json()).collect();
    let api = Api::at(&receiver.url).with_token(KEYS.service_token("sender", "receiver", None));
    let api = api.with("content-type", BATCH);
    let answer = api.send_text(Method::POST, "/messages", json!(batch).to_string()).await;
    answer.expect_problem(413, "body_too_large");
    assert_eq!(transactions(&db).await, 0);
}

#[actix_web::test]
async fn an_event_whose_row_is_locked_holds_up_the_results_of_its_batch_for_a_second() {
    let Some(url) = postgres_url().await else { return };
    let db = open(&url).await;
    let receiver = receiver(&db, "http://").await;
    for statement in [
        "CREATE TABLE counts (subject text PRIMARY KEY, number bigint NOT NULL)",
        "INSERT INTO counts VALUES ('a', 0)",
    ] {
        query(statement).execute(&db).await.unwrap();
    }
    let mut holder = db.begin().await.unwrap();
    query("SELECT subject FROM counts FOR UPDATE").fetch_all(&mut holder).await.unwrap();
    let batch = [event("thing.counted.v1", "a", 1), done("b", 2)].map(|event| event.to_json());
    let begun = Instant::now();
    assert_eq!(statuses(&post(&receiver, &batch).await), [503, 204]);
    // Sooner than a wait for the lock would end.
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    drop(holder);
    assert_eq!(effects(&db, "a", 1).await, [1], "the inbox continues");
    assert_eq!(statuses(&post(&receiver, &batch).await), [204, 204]);
    assert_eq!(effects(&db, "a", 1).await, [1]);
}

/// The requests that a stub of a receiver got: content type and number of events.
type Requests = Arc<Mutex<Vec<(String, usize)>>>;

/// A receiver that answers a batch of several events with `answer`, and accepts a single event.
async fn stub(answer: fn(Vec<Value>) -> HttpResponse) -> (Rc<dyn Transport>, Requests) {
    let requests = Requests::default();
    let seen = requests.clone();
    let receive = move |request: HttpRequest, body: web::Bytes| {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let count = body.as_array().map_or(1, Vec::len);
        seen.lock().unwrap().push((request.content_type().to_owned(), count));
        let answer = match body {
            Value::Array(events) => answer(events),
            _ => HttpResponse::NoContent().finish(),
        };
        async move { answer }
    };
    let receiver = HttpServer::new(move || App::new().default_service(web::to(receive.clone())));
    let receiver = receiver.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let transport = transport(&format!("http://{}", receiver.addrs()[0])).await;
    actix_web::rt::spawn(receiver.run());
    (transport, requests)
}

fn accept(events: Vec<Value>) -> HttpResponse {
    HttpResponse::Ok().json(vec![json!({ "status": 204 }); events.len()])
}

fn of_type(content_type: &str, counts: &[usize]) -> Vec<(String, usize)> {
    counts.iter().map(|count| (content_type.to_owned(), *count)).collect()
}

#[actix_web::test]
async fn several_pending_events_are_sent_in_one_request_and_a_single_one_as_a_plain_event() {
    let (transport, requests) = stub(accept).await;
    let sender = open(&sqlite_url()).await;
    let (outbox, _relay) = relay(&sender, transport);
    put(&sender, &outbox, done("a", 1)).await;
    drained(&sender).await;
    put_together(&sender, &outbox, (0..10).map(|number| done(&number.to_string(), number))).await;
    drained(&sender).await;
    let expected = [of_type(CLOUD_EVENT, &[1]), of_type(BATCH, &[10])].concat();
    assert_eq!(*requests.lock().unwrap(), expected);
}

#[actix_web::test]
async fn a_receiver_that_knows_no_batches_gets_its_events_one_by_one_and_no_batch_for_a_while() {
    // As the previous version does, and as others may.
    let refusals: [fn(Vec<Value>) -> HttpResponse; 4] = [
        |_| HttpResponse::UnprocessableEntity().finish(),
        |_| HttpResponse::UnsupportedMediaType().finish(),
        |_| HttpResponse::InternalServerError().finish(),
        |_| HttpResponse::NoContent().finish(),
    ];
    for refusal in refusals {
        let (transport, requests) = stub(refusal).await;
        let sender = open(&sqlite_url()).await;
        let (outbox, _relay) = relay(&sender, transport);
        for round in 0..2 {
            put_together(&sender, &outbox, (0..10).map(|number| done(&number.to_string(), round))).await;
            drained(&sender).await;
        }
        let expected = [of_type(BATCH, &[10]), of_type(CLOUD_EVENT, &[1; 20])].concat();
        assert_eq!(*requests.lock().unwrap(), expected);
        assert!(dead_letters(&sender).await.is_empty());
    }
}

#[actix_web::test]
async fn a_batch_that_is_too_large_for_its_receiver_is_split() {
    let (transport, requests) = stub(|events| match events.len() {
        ..=3 => accept(events),
        _ => HttpResponse::PayloadTooLarge().finish(),
    })
    .await;
    let sender = open(&sqlite_url()).await;
    let (outbox, _relay) = relay(&sender, transport);
    put_together(&sender, &outbox, (0..10).map(|number| done(&number.to_string(), number))).await;
    drained(&sender).await;
    let mut counts: Vec<_> = requests.lock().unwrap().iter().map(|(_, count)| *count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3, 3, 5, 5, 10]);
}

#[actix_web::test]
async fn large_events_share_requests_up_to_the_size_limit_and_each_is_delivered() {
    let (sender, receives) = (open(&sqlite_url()).await, open(&sqlite_url()).await);
    let receiver = receiver(&receives, "http://").await;
    let (outbox, _relay) = relay(&sender, transport(&receiver.url).await);
    let large = |number: i64| {
        let mut event = done(&number.to_string(), number);
        event.data["text"] = "x".repeat(60_000).into();
        event
    };
    put_together(&sender, &outbox, (0..16).map(large)).await;
    drained(&sender).await;
    assert!(dead_letters(&sender).await.is_empty());
    for number in 0..16 {
        assert_eq!(effects(&receives, &number.to_string(), 1).await, [number]);
    }
}

/// Delivers every batch, but loses the answer to the first.
struct LosesFirstAnswer {
    transport: Rc<dyn Transport>,
    sizes: Cell<Vec<usize>>,
}

#[async_trait(?Send)]
impl Transport for LosesFirstAnswer {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        self.transport.send(outgoing).await
    }

    fn max_batch(&self, destination: &str) -> usize {
        self.transport.max_batch(destination)
    }

    async fn send_batch(&self, batch: &[&Outgoing]) -> Vec<SendResult> {
        let mut sizes = self.sizes.take();
        sizes.push(batch.len());
        let is_first = sizes.len() == 1;
        self.sizes.set(sizes);
        let results = self.transport.send_batch(batch).await;
        let lost = || Err(SendError::Unavailable("lost".to_owned()));
        if is_first { batch.iter().map(|_| lost()).collect() } else { results }
    }
}

#[actix_web::test]
async fn a_batch_whose_answer_is_lost_is_sent_again_and_has_one_effect() {
    for Case { sender, receives, .. } in cases().await.into_iter().filter(|case| case.transport == "http://")
    {
        let transport = transport(&receiver(&receives, "http://").await.url).await;
        let loses = Rc::new(LosesFirstAnswer { transport, sizes: Cell::default() });
        let (outbox, _relay) = relay(&sender, loses.clone());
        for number in 1..=2 {
            let events = (0..10).map(|subject| done(&subject.to_string(), number));
            put_together(&sender, &outbox, events).await;
        }
        drained(&sender).await;
        for subject in 0..10 {
            assert_eq!(effects(&receives, &subject.to_string(), 2).await, [1, 2]);
        }
        assert_eq!(loses.sizes.take()[0], 10);
    }
}

#[actix_web::test]
async fn an_event_that_fails_in_a_batch_is_one_attempt_further_and_sent_alone_from_then_on() {
    let (transport, requests) = stub(|events| {
        let status = |event: &Value| if event["subject"] == "b" { 500 } else { 204 };
        HttpResponse::Ok()
            .json(events.iter().map(|event| json!({ "status": status(event) })).collect::<Vec<_>>())
    })
    .await;
    let sender = open(&sqlite_url()).await;
    let (outbox, _relay) = relay(&sender, transport);
    put_together(&sender, &outbox, ["a", "b", "c"].map(|subject| done(subject, 1))).await;
    drained(&sender).await;
    let expected = [of_type(BATCH, &[3]), of_type(CLOUD_EVENT, &[1])].concat();
    assert_eq!(*requests.lock().unwrap(), expected);
    let rows = query("SELECT attempts FROM outbox ORDER BY subject").fetch_all(&sender).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get("attempts").unwrap()).collect::<Vec<i64>>(), [0, 1, 0]);
}
