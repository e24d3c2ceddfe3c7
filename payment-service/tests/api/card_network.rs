//! The card network itself.

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::testing::{Api, Reply};
use uuid::Uuid;

use crate::harness::card_network;

fn request(key: &str, order_id: Uuid, token: &str) -> Value {
    json!({ "key": key, "order_id": order_id, "amount": 500, "currency": "EUR", "token": token })
}

/// Sends a POST without an idempotency key.
async fn post(network: &Api, path: &str, body: &Value) -> Reply {
    network.send(Method::POST, path, Some(body)).await
}

async fn charges(network: &Api, order_id: Uuid) -> Value {
    network.get(&format!("/statement?order_id={order_id}")).await.expect(200)["charges"].clone()
}

#[actix_web::test]
async fn each_operation_happens_once_per_key_also_with_concurrent_duplicates() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    let body = request("a", order, "tok_visa");
    let authorized = join_all((0..8).map(|_| post(&network, "/authorizations", &body))).await;
    assert!(authorized.into_iter().all(|reply| reply.expect(201)["status"] == "authorized"));
    let (keyed, none) = (network.with_key("a-capture"), json!({}));
    let captured = join_all((0..8).map(|_| post(&keyed, "/authorizations/a/capture", &none))).await;
    assert!(captured.into_iter().all(|reply| reply.expect(200)["times_captured"] == 1));
    let refund = json!({ "key": "r", "amount": 200 });
    let refunded = join_all((0..8).map(|_| post(&network, "/authorizations/a/refunds", &refund))).await;
    assert!(refunded.into_iter().all(|reply| reply.expect(201)["refunded"] == 200));
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
    post(&network, "/authorizations", &request("a", order, "tok_visa")).await.expect(201);
    for key in ["one", "two"] {
        post(&network.with_key(key), "/authorizations/a/capture", &json!({})).await.expect(200);
    }
    let charge = charges(&network, order).await[0].clone();
    assert_eq!((&charge["times_captured"], &charge["captured"]), (&json!(2), &json!(1000)));
}

#[actix_web::test]
async fn what_was_voided_is_never_held_or_taken_later() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    post(&network, "/authorizations/a/void", &json!({})).await.expect(200);
    assert_eq!(network.get("/statement").await.expect(200)["charges"], json!([]));
    let late = post(&network, "/authorizations", &request("a", order, "tok_visa")).await;
    assert_eq!(late.expect(201)["status"], "voided");
    post(&network, "/authorizations/a/capture", &json!({})).await.expect_problem(409, "voided");
    assert_eq!(charges(&network, order).await[0]["voided"], true);
}

#[actix_web::test]
async fn what_does_not_fit_is_refused() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    network.get("/authorizations/a").await.expect_problem(404, "not_found");
    post(&network, "/authorizations/a/capture", &json!({})).await.expect_problem(404, "not_found");
    post(&network, "/authorizations", &request("a", order, "tok_visa")).await.expect(201);
    let other = post(&network, "/authorizations", &request("a", order, "tok_slow")).await;
    other.expect_problem(422, "key_reused");
    let refund = json!({ "key": "r", "amount": 1 });
    let early = post(&network, "/authorizations/a/refunds", &refund).await;
    early.expect_problem(409, "exceeds_captured");
    post(&network, "/authorizations/a/capture", &json!({})).await.expect(200);
    post(&network, "/authorizations/a/void", &json!({})).await.expect_problem(409, "captured");
    let much = json!({ "key": "r", "amount": 501 });
    post(&network, "/authorizations/a/refunds", &much).await.expect_problem(409, "exceeds_captured");
    for amount in [json!(-1), json!(1.5), json!("1")] {
        let mut bad = request("b", order, "tok_visa");
        bad["amount"] = amount;
        post(&network, "/authorizations", &bad).await.expect_problem(422, "validation_failed");
    }
}

#[actix_web::test]
async fn a_statement_lists_the_keys_of_a_range_in_order() {
    let network = card_network().await;
    for key in ["c", "a", "d", "b"] {
        post(&network, "/authorizations", &request(key, Uuid::now_v7(), "tok_visa")).await.expect(201);
    }
    for (range, expected) in [
        ("", vec!["a", "b", "c", "d"]),
        ("?after=a&up_to=c", vec!["b", "c"]),
        ("?after=a&limit=2", vec!["b", "c"]),
        ("?after=c", vec!["d"]),
    ] {
        let statement = network.get(&format!("/statement{range}")).await.expect(200);
        let keys: Vec<_> = statement["charges"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
        assert_eq!(keys, expected, "{range}");
    }
}

#[actix_web::test]
async fn a_silent_card_is_charged_without_a_response() {
    let (network, order) = (card_network().await, Uuid::now_v7());
    let body = request("a", order, "tok_timeout_after_charge");
    let silent = post(&network, "/authorizations", &body);
    let timeout = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(timeout, silent).await.is_err(), "it answered");
    assert_eq!(network.get("/authorizations/a").await.expect(200)["status"], "authorized");
    assert_eq!(post(&network, "/authorizations", &body).await.expect(201)["status"], "authorized");
}

#[actix_web::test]
async fn the_card_network_reports_its_health() {
    let network = card_network().await;
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(network.get(path).await.expect(200)["service"], "card-network");
    }
}
