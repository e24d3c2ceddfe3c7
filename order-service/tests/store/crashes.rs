//! Crashes before a commit: the transaction leaves no writes, and the step can be done again.

use order_service::checkout::Trigger;
use order_service::domain::{Order, Reason, Status};
use order_service::store::{CatalogueItem, Store};

use crate::harness::*;

/// The result of all writes of a step.
#[derive(Debug, PartialEq)]
struct Written {
    status: Status,
    version: i64,
    stock: (i64, i64, i64),
    commands: Vec<String>,
    changes: usize,
}

async fn written(store: &Store, order: &Order, tea: &CatalogueItem) -> Written {
    let now = store.order(order.id).await.unwrap();
    Written {
        status: now.status(),
        version: now.version(),
        stock: stock_columns(store, tea).await,
        commands: commands(store, order).await,
        changes: store.changes_after(order.id, 0).await.unwrap().len(),
    }
}

fn stuck() -> Trigger {
    Trigger::PaymentStuck { operation: None, reason: "x".to_owned() }
}

#[actix_web::test]
async fn a_crash_while_placing_leaves_no_order_no_reservation_and_no_message() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let mut tx = store.db().begin().await.unwrap();
        place_in(&mut tx, &store, &[(&tea, 3)]).await.unwrap();
        drop(tx);
        assert_eq!(stock_columns(&store, &tea).await, (10, 0, 0));
        for table in ["orders", "order_events", "outbox"] {
            assert_eq!(count(&store, table).await, 0, "{table}");
        }
    }
}

#[actix_web::test]
async fn a_crash_at_any_step_of_the_saga_leaves_no_writes_and_the_step_is_done_once() {
    let declined = || Trigger::Declined(Reason::CardDeclined);
    let histories = [
        vec![Trigger::Authorized, Trigger::Captured, Trigger::Cancel, Trigger::Refunded],
        vec![Trigger::Authorized, Trigger::Cancel, Trigger::Captured, Trigger::Refunded],
        vec![Trigger::Authorized, declined(), Trigger::Voided],
        vec![declined()],
        vec![Trigger::Cancel, Trigger::Voided],
        vec![Trigger::Authorized, stuck(), Trigger::Resume, Trigger::Captured],
        vec![Trigger::Authorized, stuck(), Trigger::Compensate, Trigger::Voided],
        vec![Trigger::Authorized, Trigger::Captured, Trigger::Ship, Trigger::Deliver],
    ];
    for store in stores().await {
        let tea = product(&store, 1000).await;
        for history in &histories {
            let order = place(&store, &[(&tea, 3)]).await.unwrap();
            for trigger in history {
                let before = written(&store, &order, &tea).await;
                let mut tx = store.db().begin().await.unwrap();
                store.lock_and_apply_trigger(&mut tx, order.id, trigger, &cause()).await.unwrap();
                drop(tx);
                assert_eq!(written(&store, &order, &tea).await, before, "a crash before the commit");

                apply(&store, &order, trigger.clone()).await.unwrap();
                let after = written(&store, &order, &tea).await;
                assert_eq!((after.version, after.changes), (before.version + 1, before.changes + 1));
            }
        }
    }
}
