//! How many orders of one customer may await payment: each reserves stock, so that without a limit one customer
//! could take the whole catalogue out of sale and never pay.

use shared::db::{Tx, query};
use uuid::Uuid;

use super::Store;
use crate::domain::Status;
use crate::error::Error;

impl Store {
    /// [`Error::TooManyAwaitPayment`] if the customer has no room for another order. From here to the end of the
    /// transaction, other orders of the same customer wait: otherwise each of them would count before the others
    /// are written.
    pub async fn check_awaiting_payment(&self, tx: &mut Tx, customer_id: Uuid) -> Result<(), Error> {
        let Some(max) = self.max_awaiting_payment else { return Ok(()) };
        query("INSERT INTO customers (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET id = excluded.id")
            .bind(customer_id)
            .execute(&mut *tx)
            .await?;
        let count = query("SELECT COUNT(*) AS orders FROM orders WHERE customer_id = $1 AND status = $2")
            .bind(customer_id)
            .bind(Status::AwaitingPayment.as_str())
            .fetch_one(tx)
            .await?;
        let open: i64 = count.get("orders")?;
        if open < i64::from(max) { Ok(()) } else { Err(Error::TooManyAwaitPayment) }
    }
}
