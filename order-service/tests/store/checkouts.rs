//! Orders change together with their stock, commands and timelines.

use order_service::checkout::{Refusal, Trigger};
use order_service::domain::{Order, Reason, Status};
use order_service::error::Error;
use shared::db::{DbError, now, query, testing};
use uuid::Uuid;

use crate::harness::*;

#[actix_web::test]
async fn a_paid_order_moves_its_stock_from_on_hand_to_sold() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 3)]).await.unwrap();
        assert_eq!(order.total.amount(), 1050);
        assert_eq!(stock_columns(&store, &tea).await, (7, 3, 0));
        apply(&store, &order, Trigger::Authorized).await.unwrap();
        apply(&store, &order, Trigger::Captured).await.unwrap();
        assert_eq!(stock_columns(&store, &tea).await, (7, 0, 3));
        assert_eq!(commands(&store, &order).await, ["authorize", "capture"]);
    }
}

#[actix_web::test]
async fn a_rejected_and_a_refunded_order_return_their_stock() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let rejected = place(&store, &[(&tea, 3)]).await.unwrap();
        apply(&store, &rejected, Trigger::Declined(Reason::CardDeclined)).await.unwrap();
        assert_eq!(stock_columns(&store, &tea).await, (10, 0, 0));

        let order = confirmed(&store, &[(&tea, 4)]).await;
        assert_eq!(stock_columns(&store, &tea).await, (6, 0, 4));
        apply(&store, &order, Trigger::Cancel).await.unwrap();
        let order = apply(&store, &order, Trigger::Refunded).await.unwrap();
        assert_eq!((order.status(), stock_columns(&store, &tea).await), (Status::Refunded, (10, 0, 0)));
        assert_eq!(commands(&store, &order).await, ["authorize", "capture", "refund"]);
    }
}

#[actix_web::test]
async fn two_buyers_for_the_last_item_one_wins() {
    for store in stores().await {
        let last = product(&store, 1).await;
        let plenty = product(&store, 100).await;
        let lines = [(&plenty, 1), (&last, 1)];
        let (one, other) = futures_util::join!(place(&store, &lines), place(&store, &lines));
        let (won, lost) = if one.is_ok() { (one, other) } else { (other, one) };
        assert_eq!(won.unwrap().status(), Status::AwaitingPayment);
        assert!(matches!(lost, Err(Error::OutOfStock(lines)) if lines == [1]), "the line is named");
        assert_eq!(stock_columns(&store, &last).await, (0, 1, 0));
        assert_eq!(stock_columns(&store, &plenty).await, (99, 1, 0), "the refused order reserved nothing");
    }
}

#[actix_web::test]
async fn orders_with_the_same_products_in_different_order_do_not_deadlock() {
    for store in stores().await {
        let (a, b) = (product(&store, 100).await, product(&store, 100).await);
        let orders = (0..20).map(|index| {
            let (store, lines) =
                (&store, if index % 2 == 0 { [(&a, 1), (&b, 2)] } else { [(&b, 2), (&a, 1)] });
            async move { place(store, &lines).await }
        });
        for order in futures_util::future::join_all(orders).await {
            order.unwrap();
        }
        assert_eq!(
            (stock_columns(&store, &a).await, stock_columns(&store, &b).await),
            ((80, 20, 0), (60, 40, 0))
        );
    }
}

#[actix_web::test]
async fn all_unknown_and_all_out_of_stock_lines_are_named() {
    for store in stores().await {
        let (few, gone) = (product(&store, 1).await, product(&store, 0).await);
        let short = place(&store, &[(&few, 2), (&gone, 1)]).await;
        assert!(matches!(short, Err(Error::OutOfStock(lines)) if lines == [0, 1]));
        let mut unknown = few.clone();
        unknown.product.id = uuid::Uuid::now_v7();
        let refused = place(&store, &[(&few, 1), (&unknown, 1)]).await;
        assert!(matches!(refused, Err(Error::UnknownProduct(lines)) if lines == [1]));
    }
}

#[actix_web::test]
async fn several_orders_are_placed_in_one_transaction_or_none_is() {
    for store in stores().await {
        let (tea, milk) = (product(&store, 10).await, product(&store, 4).await);
        let placed = place_all(&store, &[&[(&tea, 3), (&milk, 1)], &[(&tea, 2)]]).await.unwrap();
        for order in &placed {
            assert_eq!(store.order(order.id).await.unwrap(), *order);
            assert_eq!(store.changes_after(order.id, 0).await.unwrap().len(), 1);
            assert_eq!(commands(&store, order).await, ["authorize"]);
        }
        let before = (stock_columns(&store, &tea).await, stock_columns(&store, &milk).await);
        assert_eq!(before, ((5, 5, 0), (3, 1, 0)));

        // Each of them alone could be placed.
        let refused = place_all(&store, &[&[(&tea, 1)], &[(&milk, 2)], &[(&milk, 2)]]).await;
        assert!(matches!(refused, Err(Error::OutOfStock(lines)) if lines == [1, 2]));
        assert_eq!((stock_columns(&store, &tea).await, stock_columns(&store, &milk).await), before);
        assert_eq!(count(&store, "orders").await, 2);
        assert_eq!(count(&store, "outbox").await, 2);
    }
}

