//! Server-sent events.

use std::pin::Pin;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::Bytes;
use awc::error::PayloadError;
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;

use crate::harness::*;

/// One event, as a browser parses it.
#[derive(Debug, PartialEq)]
struct Received {
    id: String,
    event: String,
    data: Value,
}

struct OpenStream {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>,
}

async fn open(api: &Api, order: &Value, last_event_id: Option<&str>) -> OpenStream {
    let api = last_event_id.map_or_else(|| api.clone(), |id| api.with("last-event-id", id));
    let response = api.request(Method::GET, &format!("{}/events", path(order))).send().await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
    OpenStream { chunks: response.boxed_local() }
}

impl OpenStream {
    /// The next `count` events, or all until the end.
    async fn read(&mut self, count: usize) -> Vec<Received> {
        let mut text = String::new();
        let reading = async {
            while let Some(chunk) = self.chunks.next().await {
                text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
                if text.matches("\n\n").count() >= count {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
        // A block without data is no event.
        text.split_terminator("\n\n").filter(|block| block.contains("data: ")).map(parse).collect()
    }
}

/// The first `count` events, or all until the end.
async fn read(api: &Api, order: &Value, last_event_id: Option<&str>, count: usize) -> Vec<Received> {
    open(api, order, last_event_id).await.read(count).await
}

fn parse(block: &str) -> Received {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {block:?}")).to_owned()
    };
    Received { id: field("id"), event: field("event"), data: serde_json::from_str(&field("data")).unwrap() }
}

fn names(events: &[Received]) -> Vec<&str> {
    events.iter().map(|event| event.event.as_str()).collect()
}

#[actix_web::test]
async fn a_stream_sends_every_change_of_status_and_ends_at_a_final_one() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 1).await;
        let changing = async {
            world.pay(&order).await;
            customer.cancel(&order).await.expect(202);
            world.payment(&order, "refunded").await;
        };
        let (events, ()) = futures_util::join!(read(&customer, &order, None, usize::MAX), changing);
        assert_eq!(
            names(&events),
            ["order.awaiting_payment", "order.confirmed", "order.refunding", "order.refunded"]
        );
        assert_eq!(events[0].data, order, "the order as of that change");
        assert_eq!(events[1].data["status"], "confirmed");
        assert_eq!(events[3].data, customer.order(&order).await);
    }
}

#[actix_web::test]
async fn a_stream_is_resumed_on_another_replica_without_a_gap() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 1).await;
        let first = read(&customer, &order, None, 1).await;
        assert_eq!(names(&first), ["order.awaiting_payment"]);

        world.pay(&order).await;
        let at_other = customer.at(&world.another_replica().await);
        let second = read(&at_other, &order, Some(&first[0].id), 1).await;
        assert_eq!(names(&second), ["order.confirmed"]);

        // One replica makes the change, the other sends it.
        let cancelling = async {
            customer.cancel(&order).await.expect(202);
            world.payment(&order, "refunded").await;
        };
        let (third, ()) =
            futures_util::join!(read(&at_other, &order, Some(&second[0].id), usize::MAX), cancelling);
        assert_eq!(names(&third), ["order.refunding", "order.refunded"]);
        let nothing = read(&customer, &order, Some(&third[1].id), usize::MAX).await;
        assert_eq!(nothing, [], "the stream has ended");
    }
}

#[actix_web::test]
async fn a_stream_says_when_to_come_back_and_ends_with_the_token_of_its_client() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer_for(Duration::from_secs(4)));
    let order = customer.place(&tea, 1).await;
    let stream = open(&customer, &order, None).await;
    let mut text = Vec::new();
    let reading = stream.chunks.for_each(|chunk| {
        text.extend_from_slice(&chunk.unwrap());
        std::future::ready(())
    });
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("retry: 2000\nid: 1\nevent: order.awaiting_payment\n"), "{text}");
    customer.get(&path(&order)).await.expect_problem(401, "expired_token");
}

#[actix_web::test]
async fn a_drain_ends_a_stream_cleanly() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let other = world.another_replica().await;
    let order = customer.place(&tea, 1).await;
    let mut stream = open(&customer.at(&other), &order, None).await;
    assert_eq!(names(&stream.read(1).await), ["order.awaiting_payment"]);
    let (events, ()) = futures_util::join!(stream.read(usize::MAX), other.handle.stop());
    assert_eq!(events, [], "ended, not cut off");
}

#[actix_web::test]
async fn a_head_request_gets_no_stream() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    let head = customer.send(Method::HEAD, &format!("{}/events", path(&order)), None).await;
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    customer.assert_status(&order, "awaiting_payment").await;
}
