//! Limits the orders of one customer that await payment. Each of them reserves stock. Without a limit, one customer
//! could reserve the whole stock and never pay.

use std::collections::BTreeMap;

use shared::db::{DbError, Tx, query};
use uuid::Uuid;

use super::Store;
use crate::domain::Status;
use crate::error::Error;

/// The number of each customer's orders that await payment, and its limit.
pub(super) struct Unpaid {
    max: Option<u32>,
    by_customer: BTreeMap<Uuid, i64>,
}

impl Unpaid {
    /// # Errors
    /// [`Error::TooManyAwaitPayment`] if the customer has reached the limit.
    pub(super) fn check(&self, customer_id: Uuid) -> Result<(), Error> {
        let unpaid = self.by_customer.get(&customer_id).copied().unwrap_or_default();
        let is_reached = self.max.is_some_and(|max| unpaid >= i64::from(max));
        if is_reached { Err(Error::TooManyAwaitPayment) } else { Ok(()) }
    }

    /// Counts a new order.
    pub(super) fn add(&mut self, customer_id: Uuid) {
        *self.by_customer.entry(customer_id).or_default() += 1;
    }
}

impl Store {
    /// Counts the orders of these customers that await payment.
    pub(super) async fn unpaid(&self, tx: &mut Tx, customer_ids: &[Uuid]) -> Result<Unpaid, DbError> {
        let mut unpaid = Unpaid { max: self.max_awaiting_payment, by_customer: BTreeMap::new() };
        if unpaid.max.is_some() {
            // Databases use the index `orders_awaiting_payment` only if the status is part of the statement, and SQLite only if
            // a subquery reads the orders of one customer.
            let count = query(format!(
                "SELECT value AS customer_id, \
                 (SELECT COUNT(*) FROM orders WHERE customer_id = value AND status = '{}') AS orders \
                 FROM UNNEST($1) AS value",
                Status::AwaitingPayment.as_str()
            ));
            for row in count.bind(customer_ids.to_vec()).fetch_all(tx).await? {
                unpaid.by_customer.insert(row.get("customer_id")?, row.get("orders")?);
            }
        }
        Ok(unpaid)
    }

    /// Locks the rows of customers until the transaction ends, in the order of their ids. So new orders of one customer are
    /// placed one after the other, and each counts all earlier ones. On SQLite, the transaction has locked the whole
    /// database already.
    pub(super) async fn lock_customers(&self, tx: &mut Tx, ids: &[Uuid]) -> Result<(), DbError> {
        if self.max_awaiting_payment.is_none() || !tx.locks_rows() {
            return Ok(());
        }
        let lock =
            || query("SELECT id FROM customers WHERE id = ANY($1) ORDER BY id FOR UPDATE").bind(ids.to_vec());
        // A customer who has ordered before has a row. With several customers, missing rows are inserted before any is locked,
        // so that no transaction holds a row while it waits for a new one.
        let are_locked = ids.len() == 1 && !lock().fetch_all(&mut *tx).await?.is_empty();
        if !are_locked {
            let insert = query(
                "INSERT INTO customers (id) SELECT value FROM UNNEST($1) AS value ORDER BY value \
                 ON CONFLICT (id) DO NOTHING",
            );
            insert.bind(ids.to_vec()).execute(&mut *tx).await?;
            lock().fetch_all(tx).await?;
        }
        Ok(())
    }
}
