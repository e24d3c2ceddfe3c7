//! One person's load is one person's problem: limits of the gateway, against the real programs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use e2e::{Api, Stack};
use serde_json::Value;

/// The events of one order, for one person.
struct Events {
    address: String,
    token: String,
    id: String,
}

impl Events {
    fn of(api: &Api, order: &Value) -> Self {
        let address = api.base.trim_start_matches("http://").to_owned();
        Self { address, token: api.token.clone().unwrap(), id: order["id"].as_str().unwrap().to_owned() }
    }
}

/// Opens an event stream. Returns the status, and the connection.
fn open(Events { address, token, id }: &Events) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        stream,
        "GET /api/orders/{id}/events HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    (String::from_utf8_lossy(&head[9..]).into_owned(), stream)
}

#[actix_web::test]
async fn a_person_who_opens_600_streams_has_five_and_everybody_else_is_served() {
    let stack = Stack::start_with(&[("RATE_LIMITS", "on")]).await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let events = Events::of(&ann.api, &order);
    let opening = std::thread::spawn(move || {
        let mut open_streams = Vec::new();
        let mut accepted = 0;
        for _ in 0..600 {
            let (status, stream) = open(&events);
            match status.as_str() {
                "200" => {
                    accepted += 1;
                    open_streams.push(stream);
                }
                status => assert_eq!(status, "429"),
            }
        }
        done.send(()).unwrap();
        (accepted, open_streams)
    });
    let mut served = 0;
    while is_done.try_recv().is_err() {
        let seen = stack.public.get("/api/products").await;
        assert_eq!(seen.status, 200, "after {served}: {seen:?}");
        served += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (accepted, open_streams) = opening.join().unwrap();
    assert!(served > 5, "{served}");
    assert_eq!((accepted, open_streams.len()), (5, 5));
    let bob = stack.register().await;
    let order = bob.place(&bob.product().await, 1, "tok_visa").await;
    assert_eq!(open(&Events::of(&bob.api, &order)).0, "200", "another person has streams of its own");
}

#[actix_web::test]
async fn a_proxy_that_is_not_trusted_is_named_in_the_log_once() {
    let stack = Stack::start().await;
    for _ in 0..3 {
        stack.public.with("x-forwarded-for", "203.0.113.9").get("/api/products").await.expect(200);
    }
    let warnings = stack.log("gateway").lines().filter(|line| line.contains("trusted_proxies")).count();
    assert_eq!(warnings, 1);
}
