//! The outcome of each payment token, with the timing of production.

use std::time::Duration;

use futures_util::future::join_all;
use payment_service::config::Timing;
use serde_json::json;
use shared::db::testing;

use crate::harness::{Ordered, Setup, World, worlds};

async fn pays(world: &World, token: &str) -> Ordered {
    let ordered = Ordered::new();
    world.authorize(&ordered, token).await;
    world.event(&ordered, "payment.authorized.v1").await;
    world.capture(&ordered).await;
    let event = world.event(&ordered, "payment.captured.v2").await;
    assert_eq!(event["amount"], json!({ "amount": 1000, "currency": "EUR" }));
    let charges = world.statement(&ordered).await;
    assert_eq!(charges.len(), 1, "{token}: {charges:?}");
    assert_eq!((&charges[0]["captured"], &charges[0]["times_captured"]), (&json!(1000), &json!(1)));
    assert_eq!(world.payment(&ordered).await["status"], "captured");
    ordered
}

#[actix_web::test]
async fn every_card_that_finally_approves_is_charged_once() {
    join_all(testing::urls().await.into_iter().map(every_good_card_pays)).await;
}

async fn every_good_card_pays(database_url: String) {
    let world = World::with(Setup { database_url, ..Setup::default() }).await;
    let good = ["tok_visa", "tok_slow", "tok_flaky", "tok_timeout_after_charge", "tok_capture_flaky"];
    join_all(good.map(|token| pays(&world, token))).await;
    let ledger = world.ledger().await;
    assert_eq!(ledger["entries"], 10);
    assert_eq!(
        ledger["accounts"],
        json!([
            { "name": "card_network", "currency": "EUR", "balance": 5000 },
            { "name": "sales", "currency": "EUR", "balance": -5000 },
        ])
    );
}

#[actix_web::test]
async fn polling_for_work_delays_no_response() {
    join_all(testing::urls().await.into_iter().map(many_pay_soon)).await;
}

/// Payments that come due again and again, while the worker looks for them all the time.
async fn many_pay_soon(database_url: String) {
    let timing = Timing { poll: Duration::from_millis(1), ..Timing::default() };
    let world = World::with(Setup { database_url, timing, ..Setup::default() }).await;
    join_all([(); 40].map(|()| pays(&world, "tok_flaky"))).await;
}

#[actix_web::test]
async fn a_card_that_is_declined_says_why_and_moves_nothing() {
    let world = World::start().await;
    for (token, code) in [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("4111111111111111", "card_declined"),
    ] {
        let ordered = Ordered::new();
        world.authorize(&ordered, token).await;
        assert_eq!(world.event(&ordered, "payment.declined.v1").await["code"], code);
        let payment = world.payment(&ordered).await;
        assert_eq!((&payment["status"], &payment["decline_code"]), (&json!("declined"), &json!(code)));
    }
    assert_eq!(world.ledger().await["entries"], 0);
}

#[actix_web::test]
async fn a_declined_capture_leaves_the_authorization_to_be_voided() {
    for world in worlds().await {
        let ordered = Ordered::new();
        world.authorize(&ordered, "tok_capture_declined").await;
        world.event(&ordered, "payment.authorized.v1").await;
        world.capture(&ordered).await;
        assert_eq!(world.event(&ordered, "payment.declined.v1").await["code"], "card_declined");
        assert_eq!(world.payment(&ordered).await["status"], "authorized");
        world.void(&ordered).await;
        world.event(&ordered, "payment.voided.v1").await;
        let charge = &world.statement(&ordered).await[0];
        assert_eq!((&charge["voided"], &charge["captured"]), (&json!(true), &json!(0)));
        assert_eq!(world.ledger().await["entries"], 0);
    }
}

#[actix_web::test]
async fn a_flaky_card_is_also_voided_and_refunded() {
    let world = World::start().await;
    let undone = Ordered::new();
    world.authorize(&undone, "tok_flaky").await;
    world.void(&undone).await;
    world.event(&undone, "payment.voided.v1").await;

    let refunded = pays(&world, "tok_flaky").await;
    world.refund_rest(&refunded).await;
    world.event(&refunded, "payment.refunded.v1").await;
    let charge = &world.statement(&refunded).await[0];
    assert_eq!((&charge["captured"], &charge["refunded"]), (&json!(1000), &json!(1000)));
    world.ledger().await;
}
