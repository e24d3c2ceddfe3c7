//! Server-sent events.

use std::pin::Pin;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::Bytes;
use awc::error::PayloadError;
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;

use crate::harness::*;

/// What a browser makes of an event.
#[derive(Debug, PartialEq)]
struct Received {
    id: String,
    event: String,
    data: Value,
}

/// An open stream.
struct Listening {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>,
}

async fn open(api: &Api, order: &Value, last_event_id: Option<&str>) -> Listening {
    let request = api.request(Method::GET, &format!("{}/events", path(order)));
    let request = match last_event_id {
        Some(id) => request.insert_header(("last-event-id", id)),
        None => request,
    };
    let response = request.send().await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
    Listening { chunks: response.boxed_local() }
}

impl Listening {
    /// The next `count` events, or all to the end.
    async fn hear(&mut self, count: usize) -> Vec<Received> {
        let mut text = String::new();
        let hearing = async {
            while let Some(chunk) = self.chunks.next().await {
                text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
                if text.matches("\n\n").count() >= count {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), hearing).await.unwrap();
        text.split_terminator("\n\n").map(received).collect()
    }
}

/// Listens until `count` events have come, or to the end.
async fn listen(api: &Api, order: &Value, last_event_id: Option<&str>, count: usize) -> Vec<Received> {
    open(api, order, last_event_id).await.hear(count).await
}

fn received(block: &str) -> Received {
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
async fn a_stream_tells_all_changes_of_status_and_ends_at_a_final_one() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 1).await;
        let happening = async {
            world.pay(&order).await;
            customer.cancel(&order).await.expect(202);
            world.payment(&order, "refunded").await;
        };
        let (events, ()) = futures_util::join!(listen(&customer, &order, None, usize::MAX), happening);
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
async fn a_stream_is_resumed_on_another_replica_where_it_broke_off() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 1).await;
        let first = listen(&customer, &order, None, 1).await;
        assert_eq!(names(&first), ["order.awaiting_payment"]);

        world.pay(&order).await;
        let elsewhere = customer.at(&world.another_replica().await);
        let second = listen(&elsewhere, &order, Some(&first[0].id), 1).await;
        assert_eq!(names(&second), ["order.confirmed"]);

        // The change is made by one replica and told by the other.
        let cancelling = async {
            customer.cancel(&order).await.expect(202);
            world.payment(&order, "refunded").await;
        };
        let (third, ()) =
            futures_util::join!(listen(&elsewhere, &order, Some(&second[0].id), usize::MAX), cancelling);
        assert_eq!(names(&third), ["order.refunding", "order.refunded"]);
        let nothing = listen(&customer, &order, Some(&third[1].id), usize::MAX).await;
        assert_eq!(nothing, [], "after the end there is nothing to wait for");
    }
}

#[actix_web::test]
async fn a_drain_ends_a_stream_so_that_its_client_goes_on_elsewhere() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let other = world.another_replica().await;
    let order = customer.place(&tea, 1).await;
    let mut listening = open(&customer.at(&other), &order, None).await;
    assert_eq!(names(&listening.hear(1).await), ["order.awaiting_payment"]);
    let (rest, ()) = futures_util::join!(listening.hear(usize::MAX), other.handle.stop());
    assert_eq!(rest, [], "ended, not cut off");
}

#[actix_web::test]
async fn the_head_of_a_stream_is_not_followed_by_a_stream() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    let head = customer.send(Method::HEAD, &format!("{}/events", path(&order)), &[], None).await;
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    customer.sees(&order, "awaiting_payment").await;
}