#[actix_web::test]
async fn a_quote_for_several_orders_refuses_only_those_that_could_not_be_placed_together() {
    for store in stores().await {
        let store = store.limit_awaiting_payment(Some(2));
        let (tea, gone) = (product(&store, 8).await, product(&store, 0).await);
        let mut unknown = tea.clone();
        unknown.product.id = Uuid::now_v7();
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let carts = [
            (one, cart(&[(&tea, 6)])),
            (other, cart(&[(&tea, 1), (&gone, 1)])),
            (other, cart(&[(&tea, 5)])),
            (other, cart(&[(&unknown, 1)])),
            (one, cart(&[(&tea, 1)])),
            (one, cart(&[(&tea, 1)])),
            (other, cart(&[(&tea, 1)])),
        ];
        let carts: Vec<_> = carts.iter().map(|(customer, cart)| (*customer, cart)).collect();
        let mut tx = store.db().begin().await.unwrap();
        let quotes = store.quote(&mut tx, &carts).await.unwrap();
        let result = |quote: &Result<Order, Error>| match quote {
            Ok(order) => order.lines.iter().map(|line| line.quantity.get()).sum::<i64>().to_string(),
            Err(error) => format!("{error:?}"),
        };
        let short = |line: usize| format!("OutOfStock([{line}])");
        let expected = ["6", &short(1), &short(0), "UnknownProduct([0])", "1", "TooManyAwaitPayment", "1"];
        assert_eq!(quotes.iter().map(result).collect::<Vec<_>>(), expected, "{}", store.db().kind());
    }
}

#[actix_web::test]
async fn a_duplicate_message_changes_nothing() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = confirmed(&store, &[(&tea, 3)]).await;
        for trigger in
            [Trigger::Authorized, Trigger::Captured, Trigger::Voided, Trigger::Refunded, Trigger::Timer]
        {
            assert_eq!(apply(&store, &order, trigger).await.unwrap(), order);
        }
        assert_eq!(stock_columns(&store, &tea).await, (7, 0, 3));
        assert_eq!(commands(&store, &order).await, ["authorize", "capture"]);
    }
}

#[actix_web::test]
async fn a_refusal_changes_nothing() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = confirmed(&store, &[(&tea, 3)]).await;
        let shipped = apply(&store, &order, Trigger::Ship).await.unwrap();
        let refused = apply(&store, &order, Trigger::Cancel).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::NotCancellable(Status::Shipped)))));
        assert_eq!(store.order(order.id).await.unwrap(), shipped);
    }
}

#[actix_web::test]
async fn a_concurrent_cancel_and_authorization_on_two_replicas_take_turns_and_all_is_undone() {
    for url in testing::urls().await {
        let (one, other) = (open(&url).await, open(&url).await);
        let tea = product(&one, 10).await;
        for _ in 0..20 {
            let order = place(&one, &[(&tea, 3)]).await.unwrap();
            let (authorized, cancelled) = futures_util::join!(
                apply(&one, &order, Trigger::Authorized),
                apply(&other, &order, Trigger::Cancel)
            );
            authorized.unwrap();
            cancelled.unwrap();
            assert_eq!(one.order(order.id).await.unwrap().status(), Status::Cancelling);
            let captured = commands(&one, &order).await == ["authorize", "capture"];
            let (answers, end) = match captured {
                true => (vec![Trigger::Captured, Trigger::Refunded], Status::Refunded),
                false => (vec![Trigger::Voided], Status::Cancelled),
            };
            for answer in answers {
                apply(&one, &order, answer).await.unwrap();
            }
            assert_eq!(one.order(order.id).await.unwrap().status(), end);
            assert_eq!(stock_columns(&one, &tea).await, (10, 0, 0));
        }
    }
}

#[actix_web::test]
async fn two_concurrent_cancels_on_two_replicas_take_turns_and_the_second_changes_nothing() {
    for url in testing::urls().await {
        let (one, other) = (open(&url).await, open(&url).await);
        let tea = product(&one, 10).await;
        for _ in 0..20 {
            let order = place(&one, &[(&tea, 3)]).await.unwrap();
            let (first, second) = futures_util::join!(
                apply(&one, &order, Trigger::Cancel),
                apply(&other, &order, Trigger::Cancel)
            );
            assert_eq!(first.unwrap(), second.unwrap());
            assert_eq!(commands(&one, &order).await, ["authorize", "void"]);
            assert_eq!(stock_columns(&one, &tea).await, (10, 0, 0));
        }
    }
}

