//! Two things at nearly the same time, over HTTP and messages, on every database. The outcome of each
//! is stated in its name; the table behind it is in `checkout.rs`.

use order_service::checkout::saga;
use order_service::store::Store;
use order_service::tasks::timers;
use serde_json::json;
use shared::db::{Db, DbConfig, now, query};
use shared::messages::Relay;

use crate::harness::*;

/// Lets the timers that run out within `time` from now run out now, as a replica with a fast clock
/// would. It dies before it sends anything; what it had claimed is free at once, and the others send it.
async fn pass(world: &World, time: std::time::Duration) {
    let db = Db::open(&DbConfig::at(&world.database), order_service::store::migrations()).await.unwrap();
    let (outbox, _) = Relay::new(db.clone(), std::rc::Rc::new(Never));
    let store = Store::new(db.clone(), outbox, "another");
    let began = now();
    while timers::advance_due(&store, began + time).await.unwrap().is_some() {}
    let lapse = query("UPDATE outbox SET next_at = $1 WHERE created_at >= $1").bind(began);
    lapse.execute(&db).await.unwrap();
}

/// Sends nothing.
struct Never;

impl shared::messages::Transport for Never {
    fn send<'a>(
        &'a self,
        _: &'a shared::messages::Outgoing,
    ) -> futures_util::future::LocalBoxFuture<'a, Result<(), shared::messages::SendError>> {
        Box::pin(std::future::pending())
    }
}

#[actix_web::test]
async fn cancel_before_the_authorization_is_known_is_voided_and_cancelled() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        assert_eq!(customer.cancel(&order).await.expect(202)["status"], "cancelling");
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
        world.payment(&order, "authorized").await;
        customer.sees(&order, "cancelling").await;
        let void = world.command(&order, "void").await;
        assert_eq!(void["data"]["amount"], order["total"], "enough for a tombstone");
        world.payment(&order, "voided").await;
        customer.sees(&order, "cancelled").await;
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
        customer.sees(&order, "refunding").await;
        world.command(&order, "refund").await;
        world.payment(&order, "refunded").await;
        customer.sees(&order, "refunded").await;
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn cancel_of_a_confirmed_order_is_refunded_and_the_goods_are_back() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.pay(&order).await;
        assert_eq!(customer.cancel(&order).await.expect(202)["status"], "refunding");
        world.payment(&order, "refunded").await;
        customer.sees(&order, "refunded").await;
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
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
        let elsewhere = customer.at(&world.another_replica().await);
        let (one, other) = futures_util::join!(customer.cancel(&order), elsewhere.cancel(&order));
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
        customer.sees(&order, "rejected (card_declined)").await;
        world.command(&order, "void").await;
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn late_success_after_a_time_out_is_voided_or_refunded() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.command(&order, "authorize").await;
        pass(&world, saga::AUTHORIZE).await;
        customer.sees(&order, "rejected (payment_timeout)").await;
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);

        world.payment(&order, "authorized").await;
        world.command(&order, "void").await;
        world.payment(&order, "captured").await;
        world.command(&order, "refund").await;
        world.payment(&order, "refunded").await;
        customer.sees(&order, "rejected (payment_timeout)").await;
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn a_success_that_comes_even_after_the_void_is_undone() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        for (late, undo, undone) in [("authorized", "void", "voided"), ("captured", "refund", "refunded")] {
            let order = customer.place(&tea, 3).await;
            pass(&world, saga::AUTHORIZE).await;
            world.command(&order, "void").await;
            world.payment(&order, "voided").await;
            world.payment(&order, late).await;
            let all = ["authorize", "void", undo].map(|kind| format!("payment.{kind}.v1"));
            eventually("it is undone", || async { (world.commands(&order) == all).then_some(()) }).await;
            world.payment(&order, undone).await;
            customer.sees(&order, "rejected (payment_timeout)").await;
        }
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
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
            // The same news under another id.
            world.payment(&order, kind).await;
        }
        customer.sees(&order, "confirmed").await;
        assert_eq!(world.goods(&tea).await, [7, 0, 3]);
        world.command(&order, "capture").await;
        assert_eq!(world.commands(&order), ["payment.authorize.v1", "payment.capture.v1"]);
        let timeline = customer.get(&format!("{}/timeline", path(&order))).await.expect(200);
        assert_eq!(timeline["events"].as_array().unwrap().len(), 3);
    }
}

/// Here the order's state does not tell that it came before; only the inbox knows.
#[actix_web::test]
async fn a_duplicate_that_would_mean_something_by_now_has_no_second_effect() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        pass(&world, saga::AUTHORIZE).await;
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
            customer.sees(&order, "awaiting_payment").await;
        }
        world.pay(&order).await;
        for late in ["authorized", "voided", "refunded"] {
            world.payment(&order, late).await;
            customer.sees(&order, "confirmed").await;
        }
        assert_eq!(world.goods(&tea).await, [7, 0, 3]);
    }
}

#[actix_web::test]
async fn two_buyers_for_the_last_item_one_wins_and_the_other_hears_which_line() {
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
        assert_eq!((world.goods(&plenty).await, world.goods(&last).await), ([9, 1, 0], [0, 1, 0]));
    }
}

#[actix_web::test]
async fn a_capture_that_gets_stuck_needs_attention_and_heals_when_it_succeeds() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.payment(&order, "authorized").await;
        world.payment_with(&order, "stuck", json!({ "reason": "five times 500" })).await;
        customer.sees(&order, "needs_attention").await;
        customer.cancel(&order).await.expect_problem(409, "not_cancellable");
        world.payment(&order, "captured").await;
        customer.sees(&order, "confirmed").await;
        assert_eq!(world.goods(&tea).await, [7, 0, 3]);
    }
}
