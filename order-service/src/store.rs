//! Products, stock, and orders with their sagas and timelines.
//!
//! A method that writes takes the transaction of its caller, because the idempotency key or the inbox row of
//! the request belongs to the same transaction. The chassis commits it. A method that only reads uses the pool.
//!
//! - After an order is placed, it changes only by [`Store::apply_trigger`]. (The exception is [`Store::postpone`]: it
//!   delays a timer and changes nothing else.) [`crate::checkout`] makes the decision. Then the order, its saga, its
//!   stock, the outgoing messages and the timeline entry are written together. After a crash, either all of these
//!   writes exist or none.
//! - Locks are always taken in the same order: the customers' rows (only when orders are placed), the orders' rows, then
//!   stock rows; each in the order of their ids.
//! - Optimistic locking: an update names the version that was read. A stale writer updates no row and gets
//!   [`Error::Stale`](crate::error::Error::Stale).

mod awaiting_payment; // the limit of a customer's unpaid orders
mod batch; // the orders of several events in one transaction
mod commands; // commands to payment-service, as rows of the outbox
mod notifier; // change notification
mod orders; // placing, changing, timers
mod products; // the catalogue
mod queries; // orders, lists, timelines, sagas
mod rows; // from rows to domain types
mod seed; // a few products
mod stock; // moves between columns, adjustments

pub use notifier::{Notifier, Subscription};
pub use orders::{Cause, NewOrder};
pub use products::CatalogueItem;
pub use queries::{Filter, SagaRow, TimelineEntry};
pub use rows::LockedOrder;
pub use stock::Adjustment;

use std::sync::Arc;

use shared::db::{Db, Migrations};
use shared::messages::Outbox;

/// Clones share the database and the notifier.
#[derive(Clone)]
pub struct Store {
    db: Db,
    outbox: Outbox,
    notifier: Notifier,
    instance: Arc<str>,
    /// The maximum of one customer's orders that await payment; `None` without a limit.
    max_awaiting_payment: Option<u32>,
}

pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

impl Store {
    /// `instance` names this replica in timelines.
    pub fn new(db: Db, outbox: Outbox, instance: &str) -> Self {
        let (notifier, instance) = (Notifier::default(), instance.into());
        Self { db, outbox, notifier, instance, max_awaiting_payment: None }
    }

    pub fn limit_awaiting_payment(self, max: Option<u32>) -> Self {
        Self { max_awaiting_payment: max, ..self }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }
}
