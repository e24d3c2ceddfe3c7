//! `POST /api/payments/{id}/refunds`

use futures_util::future::join;
use serde_json::{Value, json};

use crate::harness::{Ordered, Reply, World, eventually};

async fn refund(world: &World, ordered: &Ordered, key: &str, body: &Value) -> Reply {
    let path = format!("/api/payments/{}/refunds", ordered.payment_id);
    world.as_admin().post(&path, &[("idempotency-key", key)], body).await
}

fn part(amount: i64) -> Value {
    json!({ "amount": { "amount": amount, "currency": "EUR" }, "reason": "a scratch" })
}

#[actix_web::test]
async fn a_part_and_then_the_rest_are_given_back() {
    let world = World::start().await;
    let ordered = world.captured().await;
    let made = refund(&world, &ordered, "a", &part(300)).await.expect(201);
    assert_eq!((&made["status"], &made["amount"]["amount"]), (&json!("pending"), &json!(300)));
    assert_eq!(made["payment_id"], json!(ordered.payment_id));
    let payment = world.payment_reaches(&ordered, "partially_refunded").await;
    assert_eq!(payment["refunded"], json!({ "amount": 300, "currency": "EUR" }));

    let rest = refund(&world, &ordered, "b", &json!({ "reason": "all of it" })).await.expect(201);
    assert_eq!(rest["amount"]["amount"], 700);
    world.payment_reaches(&ordered, "refunded").await;
    assert_eq!(world.statement(&ordered).await[0]["refunded"], 1000);
    assert_eq!(world.ledger().await["entries"], 6);
    let told = world.others.told(ordered.order_id);
    assert!(!told.iter().any(|(kind, _)| kind == "payment.refunded.v1"), "the order stays as it is");
}

#[actix_web::test]
async fn two_refunds_at_once_run_side_by_side_up_to_what_was_captured() {
    let world = World::start().await;
    let ordered = world.captured().await;
    let (half, other_half) = (part(500), part(500));
    let (one, two) =
        join(refund(&world, &ordered, "a", &half), refund(&world, &ordered, "b", &other_half)).await;
    one.expect(201);
    two.expect(201);
    world.payment_reaches(&ordered, "refunded").await;
    assert_eq!(world.statement(&ordered).await[0]["refunded"], 1000);
    refund(&world, &ordered, "c", &part(1)).await.expect_problem(409, "not_refundable");
}

#[actix_web::test]
async fn more_than_is_left_is_refused_and_leaves_the_key_free() {
    let world = World::start().await;
    let ordered = world.captured().await;
    refund(&world, &ordered, "a", &part(1001)).await.expect_problem(409, "exceeds_captured");
    refund(&world, &ordered, "a", &part(1000)).await.expect(201);
    world.payment_reaches(&ordered, "refunded").await;
    refund(&world, &ordered, "b", &part(1)).await.expect_problem(409, "not_refundable");
}

#[actix_web::test]
async fn what_was_not_captured_is_not_refundable() {
    let world = World::start().await;
    let ordered = Ordered::new();
    world.authorize(&ordered, "tok_visa").await;
    world.told(&ordered, "payment.authorized.v1").await;
    refund(&world, &ordered, "a", &json!({ "reason": "x" })).await.expect_problem(409, "not_refundable");
}

#[actix_web::test]
async fn the_same_request_is_carried_out_once_and_answered_alike() {
    let world = World::start().await;
    let ordered = world.captured().await;
    let first = refund(&world, &ordered, "a", &part(100)).await;
    let again = refund(&world, &ordered, "a", &part(100)).await;
    assert_eq!((first.status, &first.bytes), (again.status, &again.bytes));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    refund(&world, &ordered, "a", &part(200)).await.expect_problem(422, "idempotency_key_reused");
    let payment = world.payment_reaches(&ordered, "partially_refunded").await;
    assert_eq!(payment["refunded"]["amount"], 100);
}

#[actix_web::test]
async fn a_cancelled_order_gets_back_what_is_left() {
    let world = World::start().await;
    let ordered = world.captured().await;
    refund(&world, &ordered, "a", &part(400)).await.expect(201);
    world.refund_rest(&ordered).await;
    world.told(&ordered, "payment.refunded.v1").await;
    let charge = &world.statement(&ordered).await[0];
    assert_eq!((&charge["captured"], &charge["refunded"]), (&json!(1000), &json!(1000)));
    world.ledger().await;
}

#[actix_web::test]
async fn only_an_admin_with_a_key_and_a_good_body_refunds() {
    let world = World::start().await;
    let ordered = world.captured().await;
    let path = format!("/api/payments/{}/refunds", ordered.payment_id);
    let key = [("idempotency-key", "k")];
    world.service.post(&path, &key, &part(1)).await.expect_problem(401, "missing_token");
    let owner = world.as_customer(ordered.customer_id);
    owner.post(&path, &key, &part(1)).await.expect_problem(403, "forbidden");
    let admin = world.as_admin();
    admin.post(&path, &[], &part(1)).await.expect_problem(428, "idempotency_key_required");
    for (bad, field) in [
        (json!({}), "reason"),
        (json!({ "reason": " " }), "reason"),
        (json!({ "reason": "x", "note": 1 }), "note"),
        (part(0), "amount.amount"),
        (part(-1), "amount.amount"),
        (json!({ "reason": "x", "amount": 5 }), "amount"),
        (json!({ "reason": "x", "amount": { "amount": 5, "currency": "euro" } }), "amount.currency"),
        (json!({ "reason": "x", "amount": { "amount": 5, "currency": "USD" } }), "amount.currency"),
    ] {
        let reply = admin.post(&path, &key, &bad).await;
        reply.expect_problem(422, "validation_failed");
        assert_eq!(reply.json()["errors"][0]["field"], field, "{bad}");
    }
    let nowhere = Ordered::new();
    refund(&world, &nowhere, "k", &part(1)).await.expect_problem(404, "not_found");
    eventually("nothing was given back", async || {
        (world.payment(&ordered).await["status"] == "captured").then_some(())
    })
    .await;
}
