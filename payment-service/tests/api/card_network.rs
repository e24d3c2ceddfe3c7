//! The card network itself.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Http, card_network};

fn request(key: &str, order_id: Uuid, token: &str) -> Value {
    json!({ "key": key, "order_id": order_id, "amount": 500, "currency": "EUR", "token": token })
}

async fn charges(network: &Http, order_id: Uuid) -> Value {
    network.get(&format!("/statement?order_id={order_id}")).await.expect(200)["charges"].clone()
}

#[actix_web::test]
async fn each_operation_happens_once_per_key_also_when_duplicates_come_at_once() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    let body = request("a", order, "tok_visa");
    let authorized = join_all((0..8).map(|_| network.post("/authorizations", &[], &body))).await;
    assert!(authorized.iter().all(|reply| reply.expect(201)["status"] == "authorized"));
    let none = json!({});
    let key = [("idempotency-key", "a-capture")];
    let captured = join_all((0..8).map(|_| network.post("/authorizations/a/capture", &key, &none))).await;
    assert!(captured.iter().all(|reply| reply.expect(200)["times_captured"] == 1));
    let refund = json!({ "key": "r", "amount": 200 });
    let refunded = join_all((0..8).map(|_| network.post("/authorizations/a/refunds", &[], &refund))).await;
    assert!(refunded.iter().all(|reply| reply.expect(201)["refunded"] == 200));
    assert_eq!(
        charges(&network, order).await,
        json!([{
            "key": "a", "order_id": order, "currency": "EUR", "authorized": 500, "captured": 500,
            "refunded": 200, "voided": false, "times_captured": 1
        }])
    );
}

#[actix_web::test]
async fn a_capture_under_another_key_takes_the_money_again_and_the_statement_shows_it() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    network.post("/authorizations", &[], &request("a", order, "tok_visa")).await.expect(201);
    for key in ["one", "two"] {
        let key = [("idempotency-key", key)];
        network.post("/authorizations/a/capture", &key, &json!({})).await.expect(200);
    }
    let charge = charges(&network, order).await[0].clone();
    assert_eq!((&charge["times_captured"], &charge["captured"]), (&json!(2), &json!(1000)));
}

#[actix_web::test]
async fn what_was_voided_is_never_held_or_taken_later() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    network.post("/authorizations/a/void", &[], &json!({})).await.expect(200);
    assert_eq!(network.get("/statement").await.expect(200)["charges"], json!([]));
    let late = network.post("/authorizations", &[], &request("a", order, "tok_visa")).await;
    assert_eq!(late.expect(201)["status"], "voided");
    network.post("/authorizations/a/capture", &[], &json!({})).await.expect_problem(409, "voided");
    assert_eq!(charges(&network, order).await[0]["voided"], true);
}

#[actix_web::test]
async fn what_does_not_fit_is_refused() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    network.get("/authorizations/a").await.expect_problem(404, "not_found");
    network.post("/authorizations/a/capture", &[], &json!({})).await.expect_problem(404, "not_found");
    network.post("/authorizations", &[], &request("a", order, "tok_visa")).await.expect(201);
    let other = network.post("/authorizations", &[], &request("a", order, "tok_slow")).await;
    other.expect_problem(422, "key_reused");
    let refund = json!({ "key": "r", "amount": 1 });
    let early = network.post("/authorizations/a/refunds", &[], &refund).await;
    early.expect_problem(409, "exceeds_captured");
    network.post("/authorizations/a/capture", &[], &json!({})).await.expect(200);
    network.post("/authorizations/a/void", &[], &json!({})).await.expect_problem(409, "captured");
    let much = json!({ "key": "r", "amount": 501 });
    network.post("/authorizations/a/refunds", &[], &much).await.expect_problem(409, "exceeds_captured");
    for amount in [json!(-1), json!(1.5), json!("1")] {
        let mut bad = request("b", order, "tok_visa");
        bad["amount"] = amount;
        network.post("/authorizations", &[], &bad).await.expect_problem(422, "validation_failed");
    }
}

#[actix_web::test]
async fn a_silent_card_is_charged_though_nobody_hears_of_it() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    let body = request("a", order, "tok_timeout_after_charge");
    let silent = network.post("/authorizations", &[], &body);
    let patience = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(patience, silent).await.is_err(), "it answered");
    assert_eq!(network.get("/authorizations/a").await.expect(200)["status"], "authorized");
    assert_eq!(network.post("/authorizations", &[], &body).await.expect(201)["status"], "authorized");
}

#[actix_web::test]
async fn the_card_network_tells_how_it_is() {
    let network = card_network().await;
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(network.get(path).await.expect(200)["service"], "card-network");
    }
}
