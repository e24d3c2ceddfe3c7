//! Who waits for an order hears of it when it changes.
//!
//! A commit in this process tells at once. What another replica changed is found by [`look`], so that any
//! replica can serve anybody: it reads all orders that somebody waits for together, soon after somebody
//! began to wait or something changed, and then less and less often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::stop::Stop;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::domain::Order;
use crate::store::Store;

/// The shortest time between two looks.
const SOON: Duration = Duration::from_millis(50);
/// The longest.
const LATE: Duration = Duration::from_millis(400);

/// The orders that somebody waits for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    orders: Mutex<BTreeMap<Uuid, watch::Sender<Order>>>,
    begun: Notify,
}

/// Waits for the changes of one order.
#[derive(Debug)]
pub struct Watch(watch::Receiver<Order>);

impl Changes {
    /// Says how an order is now; answers whether that was news to somebody.
    pub fn tell(&self, order: &Order) -> bool {
        let orders = self.orders();
        orders.get(&order.id).is_some_and(|known| {
            known.send_if_modified(|known| {
                let is_news = known.version() < order.version();
                if is_news {
                    known.clone_from(order);
                }
                is_news
            })
        })
    }

    /// Watches an order that was read as `order`.
    pub fn watch(&self, order: &Order) -> Watch {
        let mut orders = self.orders();
        let known = orders.entry(order.id).or_insert_with(|| watch::Sender::new(order.clone()));
        let mut watch = known.subscribe();
        if watch.borrow().version() > order.version() {
            watch.mark_changed();
        }
        self.0.begun.notify_one();
        Watch(watch)
    }

    /// The orders that somebody still waits for, and their versions as far as they are known here.
    fn known(&self) -> Vec<(Uuid, i64)> {
        let mut orders = self.orders();
        orders.retain(|_, known| known.receiver_count() > 0);
        orders.iter().map(|(id, known)| (*id, known.borrow().version())).collect()
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<Uuid, watch::Sender<Order>>> {
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The order, after it has changed.
    pub async fn changed(&mut self) -> Order {
        if self.0.changed().await.is_err() {
            // Its sender stays as long as somebody waits.
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}

/// Looks for what other replicas change, until told to stop.
pub async fn look(store: Store, stop: Stop) {
    let changes = store.changes();
    let mut pause = LATE;
    while !stop.is_requested() {
        tokio::select! {
            () = stop.sleep(pause) => {}
            () = changes.0.begun.notified() => {
                pause = SOON;
                stop.sleep(SOON).await;
            }
        }
        let news = store.newer(&changes.known()).await.unwrap_or_else(|error| {
            log::warn!(error:%; "changes cannot be looked for");
            Vec::new()
        });
        let mut is_news = false;
        for order in &news {
            is_news |= changes.tell(order);
        }
        pause = if is_news { SOON } else { (2 * pause).min(LATE) };
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use shared::db::now;

    use super::*;
    use crate::domain::Status;

    fn order() -> Order {
        Order::place(Uuid::now_v7(), Vec::new(), now()).unwrap()
    }

    fn confirmed(order: &Order) -> Order {
        order.clone().change_to(Status::Confirmed, now()).unwrap()
    }

    #[tokio::test]
    async fn a_change_of_the_order_is_told_and_one_of_another_is_not() {
        let (changes, mine, other) = (Changes::default(), order(), order());
        let mut watch = changes.watch(&mine);
        assert!(!changes.tell(&confirmed(&other)));
        assert!(!changes.tell(&mine), "that is known");
        assert!(watch.changed().now_or_never().is_none());
        assert!(changes.tell(&confirmed(&mine)));
        assert_eq!(watch.changed().await.status(), Status::Confirmed);
        assert!(!changes.tell(&mine), "that is older");
        assert!(watch.changed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_comes_later_with_an_older_order_hears_at_once_how_it_is() {
        let (changes, order) = (Changes::default(), order());
        let _first = changes.watch(&order);
        changes.tell(&confirmed(&order));
        let mut second = changes.watch(&order);
        assert_eq!(second.changed().await.status(), Status::Confirmed);
    }

    #[test]
    fn an_order_is_forgotten_when_nobody_waits_for_it() {
        let (changes, order) = (Changes::default(), order());
        let watch = changes.watch(&order);
        assert_eq!(changes.known(), [(order.id, order.version())]);
        drop(watch);
        assert!(changes.known().is_empty());
    }
}
