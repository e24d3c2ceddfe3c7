//! Products, their stock, orders with their sagas, and the history of every order.
//!
//! A method that writes takes the transaction of its caller, because an idempotency key or an inbox row
//! belongs to the same transaction. The chassis commits. A method that only reads uses the pool.
//!
//! - An order changes only by [`Store::proceed`]: it locks the order's row, lets [`crate::checkout`] decide,
//!   and writes the order, its saga, the moved stock, the outgoing messages and the timeline row together.
//!   A crash before the commit leaves nothing, a crash after it loses nothing.
//! - Locks are taken in one order: the order's row, then stock by product id.
//! - Optimistic locking: an update names the version that was read, and each version has one timeline row.
//!   A stale writer updates no row.

mod events; // the commands that are put into the outbox
mod notifier; // change notification, also across replicas
mod orders; // place, advance, and their timers
mod products; // the catalogue
mod reading; // orders, lists, timelines, sagas
mod rows; // rows into domain types
mod seed; // something to order on the first day
mod stock; // moves and adjustments

pub use events::PAYMENTS;
pub use notifier::{Notifier, Subscription};
pub use orders::{Cause, Checkout};
pub use products::Listed;
pub use reading::{Filter, SagaRow, TimelineEntry};
pub use stock::{Adjusted, Adjustment};

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
        Self { db, outbox, notifier: Notifier::default(), instance: instance.into() }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }
}
