//! The card network's figures against the books: each difference is named, and none is hidden.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::http::Method;
use serde_json::json;
use shared::db::testing;

use crate::harness::{Ordered, Setup, World, eventually, worlds};

/// A world on each database that compares all the time.
async fn watchful_worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for database_url in testing::urls().await {
        let reconcile_every = Duration::from_millis(200);
        worlds.push(World::with(Setup { database_url, reconcile_every, ..Setup::default() }).await);
    }
    worlds
}

async fn captured_with(world: &World, token: &str) -> Ordered {
    let ordered = Ordered::new();
    world.authorize(&ordered, token).await;
    world.event(&ordered, "payment.authorized.v1").await;
    world.capture(&ordered).await;
    world.event(&ordered, "payment.captured.v2").await;
    ordered
}

async fn refund(world: &World, ordered: &Ordered, amount: i64) {
    let path = format!("/api/payments/{}/refunds", ordered.payment_id);
    let body = json!({ "amount": { "amount": amount, "currency": "EUR" }, "reason": "a scratch" });
    world.as_admin().post(&path, body).await.expect(201);
}

fn difference(figure: &str, ours: i64, theirs: i64) -> (String, i64, i64) {
    (figure.to_owned(), ours, theirs)
}

async fn finds(world: &World, ordered: Option<&Ordered>, expected: &[(String, i64, i64)]) {
    eventually(&format!("{expected:?} is listed"), async || {
        (world.differences("open", ordered).await == expected).then_some(())
    })
    .await;
}

/// Something that happens at the card network behind our back.
async fn at_the_network(world: &World, path: &str, body: serde_json::Value) {
    let reply = world.network.send(Method::POST, path, Some(&body)).await;
    assert!((200..300).contains(&reply.status), "{path}: {}", reply.body);
}

#[actix_web::test]
async fn another_amount_than_was_asked_for_is_named_immediately_with_both_figures() {
    // These compare the statement at their start only.
    for world in worlds().await {
        let (fine, short) = (world.captured().await, captured_with(&world, "tok_other_amount").await);
        assert_eq!(world.differences("open", Some(&short)).await, [difference("captured", 1000, 999)]);
        refund(&world, &short, 300).await;
        world.payment_reaches(&short, "partially_refunded").await;
        let both = [difference("captured", 1000, 999), difference("refunded", 300, 299)];
        assert_eq!(world.differences("open", Some(&short)).await, both);
        assert_eq!(world.differences("open", Some(&fine)).await, []);
        let listed = world.as_admin().get("/admin/differences").await.expect(200);
        assert_eq!(listed["open"], 2, "{listed}");
        assert_eq!(listed["differences"][0]["key"], format!("{}-authorize", short.payment_id));
        world.as_customer(short.customer_id).get("/admin/differences").await.expect_problem(403, "forbidden");
    }
}

#[actix_web::test]
async fn a_conflict_that_passes_is_no_refusal_of_a_refund() {
    for world in worlds().await {
        let ordered = captured_with(&world, "tok_busy").await;
        refund(&world, &ordered, 300).await;
        let payment = world.payment_reaches(&ordered, "partially_refunded").await;
        assert_eq!(payment["refunded"]["amount"], 300);
        assert_eq!(world.statement(&ordered).await[0]["refunded"], 300);
        assert_eq!(world.differences("open", Some(&ordered)).await, []);
    }
}

