//! Orders as in the README, with the real programs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use e2e::Stack;
use serde_json::json;

#[actix_web::test]
async fn a_new_customer_registers_and_orders_and_the_order_is_confirmed() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    let product = ann.product().await;
    let started = Instant::now();
    let placed = ann.place(&product, 2, "tok_visa").await;
    let price = product["price"]["amount"].as_i64().unwrap();
    assert_eq!(placed["total"], json!({ "amount": 2 * price, "currency": "EUR" }));
    let confirmed = ann.order_reaches(&placed, "confirmed").await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());

    let payments =
        ann.api.get(&format!("/api/payments?order_id={}", confirmed["id"].as_str().unwrap())).await;
    let payment = &payments.expect(200)["payments"][0];
    assert_eq!((&payment["status"], &payment["amount"]), (&"captured".into(), &placed["total"]));

    ann.cancel(&placed).await.expect(202);
    ann.order_reaches(&placed, "refunded").await;
}

#[actix_web::test]
async fn a_declined_card_rejects_the_order_and_puts_the_stock_back() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    let product = ann.product().await;
    let placed = ann.place(&product, 3, "tok_declined").await;
    let rejected = ann.order_reaches(&placed, "rejected").await;
    assert_eq!(rejected["reason"], "card_declined");
    let after = ann.api.get(&format!("/api/products/{}", product["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(after["available"], product["available"]);
}
