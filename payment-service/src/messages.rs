//! Commands of order-service, and the events that answer them.
//!
//! | command | event |
//! |---|---|
//! | `payment.authorize.v1 {payment_id, order_id, customer_id, amount, token}` | `payment.authorized.v1` or `payment.declined.v1 {code}` |
//! | `payment.capture.v1 {payment_id}` | `payment.captured.v2 {amount}` or `payment.declined.v1 {code}` |
//! | `payment.void.v1 {payment_id, order_id, customer_id, amount}` | `payment.voided.v1`, or `payment.captured.v2 {amount}` if it came too late |
//! | `payment.refund.v1 {payment_id, reason}` | `payment.refunded.v1`, when all money was given back |
//!
//! `payment.stuck.v1 {operation, reason}` reports that an operation (`authorize`, `capture`, `void` or
//! `refund`) takes too long; its own event may still follow. Every event has `payment_id` and `order_id`.
//! A repeated command is answered again, once its outcome is known. The store
//! [writes](crate::store) the events.

use async_trait::async_trait;
use serde::Deserialize;
use shared::db::Tx;
use shared::messages::{Delivery, Event, HandleError, Handler};
use uuid::Uuid;

use crate::domain::{Currency, Money, MoneyError, Purchase};
use crate::error::Error;
use crate::store::Store;

/// Handles the commands of order-service.
#[derive(Clone, Debug)]
pub struct CommandHandler {
    store: Store,
}

#[derive(Deserialize)]
struct Authorize {
    #[serde(flatten)]
    terms: Terms,
    token: String,
}

#[derive(Deserialize)]
struct Terms {
    payment_id: Uuid,
    order_id: Uuid,
    customer_id: Uuid,
    amount: Amount,
}

#[derive(Deserialize)]
struct Amount {
    amount: i64,
    currency: Currency,
}

/// What every command has.
#[derive(Deserialize)]
struct PaymentId {
    payment_id: Uuid,
}

#[derive(Deserialize)]
struct Refund {
    payment_id: Uuid,
    reason: String,
}

impl CommandHandler {
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait(?Send)]
impl Handler for CommandHandler {
    async fn handle(&self, tx: &mut Tx, event: &Event, _: Delivery) -> Result<(), HandleError> {
        let trace = event.traceparent.as_deref();
        match event.kind.as_str() {
            "payment.authorize.v1" => {
                let Authorize { terms, token } = event.read()?;
                self.store.authorize(tx, terms.try_into()?, token, trace).await?;
            }
            "payment.capture.v1" => {
                let PaymentId { payment_id } = event.read()?;
                self.store.capture(tx, payment_id, trace).await?;
            }
            "payment.void.v1" => {
                let terms: Terms = event.read()?;
                self.store.void(tx, terms.try_into()?, trace).await?;
            }
            "payment.refund.v1" => {
                let Refund { payment_id, reason } = event.read()?;
                self.store.refund_rest(tx, payment_id, &reason, trace).await?;
            }
            _ => return Err(HandleError::UnknownType),
        }
        Ok(())
    }

    /// Locks the payments of all commands with one statement, in the order of their orders' ids. An authorization creates
    /// its payment.
    async fn prepare(&self, tx: &mut Tx, events: &[&Event]) -> Result<(), HandleError> {
        if events.iter().all(|event| event.kind == "payment.authorize.v1") {
            return Ok(());
        }
        let ids = events.iter().filter_map(|event| event.read::<PaymentId>().ok());
        let ids = ids.map(|PaymentId { payment_id }| payment_id).collect();
        Ok(self.store.lock_all(tx, ids).await?)
    }
}

impl TryFrom<Terms> for Purchase {
    type Error = MoneyError;

    fn try_from(terms: Terms) -> Result<Self, MoneyError> {
        let Terms { payment_id: id, order_id, customer_id, amount: Amount { amount, currency } } = terms;
        Ok(Self { id, order_id, customer_id, amount: Money::new(amount, currency)? })
    }
}

impl From<MoneyError> for HandleError {
    fn from(error: MoneyError) -> Self {
        Self::Rejected(error.to_string())
    }
}

impl From<Error> for HandleError {
    fn from(error: Error) -> Self {
        match error {
            Error::Db(error) => Self::Db(error),
            refused => Self::Rejected(refused.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(amount: Value) -> Result<Money, String> {
        let terms = json!({
            "payment_id": Uuid::nil(), "order_id": Uuid::nil(), "customer_id": Uuid::nil(), "amount": amount,
        });
        let terms = serde_json::from_value::<Terms>(terms).map_err(|error| error.to_string())?;
        Purchase::try_from(terms).map(|purchase| purchase.amount).map_err(|error| error.to_string())
    }

    #[test]
    fn only_money_that_exists_is_read() {
        let money = Money::new(250, "EUR".try_into().unwrap()).unwrap();
        assert_eq!(read(json!({ "amount": 250, "currency": "EUR" })), Ok(money));
        for bad in [
            json!({ "amount": -1, "currency": "EUR" }),
            json!({ "amount": 1.5, "currency": "EUR" }),
            json!({ "amount": 1, "currency": "eur" }),
            json!({ "amount": 1, "currency": "EURO" }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