/// The paused replica continues after another replica has changed the order.
#[actix_web::test]
async fn a_replica_that_was_paused_past_its_lock_writes_nothing() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 3)]).await.unwrap();
        let mut paused = store.db().begin().await.unwrap();
        let stale = store.lock(&mut paused, order.id).await.unwrap();
        drop(paused);
        apply(&store, &order, Trigger::Authorized).await.unwrap();

        let mut tx = store.db().begin().await.unwrap();
        let late = store.apply_trigger(&mut tx, stale, &Trigger::Cancel, &cause(), now()).await;
        assert!(matches!(late, Err(Error::Stale)));
        drop(tx);
        assert_eq!(store.order(order.id).await.unwrap().status(), Status::AwaitingPayment);
        assert_eq!(stock_columns(&store, &tea).await, (7, 3, 0));
    }
}

#[actix_web::test]
async fn the_database_refuses_what_breaks_the_stock_equation() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        for change in
            ["on_hand = on_hand - 1", "sold = sold + 1", "on_hand = -1, adjusted = -11", "initial = 11"]
        {
            let broken = query(format!("UPDATE stock SET {change} WHERE product_id = $1"));
            let refused = broken.bind(tea.product.id).execute(store.db()).await;
            assert!(matches!(refused, Err(DbError::Refused(_))), "{change}: {refused:?}");
        }
        assert_eq!(stock_columns(&store, &tea).await, (10, 0, 0));
    }
}

#[actix_web::test]
async fn the_timeline_shows_every_change_and_is_append_only() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = confirmed(&store, &[(&tea, 1)]).await;
        let changes = store.changes_after(order.id, 0).await.unwrap();
        let statuses: Vec<_> = changes
            .iter()
            .map(|change| (change.version, change.from.as_deref(), change.to.as_str()))
            .collect();
        assert_eq!(
            statuses,
            [
                (1, None, "awaiting_payment"),
                (2, Some("awaiting_payment"), "awaiting_payment"),
                (3, Some("awaiting_payment"), "confirmed")
            ]
        );
        assert!(changes.iter().all(|change| change.instance == "replica-1"));
        assert_eq!(store.changes_after(order.id, 2).await.unwrap(), changes[2..]);
        for rewrite in ["UPDATE order_events SET cause = 'x'", "DELETE FROM order_events"] {
            assert!(query(rewrite).execute(store.db()).await.is_err(), "{rewrite}");
        }
    }
}

#[actix_web::test]
async fn an_order_keeps_the_prices_it_was_placed_at() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 2)]).await.unwrap();
        let mut tx = store.db().begin().await.unwrap();
        store.change_product(&mut tx, tea.product.id, |_| Ok(details("New tea", 9_999))).await.unwrap();
        tx.commit().await.unwrap();
        let kept = store.order(order.id).await.unwrap();
        assert_eq!((kept.total.amount(), kept.lines[0].name.as_str()), (700, "Green tea"));
        assert_eq!(kept, order);
    }
}

#[actix_web::test]
async fn an_order_that_awaits_payment_is_not_read_for_those_that_wait_until_its_status_changes() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let order = place(&store, &[(&tea, 1)]).await.unwrap();
        let known = [(order.id, order.version())];
        let order = apply(&store, &order, Trigger::Authorized).await.unwrap();
        assert_eq!(order.status(), Status::AwaitingPayment);
        assert_eq!(store.newer_than(&known).await.unwrap(), []);
        let order = apply(&store, &order, Trigger::Captured).await.unwrap();
        assert_eq!(store.newer_than(&known).await.unwrap(), [order]);
    }
}

#[actix_web::test]
async fn the_orders_of_a_batch_are_written_at_its_end_with_all_changes_of_each() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let place = async |quantity| place(&store, &[(&tea, quantity)]).await.unwrap();
        let (one, other, third) = (place(1).await, place(2).await, place(3).await);
        let mut tx = store.db().begin().await.unwrap();
        store.lock_all(&mut tx, vec![one.id, other.id, third.id, Uuid::now_v7()]).await.unwrap();
        let changes = [
            (&one, Trigger::Authorized),
            (&other, Trigger::Authorized),
            (&third, Trigger::Authorized),
            (&one, Trigger::Captured),
        ];
        for (order, trigger) in changes {
            store.lock_and_apply_trigger(&mut tx, order.id, &trigger, &cause()).await.unwrap();
        }
        let stored =
            query("SELECT COUNT(*) AS orders FROM orders WHERE version = 1").fetch_one(&mut tx).await;
        assert_eq!(stored.unwrap().get::<i64>("orders").unwrap(), 3, "nothing is written yet");
        tx.commit().await.unwrap();
        assert_eq!(store.order(one.id).await.unwrap().status(), Status::Confirmed);
        for order in [&other, &third] {
            assert_eq!(store.order(order.id).await.unwrap().version(), 2);
        }
        assert_eq!(stock_columns(&store, &tea).await, (4, 5, 1));
        assert_eq!(commands(&store, &one).await, ["authorize", "capture"]);
    }
}
