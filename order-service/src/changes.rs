//! Who waits for an order is woken when it changes.
//!
//! A commit in this process wakes at once. A change by another replica is found by looking again, soon
//! at first and then every [`LOOK`], so that any replica can serve anybody.

use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

/// The longest time between two looks.
pub const LOOK: Duration = Duration::from_millis(400);
/// The time to the first look: most orders are paid in a moment.
const SOON: Duration = Duration::from_millis(25);

/// Changes that a slow waiter may be behind; one that is further behind looks at once.
const KEPT: usize = 1024;

/// Tells which orders changed. Clones share it.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Uuid>);

/// Waits for the changes of one order.
#[derive(Debug)]
pub struct Watch {
    order: Uuid,
    changes: broadcast::Receiver<Uuid>,
    pause: Duration,
}

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Changes {
    /// Says that `order` changed.
    pub fn tell(&self, order: Uuid) {
        // An error means that nobody waits.
        self.0.send(order).map(drop).unwrap_or_default();
    }

    /// Watches `order`. Begin before the first look, or a change in between is noticed late.
    pub fn watch(&self, order: Uuid) -> Watch {
        Watch { order, changes: self.0.subscribe(), pause: SOON }
    }
}

impl Watch {
    /// Resolves when it is time to look at the order again.
    pub async fn changed(&mut self) {
        self.pause = match tokio::time::timeout(self.pause, self.told()).await {
            Ok(()) => SOON,
            Err(_) => (2 * self.pause).min(LOOK),
        };
    }

    async fn told(&mut self) {
        loop {
            match self.changes.recv().await {
                Ok(order) if order != self.order => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_the_order_wakes_and_one_of_another_does_not() {
        let changes = Changes::default();
        let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
        let mut watch = changes.watch(mine);
        changes.tell(other);
        changes.tell(mine);
        watch.told().await;
        changes.tell(other);
        let woken = tokio::time::timeout(Duration::from_millis(1), watch.told()).await;
        assert!(woken.is_err());
    }

    #[tokio::test]
    async fn whoever_is_far_behind_looks_at_once() {
        let changes = Changes::default();
        let mut watch = changes.watch(Uuid::now_v7());
        for _ in 0..=KEPT {
            changes.tell(Uuid::now_v7());
        }
        watch.told().await;
    }
}