#[actix_web::test]
async fn the_statement_names_every_difference_and_those_that_are_gone_are_resolved() {
    for world in watchful_worlds().await {
        let (fine, more, given_back) =
            (world.captured().await, world.captured().await, world.captured().await);
        let (charge, refunded) =
            (format!("{}-authorize", more.payment_id), format!("{}-authorize", given_back.payment_id));
        at_the_network(&world, &format!("/authorizations/{charge}/capture"), json!({})).await;
        let refund_there = json!({ "key": "by somebody else", "amount": 400 });
        at_the_network(&world, &format!("/authorizations/{refunded}/refunds"), refund_there).await;
        let unknown = json!({
            "key": "zzz", "order_id": "none", "amount": 500, "currency": "EUR", "token": "tok_visa"
        });
        at_the_network(&world, "/authorizations", unknown).await;

        finds(&world, Some(&more), &[difference("captured", 1000, 2000)]).await;
        finds(&world, Some(&given_back), &[difference("refunded", 0, 400)]).await;
        finds(&world, None, &[difference("held", 0, 500)]).await;
        assert_eq!(world.differences("open", Some(&fine)).await, []);
        eventually("it is in the metrics", async || {
            world.service.text("/metrics").await.contains("\npayment_differences 3\n").then_some(())
        })
        .await;

        at_the_network(&world, "/authorizations/zzz/void", json!({})).await;
        finds(&world, None, &[]).await;
        assert_eq!(world.differences("resolved", None).await, [difference("held", 0, 500)]);
        assert_eq!(world.differences("open", Some(&more)).await, [difference("captured", 1000, 2000)]);
    }
}

#[actix_web::test]
async fn the_pages_of_the_list_have_every_difference_once() {
    for world in worlds().await {
        for _ in 0..3 {
            let short = captured_with(&world, "tok_other_amount").await;
            refund(&world, &short, 300).await;
            world.payment_reaches(&short, "partially_refunded").await;
        }
        let (mut all, mut next) = (Vec::new(), String::new());
        loop {
            let path = format!("/admin/differences?limit=1{next}");
            let page = world.as_admin().get(&path).await.expect(200);
            let one = &page["differences"][0];
            all.push((one["key"].to_string(), one["figure"].to_string()));
            assert_eq!(page["differences"].as_array().unwrap().len(), 1, "{page}");
            assert!(all.len() <= 6, "{all:?}");
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            next = format!("&cursor={cursor}");
        }
        let newest_first: Vec<_> = all.iter().cloned().collect::<BTreeSet<_>>().into_iter().rev().collect();
        assert_eq!(all, newest_first);
        assert_eq!(all.len(), 6);
        let listed = world.as_admin().get("/admin/differences?cursor=z").await;
        listed.expect_problem(400, "invalid_parameter");
    }
}

#[actix_web::test]
async fn what_was_wrong_before_a_replica_started_is_found_at_its_start() {
    for world in worlds().await {
        let ordered = world.captured().await;
        let path = format!("/authorizations/{}-authorize/capture", ordered.payment_id);
        at_the_network(&world, &path, json!({})).await;
        world.another_replica().await;
        finds(&world, Some(&ordered), &[difference("captured", 1000, 2000)]).await;
    }
}

#[actix_web::test]
async fn payments_under_way_and_settled_ones_of_every_kind_agree_with_the_card_network() {
    for world in watchful_worlds().await {
        let all: Vec<_> = (0..4).map(|_| Ordered::new()).collect();
        for (ordered, token) in all.iter().zip(["tok_slow", "tok_flaky", "tok_declined", "tok_visa"]) {
            world.authorize(ordered, token).await;
        }
        world.void(&Ordered::new()).await;
        world.event(&all[3], "payment.authorized.v1").await;
        world.void(&all[3]).await;
        world.event(&all[3], "payment.voided.v1").await;
        let refunded = world.captured().await;
        world.refund_rest(&refunded).await;
        world.event(&refunded, "payment.refunded.v1").await;
        world.event(&all[2], "payment.declined.v1").await;
        for ordered in &all[..2] {
            world.event(ordered, "payment.authorized.v1").await;
            world.capture(ordered).await;
            world.event(ordered, "payment.captured.v2").await;
        }
        let listed = world.as_admin().get("/admin/differences").await.expect(200);
        assert_eq!(listed, json!({ "open": 0, "differences": [], "next_cursor": null }));
        let never = world.as_admin().get("/admin/differences?state=resolved").await.expect(200);
        assert_eq!(never["differences"], json!([]));
    }
}
