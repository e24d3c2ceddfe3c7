//! Notifies request handlers on this replica when an order changes.
//!
//! A commit on this replica notifies immediately. The background task
//! [`order_updates`](crate::tasks::order_updates) finds changes by other replicas.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::domain::Order;

/// The orders with subscribers on this replica. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Arc<Subscribed>);

#[derive(Debug, Default)]
struct Subscribed {
    orders: Mutex<BTreeMap<Uuid, watch::Sender<Order>>>,
    added: Notify,
}

/// Receives the changes of one order.
#[derive(Debug)]
pub struct Subscription(watch::Receiver<Order>);

impl Notifier {
    /// Notifies the subscribers of `order`. Returns whether it is newer than the version that they have.
    pub fn publish(&self, order: &Order) -> bool {
        let orders = self.orders();
        orders.get(&order.id).is_some_and(|latest| {
            latest.send_if_modified(|latest| {
                let is_newer = latest.version() < order.version();
                if is_newer {
                    latest.clone_from(order);
                }
                is_newer
            })
        })
    }

    /// Subscribes to changes after the version of `order`.
    pub fn subscribe(&self, order: &Order) -> Subscription {
        let mut orders = self.orders();
        let latest = orders.entry(order.id).or_insert_with(|| watch::Sender::new(order.clone()));
        let mut receiver = latest.subscribe();
        if receiver.borrow().version() > order.version() {
            receiver.mark_changed();
        }
        self.0.added.notify_one();
        Subscription(receiver)
    }

    /// Waits for a new subscription. One that was added since the last call counts.
    pub async fn subscriber_added(&self) {
        self.0.added.notified().await;
    }

    /// The orders that have subscribers, with the latest version on this replica.
    pub fn subscribed(&self) -> Vec<(Uuid, i64)> {
        let mut orders = self.orders();
        orders.retain(|_, latest| latest.receiver_count() > 0);
        orders.iter().map(|(id, latest)| (*id, latest.borrow().version())).collect()
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<Uuid, watch::Sender<Order>>> {
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Waits for the next change and returns the order after it.
    pub async fn changed(&mut self) -> Order {
        if self.0.changed().await.is_err() {
            // The sender lives as long as there are receivers.
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
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
    async fn subscribers_receive_changes_of_their_order_and_of_no_other() {
        let (notifier, mine, other) = (Notifier::default(), order(), order());
        let mut subscription = notifier.subscribe(&mine);
        assert!(!notifier.publish(&confirmed(&other)));
        assert!(!notifier.publish(&mine), "the same version");
        assert!(subscription.changed().now_or_never().is_none());
        assert!(notifier.publish(&confirmed(&mine)));
        assert_eq!(subscription.changed().await.status(), Status::Confirmed);
        assert!(!notifier.publish(&mine), "an older version");
        assert!(subscription.changed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_subscriber_with_an_older_version_is_notified_immediately() {
        let (notifier, order) = (Notifier::default(), order());
        let _first = notifier.subscribe(&order);
        notifier.publish(&confirmed(&order));
        let mut second = notifier.subscribe(&order);
        assert_eq!(second.changed().await.status(), Status::Confirmed);
    }

    #[test]
    fn an_order_without_subscribers_is_removed() {
        let (notifier, order) = (Notifier::default(), order());
        let subscription = notifier.subscribe(&order);
        assert_eq!(notifier.subscribed(), [(order.id, order.version())]);
        drop(subscription);
        assert!(notifier.subscribed().is_empty());
    }
}
