//! The payments of several commands in one transaction: one statement locks them, and one updates them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::db::{DbError, DeferredWrite, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::rows::{self, ChangedPayment};
use crate::domain::Payment;

/// The locked payments, as they will be after the transaction.
#[derive(Debug, Default)]
pub(super) struct Batch(BTreeMap<Uuid, ChangedPayment>);

/// Locks payments until the transaction ends. [`Batch::get`] then returns them, and their changes are written together
/// before the commit. Unknown ids are ignored.
pub(super) async fn lock_all(tx: &mut Tx, ids: Vec<Uuid>) -> Result<(), DbError> {
    for payment in rows::lock_all(tx, ids).await? {
        let (id, stored_version) = (payment.id, payment.version);
        let batched = ChangedPayment { latest: payment, stored_version, due: None, traceparent: None };
        tx.deferred::<Batch>().0.insert(id, batched);
    }
    Ok(())
}

impl Batch {
    pub(super) fn get(&self, id: Uuid) -> Option<&Payment> {
        self.0.get(&id).map(|batched| &batched.latest)
    }

    /// Changes a payment if it is one of the batch. Returns whether it is.
    pub(super) fn change(
        &mut self,
        payment: &Payment,
        due: Option<OffsetDateTime>,
        traceparent: Option<&str>,
    ) -> bool {
        let Some(batched) = self.0.get_mut(&payment.id) else { return false };
        batched.latest = payment.clone();
        batched.due = due;
        batched.traceparent = traceparent.map(str::to_owned).or_else(|| batched.traceparent.take());
        true
    }
}

#[async_trait(?Send)]
impl DeferredWrite for Batch {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let is_changed = |batched: &ChangedPayment| batched.latest.version != batched.stored_version;
        let changed: Vec<_> = self.0.into_values().filter(is_changed).collect();
        let updated = rows::update_all(tx, &changed).await?;
        // Impossible while the rows are locked.
        if updated == changed.len() as u64 { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
    }

    fn locks_contended_rows(&self) -> bool {
        false
    }
}
