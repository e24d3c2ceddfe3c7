//! Races between requests, messages and timers, on every database. Each test names the outcome, which
//! the table in `checkout.rs` decides.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use order_service::checkout::saga;
use order_service::store::{Store, migrations};
use order_service::tasks::timers;
use serde_json::json;
use shared::db::{Db, DbConfig, now, query, testing};
use shared::messages::{Outgoing, Relay, SendError, Transport};

use crate::harness::*;

/// Expires the timers that are due within `time`, as a replica whose clock is ahead would. It crashes
/// before it sends a message; the other replicas send its messages at once.
async fn expire_timers(world: &World, time: Duration) {
    let db = Db::open(&DbConfig::at(&world.database), migrations()).await.unwrap();
    let (outbox, _) = Relay::new(db.clone(), Rc::new(NoTransport), &[]);
    let store = Store::new(db.clone(), outbox, "replica-2");
    let start = now();
    while timers::advance_due(&store, start + time).await.unwrap().is_some() {}
    let lapse = format!("{}UPDATE outbox SET next_at = $1 WHERE created_at >= $1", testing::OF_A_TEST);
    let lapse = query(lapse).bind(start);
    lapse.execute(&db).await.unwrap();
}

/// A transport that never finishes sending.
struct NoTransport;

#[async_trait(?Send)]
impl Transport for NoTransport {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        pending().await
    }
}

#[actix_web::test]
async fn cancel_before_the_authorization_is_known_is_voided_and_cancelled() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        assert_eq!(customer.cancel(&order).await.expect(202)["status"], "cancelling");
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
        world.payment(&order, "authorized").await;
        customer.assert_status(&order, "cancelling").await;
        let void = world.command(&order, "void").await;
        assert_eq!(void["data"]["amount"], order["total"], "enough for a tombstone");
        world.payment(&order, "voided").await;
        customer.assert_status(&order, "cancelled").await;
    }
}

#[actix_web::test]
async fn cancel_that_loses_to_the_capture_is_refunded() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.payment(&order, "authorized").await;
        assert_eq!(customer.cancel(&order).await.expect(202)["status"], "cancelling");
        world.payment(&order, "captured").await;
        customer.assert_status(&order, "refunding").await;
        world.command(&order, "refund").await;
        world.payment(&order, "refunded").await;
        customer.assert_status(&order, "refunded").await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn cancel_of_a_confirmed_order_is_refunded_and_its_stock_returned() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.pay(&order).await;
        assert_eq!(customer.cancel(&order).await.expect(202)["status"], "refunding");
        world.payment(&order, "refunded").await;
        customer.assert_status(&order, "refunded").await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
        world.command(&order, "refund").await;
        assert_eq!(
            world.commands(&order),
            ["payment.authorize.v1", "payment.capture.v1", "payment.refund.v1"]
        );
    }
}

#[actix_web::test]
async fn cancel_twice_is_202_twice_and_cancelled_once() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        let at_other = customer.at(&world.another_replica().await);
        let (one, other) = futures_util::join!(customer.cancel(&order), at_other.cancel(&order));
        assert_eq!((one.status, other.status), (202, 202));
        world.command(&order, "void").await;
        world.payment(&order, "voided").await;
        assert_eq!(customer.cancel(&order).await.expect(202)["status"], "cancelled");
        assert_eq!(world.commands(&order), ["payment.authorize.v1", "payment.void.v1"]);
    }
}

#[actix_web::test]
async fn capture_declined_is_rejected_and_the_authorization_voided() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.payment(&order, "authorized").await;
        world.payment_with(&order, "declined", json!({ "code": "card_declined" })).await;
        customer.assert_status(&order, "rejected (card_declined)").await;
        world.command(&order, "void").await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn late_success_after_a_time_out_is_voided_or_refunded() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.command(&order, "authorize").await;
        expire_timers(&world, saga::AUTHORIZE_TIMEOUT).await;
        customer.assert_status(&order, "rejected (payment_timeout)").await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);

        world.payment(&order, "authorized").await;
        world.command(&order, "void").await;
        world.payment(&order, "captured").await;
        world.command(&order, "refund").await;
        world.payment(&order, "refunded").await;
        customer.assert_status(&order, "rejected (payment_timeout)").await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn a_success_that_arrives_after_the_void_is_undone() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        for (late, undo, undone) in [("authorized", "void", "voided"), ("captured", "refund", "refunded")] {
            let order = customer.place(&tea, 3).await;
            expire_timers(&world, saga::AUTHORIZE_TIMEOUT).await;
            world.command(&order, "void").await;
            world.payment(&order, "voided").await;
            world.payment(&order, late).await;
            let all = ["authorize", "void", undo].map(|kind| format!("payment.{kind}.v1"));
            eventually("it is undone", async || (world.commands(&order) == all).then_some(())).await;
            world.payment(&order, undone).await;
            customer.assert_status(&order, "rejected (payment_timeout)").await;
        }
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
        assert_eq!(world.admin().get("/admin/sagas").await.expect(200)["sagas"], json!([]));
    }
}

