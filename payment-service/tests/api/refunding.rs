//! `POST /api/payments/{id}/refunds`

use actix_web::http::Method;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use shared::testing::{Api, Reply};
use uuid::Uuid;

use crate::harness::{Ordered, World, eventually, worlds};

async fn refund(world: &World, ordered: &Ordered, key: &str, body: &Value) -> Reply {
    refund_as(&world.as_admin(), ordered, key, body).await
}

async fn refund_as(admin: &Api, ordered: &Ordered, key: &str, body: &Value) -> Reply {
    let path = format!("/api/payments/{}/refunds", ordered.payment_id);
    admin.with_key(key).post(&path, body.clone()).await
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
    let events = world.others.events(ordered.order_id);
    assert!(!events.iter().any(|(kind, _)| kind == "payment.refunded.v1"), "the order stays as it is");
}

#[actix_web::test]
async fn two_concurrent_refunds_on_two_replicas_run_side_by_side_up_to_what_was_captured() {
    for world in worlds().await {
        let (here, there) = (world.as_admin(), world.as_admin_of(&world.another_replica().await));
        let ordered = world.captured().await;
        let half = part(500);
        let (one, two) =
            join(refund_as(&here, &ordered, "a", &half), refund_as(&there, &ordered, "b", &half)).await;
        one.expect(201);
        two.expect(201);
        world.payment_reaches(&ordered, "refunded").await;
        assert_eq!(world.statement(&ordered).await[0]["refunded"], 1000);
        refund(&world, &ordered, "c", &part(1)).await.expect_problem(409, "not_refundable");
    }
}

#[actix_web::test]
async fn a_refund_of_more_than_the_rest_is_refused_and_leaves_the_key_free() {
    for world in worlds().await {
        let ordered = world.captured().await;
        refund(&world, &ordered, "a", &part(1001)).await.expect_problem(409, "exceeds_captured");
        refund(&world, &ordered, "a", &part(1000)).await.expect(201);
        world.payment_reaches(&ordered, "refunded").await;
        refund(&world, &ordered, "b", &part(1)).await.expect_problem(409, "not_refundable");
    }
}

#[actix_web::test]
async fn what_was_not_captured_is_not_refundable() {
    let world = World::start().await;
    let ordered = Ordered::new();
    world.authorize(&ordered, "tok_visa").await;
    world.event(&ordered, "payment.authorized.v1").await;
    refund(&world, &ordered, "a", &json!({ "reason": "x" })).await.expect_problem(409, "not_refundable");
}

#[actix_web::test]
async fn the_same_request_is_carried_out_once_and_answered_alike_whatever_happened_since() {
    for world in worlds().await {
        let ordered = world.captured().await;
        let first = refund(&world, &ordered, "a", &part(100)).await;
        world.payment_reaches(&ordered, "partially_refunded").await;
        refund(&world, &ordered, "b", &part(900)).await.expect(201);
        world.payment_reaches(&ordered, "refunded").await;

        let again = refund(&world, &ordered, "a", &part(100)).await;
        assert_eq!((again.status, &again.bytes), (201, &first.bytes));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        let replayed = [&first, &again].map(|reply| reply.header("idempotency-replayed"));
        assert_eq!(replayed, ["", "true"]);
        refund(&world, &ordered, "a", &part(200)).await.expect_problem(422, "idempotency_key_reused");
        assert_eq!(world.payment(&ordered).await["refunded"]["amount"], 1000);
    }
}

#[actix_web::test]
async fn a_key_belongs_to_its_admin_and_its_payment() {
    for world in worlds().await {
        let (ordered, other) = (world.captured().await, world.captured().await);
        let another =
            world.service.with_token(world.others.keys.user_token(Uuid::now_v7(), &["customer", "admin"]));
        refund(&world, &ordered, "a", &part(100)).await.expect(201);
        refund_as(&another, &ordered, "a", &part(100)).await.expect(201);
        refund(&world, &other, "a", &part(300)).await.expect(201);
        for (ordered, amount) in [(&ordered, 200), (&other, 300)] {
            let payment = world.payment_reaches(ordered, "partially_refunded").await;
            assert_eq!(payment["refunded"]["amount"], amount);
        }
    }
}

