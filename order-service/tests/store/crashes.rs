//! A crash between any two writes: a transaction that never commits leaves nothing, and the same
//! step done again leaves what it would have left the first time.

use order_service::checkout::Trigger;
use order_service::domain::{Order, Reason, Status};
use order_service::store::{Listed, Store};
use shared::db::query;

use crate::harness::*;

/// Everything that a step of the saga writes.
#[derive(Debug, PartialEq)]
struct Written {
    status: Status,
    version: i64,
    goods: (i64, i64, i64),
    commands: Vec<String>,
    changes: usize,
}

async fn written(store: &Store, order: &Order, tea: &Listed) -> Written {
    let now = store.order(order.id).await.unwrap();
    Written {
        status: now.status(),
        version: now.version(),
        goods: goods(store, tea).await,
        commands: commands(store, order).await,
        changes: store.changes_after(order.id, 0).await.unwrap().len(),
    }
}

async fn count(store: &Store, table: &str) -> i64 {
    let row = query(format!("SELECT COUNT(*) AS rows FROM {table}")).fetch_one(store.db()).await.unwrap();
    row.get("rows").unwrap()
}

fn stuck() -> Trigger {
    Trigger::Stuck { operation: None, reason: "x".to_owned() }
}

#[actix_web::test]
async fn a_crash_while_placing_leaves_no_order_no_reservation_and_no_message() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let mut tx = store.db().begin().await.unwrap();
        place_in(&mut tx, &store, &[(&tea, 3)]).await.unwrap();
        drop(tx);
        assert_eq!(goods(&store, &tea).await, (10, 0, 0));
        for table in ["orders", "order_events", "outbox"] {
            assert_eq!(count(&store, table).await, 0, "{table}");
        }
    }
}

#[actix_web::test]
async fn a_crash_at_any_step_of_the_saga_leaves_nothing_and_the_step_is_done_once() {
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
            for event in history {
                let before = written(&store, &order, &tea).await;
                let mut tx = store.db().begin().await.unwrap();
                store.advance(&mut tx, order.id, event, &cause()).await.unwrap();
                drop(tx);
                assert_eq!(written(&store, &order, &tea).await, before, "a crash before the commit");

                on(&store, &order, event.clone()).await.unwrap();
                let after = written(&store, &order, &tea).await;
                assert_eq!((after.version, after.changes), (before.version + 1, before.changes + 1));
            }
        }
    }
}