#[actix_web::test]
async fn a_duplicate_message_has_its_effect_once() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        for kind in ["authorized", "captured"] {
            let event = world.event(&order, kind, json!({}));
            let (one, other) = futures_util::join!(world.deliver(&event), world.deliver(&event));
            assert_eq!((one.status, other.status, world.deliver(&event).await.status), (204, 204, 204));
            // The same event under another id.
            world.payment(&order, kind).await;
        }
        customer.assert_status(&order, "confirmed").await;
        assert_eq!(world.stock(&tea).await, [7, 0, 3]);
        world.command(&order, "capture").await;
        assert_eq!(world.commands(&order), ["payment.authorize.v1", "payment.capture.v1"]);
        let timeline = customer.get(&format!("{}/timeline", path(&order))).await.expect(200);
        assert_eq!(timeline["events"].as_array().unwrap().len(), 3);
    }
}

#[actix_web::test]
async fn a_duplicate_that_the_checkout_would_apply_is_ignored_by_the_inbox() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        expire_timers(&world, saga::AUTHORIZE_TIMEOUT).await;
        let late = world.event(&order, "captured", json!({}));
        assert_eq!(world.deliver(&late).await.status, 204);
        world.command(&order, "refund").await;
        world.payment(&order, "refunded").await;

        let timeline = || async { customer.get(&format!("{}/timeline", path(&order))).await.expect(200) };
        let before = timeline().await;
        assert_eq!(world.deliver(&late).await.status, 204);
        assert_eq!(timeline().await, before);
    }
}

#[actix_web::test]
async fn reordered_messages_are_harmless() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        for early in ["voided", "refunded", "captured"] {
            world.payment(&order, early).await;
            customer.assert_status(&order, "awaiting_payment").await;
        }
        world.pay(&order).await;
        for late in ["authorized", "voided", "refunded"] {
            world.payment(&order, late).await;
            customer.assert_status(&order, "confirmed").await;
        }
        assert_eq!(world.stock(&tea).await, [7, 0, 3]);
    }
}

#[actix_web::test]
async fn two_buyers_for_the_last_item_one_wins_and_the_other_gets_the_line_that_is_out_of_stock() {
    for world in worlds().await {
        let (plenty, last) = (world.product(10).await, world.product(1).await);
        let body = json!({
            "lines": [
                { "product_id": plenty["id"], "quantity": 1 },
                { "product_id": last["id"], "quantity": 1 },
            ],
            "payment_token": "tok_visa",
        });
        let (one, other) = (world.customer(), world.customer().at(&world.another_replica().await));
        let (one, other) = futures_util::join!(
            one.post("/api/orders", body.clone()),
            other.post("/api/orders", body.clone())
        );
        let (won, lost) = if one.status == 201 { (one, other) } else { (other, one) };
        won.expect(201);
        assert_eq!(lost.expect_problem(409, "out_of_stock"), ["lines[1].product_id"]);
        assert_eq!((world.stock(&plenty).await, world.stock(&last).await), ([9, 1, 0], [0, 1, 0]));
    }
}

/// Their orders share transactions.
#[actix_web::test]
async fn of_forty_buyers_who_come_together_those_for_whom_there_is_stock_win_and_the_rest_are_refused() {
    for world in worlds().await {
        let (tea, other) = (world.product(25).await, world.another_replica().await);
        let buyers: Vec<_> = (0..40).map(|_| world.customer()).collect();
        let buyers = buyers.iter().enumerate();
        let buyers =
            buyers.map(|(index, buyer)| if index % 2 == 0 { buyer.clone() } else { buyer.at(&other) });
        let buyers: Vec<_> = buyers.collect();
        let orders = buyers.iter().map(|buyer| buyer.post("/api/orders", cart(&tea, 1)));
        let (won, lost): (Vec<_>, Vec<_>) =
            join_all(orders).await.into_iter().partition(|reply| reply.status == 201);
        assert_eq!((won.len(), lost.len()), (25, 15));
        for reply in lost {
            assert_eq!(reply.expect_problem(409, "out_of_stock"), ["lines[0].product_id"]);
        }
        assert_eq!(world.stock(&tea).await, [0, 25, 0]);
        for reply in won {
            world.command(&reply.expect(201), "authorize").await;
        }
        let metrics = world.anonymous().text("/metrics").await;
        let value =
            |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let (all, alone): (Option<u32>, Option<u32>) =
            (value("group_commit_requests_count"), value("group_commit_requests_bucket{le=\"1\"}"));
        assert!(alone < all, "no transaction placed several orders: {all:?}");
    }
}

#[actix_web::test]
async fn an_order_with_a_stuck_capture_needs_attention_until_the_capture_succeeds() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.payment(&order, "authorized").await;
        world.payment_with(&order, "stuck", json!({ "reason": "five times 500" })).await;
        customer.assert_status(&order, "needs_attention").await;
        customer.cancel(&order).await.expect_problem(409, "not_cancellable");
        world.payment(&order, "captured").await;
        customer.assert_status(&order, "confirmed").await;
        assert_eq!(world.stock(&tea).await, [7, 0, 3]);
    }
}