#[actix_web::test]
async fn many_concurrent_copies_of_one_refund_on_two_replicas_are_given_once() {
    for world in worlds().await {
        let admins = [world.as_admin(), world.as_admin_of(&world.another_replica().await)];
        let (ordered, part) = (world.captured().await, part(100));
        let many = (0..10).map(|index| refund_as(&admins[index % 2], &ordered, "a", &part));
        let mut answers = Vec::new();
        for reply in join_all(many).await {
            match reply.status {
                201 => answers.push(reply.bytes),
                _ => {
                    reply.expect_problem(409, "idempotency_in_progress");
                    assert_eq!(reply.header("retry-after"), "1");
                }
            }
        }
        assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == answers[0]));
        refund(&world, &ordered, "b", &json!({ "reason": "the rest" })).await.expect(201);
        world.payment_reaches(&ordered, "refunded").await;
        assert_eq!(world.ledger().await["entries"], 6, "a capture and two refunds");
    }
}

#[actix_web::test]
async fn a_cancelled_order_gets_back_what_is_left() {
    let world = World::start().await;
    let ordered = world.captured().await;
    refund(&world, &ordered, "a", &part(400)).await.expect(201);
    world.refund_rest(&ordered).await;
    world.event(&ordered, "payment.refunded.v1").await;
    let charge = &world.statement(&ordered).await[0];
    assert_eq!((&charge["captured"], &charge["refunded"]), (&json!(1000), &json!(1000)));
    world.ledger().await;
}

#[actix_web::test]
async fn only_an_admin_with_a_key_and_a_good_body_refunds() {
    let world = World::start().await;
    let ordered = world.captured().await;
    let path = format!("/api/payments/{}/refunds", ordered.payment_id);
    world.service.post(&path, part(1)).await.expect_problem(401, "missing_token");
    let owner = world.as_customer(ordered.customer_id);
    owner.post(&path, part(1)).await.expect_problem(403, "forbidden");
    let admin = world.as_admin();
    let without_key = admin.send(Method::POST, &path, Some(&part(1))).await;
    without_key.expect_problem(428, "idempotency_key_required");
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
        let fields =
            admin.with_key("k").post(&path, bad.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(fields[0], field, "{bad}");
    }
    let nowhere = Ordered::new();
    refund(&world, &nowhere, "k", &part(1)).await.expect_problem(404, "not_found");
    eventually("nothing was given back", async || {
        (world.payment(&ordered).await["status"] == "captured").then_some(())
    })
    .await;
}

#[actix_web::test]
async fn a_refund_needs_a_recent_login_and_says_in_the_audit_table_who_gave_it() {
    for world in worlds().await {
        let ordered = world.captured().await;
        let old = world.others.keys.user_token_of_old_login(world.admin, &["customer", "admin"]);
        let old = world.service.with_token(old);
        refund_as(&old, &ordered, "a", &part(300)).await.expect_problem(403, "recent_login_required");
        assert_eq!(old.get("/admin/audit").await.expect(200), json!({ "acts": [], "next_cursor": null }));

        let admin = world.as_admin().with("x-request-id", "of-this-refund");
        let mut refunds = Vec::new();
        for key in ["a", "a", "b"] {
            refunds.push(refund_as(&admin, &ordered, key, &part(300)).await.expect(201));
        }
        refund(&world, &ordered, "c", &part(1000)).await.expect_problem(409, "exceeds_captured");
        let audit = admin.get("/admin/audit").await.expect(200);
        let acts = audit["acts"].as_array().unwrap();
        assert_eq!(acts.len(), 2, "{audit}");
        let first = &acts[1];
        assert_eq!(first["admin_id"], json!(world.admin));
        assert_eq!(
            (&first["action"], &first["subject_id"]),
            (&json!("payment.refund"), &json!(ordered.payment_id))
        );
        assert_eq!(first["details"], json!({ "refund_id": refunds[0]["id"], "amount": 300 }));
        assert_eq!(first["request_id"], "of-this-refund");
        assert!(first["at"].is_string() && first["trace_id"].is_string(), "{first}");
        world.as_customer(ordered.customer_id).get("/admin/audit").await.expect_problem(403, "forbidden");
    }
}
