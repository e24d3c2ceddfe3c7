//! Limits the orders of one customer that await payment. Each of them reserves stock. Without a limit, one customer
//! could reserve the whole stock and never pay.

use shared::db::{DbError, Tx, query};
use uuid::Uuid;

use super::Store;
use crate::domain::Status;
use crate::error::Error;

impl Store {
    /// Locks the customer's row until the transaction ends. So new orders of one customer are placed one after the
    /// other, and each counts all earlier ones. On SQLite, the transaction has locked the whole database already.
    ///
    /// # Errors
    /// [`Error::TooManyAwaitPayment`] if the customer has reached the limit.
    pub async fn check_awaiting_payment_limit(&self, tx: &mut Tx, customer_id: Uuid) -> Result<(), Error> {
        let Some(max) = self.max_awaiting_payment else { return Ok(()) };
        if tx.locks_rows() {
            lock_customer(tx, customer_id).await?;
        }
        // The index `orders_awaiting_payment` is used only if the status is part of the statement.
        let count = query(format!(
            "SELECT COUNT(*) AS orders FROM orders WHERE customer_id = $1 AND status = '{}'",
            Status::AwaitingPayment.as_str()
        ));
        let open: i64 = count.bind(customer_id).fetch_one(tx).await?.get("orders")?;
        if open < i64::from(max) { Ok(()) } else { Err(Error::TooManyAwaitPayment) }
    }
}

/// The count must be a later statement: it sees what was committed before it began.
async fn lock_customer(tx: &mut Tx, id: Uuid) -> Result<(), DbError> {
    let lock = || query("SELECT id FROM customers WHERE id = $1 FOR UPDATE").bind(id);
    if lock().fetch_optional(&mut *tx).await?.is_none() {
        let insert = query("INSERT INTO customers (id) VALUES ($1) ON CONFLICT (id) DO NOTHING");
        insert.bind(id).execute(&mut *tx).await?;
        // Perhaps another transaction has inserted the row.
        lock().fetch_one(tx).await?;
    }
    Ok(())
}
