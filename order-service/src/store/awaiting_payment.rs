//! Limits the orders of one customer that await payment. Each of them reserves stock. Without a limit, one customer
//! could reserve the whole stock and never pay.

use shared::db::{Tx, query};
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
            query("INSERT INTO customers (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET id = excluded.id")
                .bind(customer_id)
                .execute(&mut *tx)
                .await?;
        }
        let count = query("SELECT COUNT(*) AS orders FROM orders WHERE customer_id = $1 AND status = $2")
            .bind(customer_id)
            .bind(Status::AwaitingPayment.as_str())
            .fetch_one(tx)
            .await?;
        let open: i64 = count.get("orders")?;
        if open < i64::from(max) { Ok(()) } else { Err(Error::TooManyAwaitPayment) }
    }
}
