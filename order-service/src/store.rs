//! What this service remembers: products, their stock, orders with their sagas, and every change.
//!
//! One verb is one transaction, or a part of one that its caller began: a request's idempotency key
//! and a message's inbox row belong to the same transaction as the change.
//!
//! - An order changes only here, by [`Store::proceed`]: its row is locked, [`crate::checkout`] decides,
//!   and the order, its saga, the moved stock, the messages to send and the line of its timeline are
//!   written together. A crash before the commit leaves nothing, a crash after it loses nothing.
//! - Locks are taken in one order: the order's row, then stock by product id.
//! - The version is written only over the one that was read, and each version has one timeline row:
//!   whoever acts on old knowledge writes nothing.

mod orders; // place, advance, and their timers
mod products; // the catalogue
mod reading; // orders, lists, timelines, sagas
mod rows; // rows into domain types
mod stock; // moves and adjustments

pub use orders::{Cause, Checkout};
pub use products::Listed;
pub use reading::{Change, Filter, SagaRow};
pub use stock::{Adjusted, Adjustment};

use std::sync::Arc;

use shared::db::{Db, Migrations};
use shared::messages::Outbox;

use crate::changes::Changes;

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    db: Db,
    outbox: Outbox,
    changes: Changes,
    /// The replica that this is, for timelines.
    instance: Arc<str>,
}

/// The tables, for both databases.
pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

impl Store {
    /// A store in `db`, whose messages go out through `outbox`.
    pub fn new(db: Db, outbox: Outbox, instance: &str) -> Self {
        Self { db, outbox, changes: Changes::default(), instance: instance.into() }
    }

    /// The database, to begin transactions in.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What tells of changes to whoever waits for them.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }
}
