//! The orders of several events in one transaction: one statement locks them, and one updates them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::db::{DbError, DeferredWrite, Tx, padded, placeholders, query};
use uuid::Uuid;

use super::rows::{LockedOrder, bind_state};
use super::{Store, rows};
use crate::checkout::Saga;
use crate::domain::Order;

/// The locked orders, as they will be after the transaction.
#[derive(Debug, Default)]
pub(super) struct Batch(BTreeMap<Uuid, BatchedOrder>);

#[derive(Debug)]
struct BatchedOrder {
    latest: LockedOrder,
    stored_version: i64,
}

impl Store {
    /// Locks orders, in the order of their ids, until the transaction ends. For them, [`Store::lock`] then needs no
    /// statement, and their changes are written together before the commit. Unknown ids are ignored.
    pub async fn lock_all(&self, tx: &mut Tx, ids: Vec<Uuid>) -> Result<(), DbError> {
        let sql = format!("SELECT {} FROM orders WHERE id = ANY($1) ORDER BY id FOR UPDATE", rows::ORDER);
        for row in query(sql).bind(ids).fetch_all(&mut *tx).await? {
            let latest = LockedOrder::of(&row)?;
            let (id, stored_version) = (latest.order.id, latest.order.version());
            tx.deferred::<Batch>().0.insert(id, BatchedOrder { latest, stored_version });
        }
        Ok(())
    }
}

impl Batch {
    pub(super) fn get(&self, id: Uuid) -> Option<&LockedOrder> {
        self.0.get(&id).map(|batched| &batched.latest)
    }

    /// Changes an order if it is one of the batch. Returns whether it is.
    pub(super) fn change(&mut self, order: &Order, saga: &Saga) -> bool {
        let Some(BatchedOrder { latest, .. }) = self.0.get_mut(&order.id) else { return false };
        (latest.order, latest.saga) = (order.clone(), saga.clone());
        true
    }
}

#[async_trait(?Send)]
impl DeferredWrite for Batch {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let is_changed = |batched: &BatchedOrder| batched.latest.order.version() != batched.stored_version;
        let changed: Vec<_> = self.0.into_values().filter(is_changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let rows = padded(&changed);
        let update = query(format!(
            "WITH new (id, stored_version, status, reason, version, updated_at, step, attempts, deadline, wake_at, \
                last_error) AS (VALUES {}) \
             UPDATE orders SET status = new.status, reason = new.reason, version = new.version, \
                updated_at = new.updated_at, step = new.step, attempts = new.attempts, deadline = new.deadline, \
                wake_at = new.wake_at, last_error = new.last_error \
             FROM new WHERE orders.id = new.id AND orders.version = new.stored_version",
            placeholders(1, 11, rows.len())
        ));
        let update = rows.into_iter().fold(update, |update, BatchedOrder { latest, stored_version }| {
            let update = update.bind(latest.order.id).bind(*stored_version);
            bind_state(update, &latest.order, &latest.saga)
        });
        let updated = update.execute(tx).await?;
        // Impossible while the rows are locked.
        if updated == changed.len() as u64 { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
    }

    fn locks_contended_rows(&self) -> bool {
        false
    }
}
