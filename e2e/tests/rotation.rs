//! Every key that signs tokens is replaced while customers order.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use e2e::{PASSWORD, Person, Stack, key};
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use shared::auth::{FromPath as _, PublicKeys, Reread, ServiceKeys, SigningKeys};
use shared::messages::Event;

const BUYERS: usize = 3;
/// The time until every program has read the new keys.
const SPREAD: Duration = Duration::from_secs(2);
/// The time after which access tokens have expired in this test.
const LIFE: Duration = Duration::from_secs(8);

/// Logs in and orders, again and again, and counts; every order must be accepted at the first attempt.
async fn buy(stack: &Stack, ann: &Person, is_over: &Cell<bool>) -> Vec<Value> {
    let product = ann.product().await;
    let lines = json!([{ "product_id": product["id"], "quantity": 1 }]);
    let order = json!({ "lines": lines, "payment_token": "tok_visa" });
    let mut orders = Vec::new();
    while !is_over.get() {
        let ann = Person::log_in(&stack.public, &ann.email, PASSWORD).await;
        for _ in 0..3 {
            let reply = ann.api.with_key(key()).send(Method::POST, "/api/orders", Some(&order)).await;
            orders.push(reply.expect(201));
        }
    }
    orders
}

/// What a thief has who copied the private key of `service`.
fn stolen(stack: &Stack, service: &str) -> ServiceKeys {
    let own = SigningKeys::from_path(&stack.secrets().service_key(service)).unwrap();
    ServiceKeys::new(Arc::new(Reread::fixed(own)), Arc::new(Reread::fixed(PublicKeys::default())))
}

async fn published(stack: &Stack) -> Vec<Value> {
    stack.public.get("/.well-known/jwks.json").await.expect(200)["keys"].as_array().unwrap().clone()
}

#[actix_web::test]
async fn every_key_is_replaced_under_load_and_no_request_fails() {
    let stack = Stack::start_with(&[("ACCESS_TOKEN_TTL", "6s")]).await;
    let mut buyers = Vec::new();
    for _ in 0..BUYERS {
        buyers.push(stack.register().await);
    }
    let (stolen, before) = (stolen(&stack, "payment-service"), published(&stack).await);
    let is_over = Cell::new(false);
    let rotating = async {
        stack.rotate(SPREAD, LIFE).await;
        is_over.set(true);
    };
    let buying = join_all(buyers.iter().map(|ann| buy(&stack, ann, &is_over)));
    let (orders, ()) = join(buying, rotating).await;
    for (ann, orders) in buyers.iter().zip(&orders) {
        assert!(orders.len() > 10, "{}", orders.len());
        let ann = Person::log_in(&stack.public, &ann.email, PASSWORD).await;
        let confirmed = orders.iter().map(|order| ann.order_reaches(order, "confirmed"));
        join_all(confirmed).await;
    }
    let admin = stack.admin().await.api.token.unwrap();
    for service in ["order-service", "payment-service"] {
        let kept = stack.direct(service).with_token(&admin).get("/admin/dead-letters").await.expect(200);
        assert_eq!(kept["dead_letters"], json!([]), "{service}");
    }

    let after = published(&stack).await;
    assert!(after.len() == 1 && after != before, "{after:?}");
    let orders = stack.direct("order-service");
    let event = Event::new("payment-service", "payment.voided.v1", "x", json!({})).to_json();
    let old = stolen.mint("payment-service", "order-service", None);
    orders.with_token(old).post("/messages", event.clone()).await.expect_problem(401, "invalid_token");
    let new = stack.service_token("payment-service", "order-service", None);
    orders.with_token(new).post("/messages", event).await.expect_problem(422, "message_rejected");
}
