//! Timers survive restarts, and any replica may handle them.

use std::time::Duration;

use order_service::checkout::{Progress, Trigger, saga};
use order_service::domain::{Reason, Status};
use shared::db::{query, testing};

use crate::harness::*;

const TIMED_OUT: Status = Status::Rejected(Reason::PaymentTimeout);

#[actix_web::test]
async fn an_authorization_without_an_answer_times_out_and_releases_the_stock() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 3)]).await.unwrap();
        assert_eq!(expire_timers(&store, saga::AUTHORIZE_TIMEOUT - Duration::from_secs(1)).await, 0);
        assert_eq!(expire_timers(&store, saga::AUTHORIZE_TIMEOUT).await, 1);
        let order = store.order(order.id).await.unwrap();
        assert_eq!((order.status(), stock_columns(&store, &tea).await), (TIMED_OUT, (10, 0, 0)));
        assert_eq!(commands(&store, &order).await, ["authorize", "void"]);
    }
}

#[actix_web::test]
async fn a_late_capture_after_a_time_out_is_refunded() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 3)]).await.unwrap();
        expire_timers(&store, saga::AUTHORIZE_TIMEOUT).await;
        apply(&store, &order, Trigger::Captured).await.unwrap();
        let order = apply(&store, &order, Trigger::Refunded).await.unwrap();
        assert_eq!((order.status(), stock_columns(&store, &tea).await), (TIMED_OUT, (10, 0, 0)));
        assert_eq!(commands(&store, &order).await, ["authorize", "void", "refund"]);
        assert_eq!(store.sagas(None).await.unwrap(), []);
    }
}

#[actix_web::test]
async fn a_capture_without_an_answer_is_sent_again_then_needs_attention_then_completes() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 3)]).await.unwrap();
        apply(&store, &order, Trigger::Authorized).await.unwrap();
        assert_eq!(expire_timers(&store, saga::ANSWER_TIMEOUT + saga::RETRY.first).await, 1);
        assert_eq!(commands(&store, &order).await, ["authorize", "capture", "capture"]);

        expire_timers(&store, saga::OVERALL_TIMEOUT).await;
        assert_eq!(store.order(order.id).await.unwrap().status(), Status::NeedsAttention);
        let stuck = store.sagas(Some(Progress::Stuck)).await.unwrap();
        assert_eq!((stuck.len(), stuck[0].order_id), (1, order.id));
        assert!(stuck[0].saga.last_error.is_some(), "has an error");
        assert_eq!(stock_columns(&store, &tea).await, (7, 3, 0), "the stock stays reserved");

        let confirmed = apply(&store, &order, Trigger::Captured).await.unwrap();
        assert_eq!((confirmed.status(), stock_columns(&store, &tea).await), (Status::Confirmed, (7, 0, 3)));
    }
}

#[actix_web::test]
async fn a_timer_survives_a_restart_and_is_handled_by_one_replica() {
    for url in testing::urls().await {
        let first = open(&url).await;
        let tea = product(&first, 100).await;
        let mut orders = Vec::new();
        for _ in 0..10 {
            orders.push(place(&first, &[(&tea, 1)]).await.unwrap());
        }
        first.db().close().await;

        let (one, other) = (open(&url).await, open(&url).await);
        let (by_one, by_other) = futures_util::join!(
            expire_timers(&one, saga::AUTHORIZE_TIMEOUT),
            expire_timers(&other, saga::AUTHORIZE_TIMEOUT)
        );
        assert_eq!(by_one + by_other, 10, "each timer is handled once");
        for order in orders {
            assert_eq!(one.order(order.id).await.unwrap().status(), TIMED_OUT);
            assert_eq!(commands(&one, &order).await, ["authorize", "void"]);
        }
    }
}

#[actix_web::test]
async fn a_timer_that_cannot_be_handled_does_not_block_the_others() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let (broken, good) =
            (place(&store, &[(&tea, 1)]).await.unwrap(), place(&store, &[(&tea, 1)]).await.unwrap());
        let step = |step: &'static str| {
            query("UPDATE orders SET step = $2 WHERE id = $1").bind(broken.id).bind(step)
        };
        step("of another version").execute(store.db()).await.unwrap();
        assert_eq!(expire_timers(&store, saga::AUTHORIZE_TIMEOUT).await, 2);
        assert_eq!(store.order(good.id).await.unwrap().status(), TIMED_OUT);
        step("authorize").execute(store.db()).await.unwrap();
        expire_timers(&store, saga::AUTHORIZE_TIMEOUT + Duration::from_secs(31)).await;
        assert_eq!(store.order(broken.id).await.unwrap().status(), TIMED_OUT);
    }
}

#[actix_web::test]
async fn a_timer_whose_commit_fails_does_not_block_the_others() {
    for store in stores().await {
        let (tea, milk) = (product(&store, 10).await, product(&store, 10).await);
        let (broken, good) =
            (place(&store, &[(&tea, 3)]).await.unwrap(), place(&store, &[(&milk, 1)]).await.unwrap());
        // The stock contradicts the first order: nothing is reserved that could be released.
        let lost = query("UPDATE stock SET reserved = 0, on_hand = on_hand + 3 WHERE product_id = $1")
            .bind(tea.product.id);
        lost.execute(store.db()).await.unwrap();
        assert_eq!(expire_timers(&store, saga::AUTHORIZE_TIMEOUT).await, 2);
        assert_eq!(store.order(broken.id).await.unwrap().status(), Status::AwaitingPayment);
        assert_eq!(store.order(good.id).await.unwrap().status(), TIMED_OUT);
    }
}

#[actix_web::test]
async fn a_crash_while_a_timer_is_handled_leaves_it_expired() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 3)]).await.unwrap();
        let mut tx = store.db().begin().await.unwrap();
        let checkout = store.lock(&mut tx, order.id).await.unwrap();
        let late = in_the_future(saga::AUTHORIZE_TIMEOUT);
        store.apply_trigger(&mut tx, checkout, &Trigger::Timer, &cause(), late).await.unwrap();
        drop(tx);
        assert_eq!(store.order(order.id).await.unwrap().status(), Status::AwaitingPayment);
        assert_eq!(expire_timers(&store, saga::AUTHORIZE_TIMEOUT).await, 1);
        assert_eq!(store.order(order.id).await.unwrap().status(), TIMED_OUT);
    }
}
