//! Messages: the commands that payment-service is sent, and the events that it sends back.
//!
//! | sent | says | | handled | means |
//! |---|---|---|---|---|
//! | `payment.authorize.v1` | hold the money | | `payment.authorized.v1` | it is held |
//! | `payment.capture.v1` | take it | | `payment.captured.v2` | it is taken, and how much |
//! | `payment.void.v1` | let it go | | `payment.voided.v1` | it is not held any more |
//! | `payment.refund.v1` | give it back | | `payment.refunded.v1` | it is back |
//! | | | | `payment.declined.v1` | it cannot be held, or taken |
//! | | | | `payment.stuck.v1` | the payment gets nowhere; `reason` begins with what it could not do |
//!
//! The subject is the order's id, so that what concerns one order stays in order; the checkout does
//! not rely on it. `payment.captured.v1`, which did not say how much, is still read.

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::client::Context;
use shared::db::{DbError, Tx, now};
use shared::messages::{Delivery, Event, HandleError, Handler, Upcast};
use uuid::Uuid;

use crate::checkout::{self, Command};
use crate::config::SERVICE;
use crate::domain::money::CURRENCY;
use crate::domain::{Money, Order, Reason};
use crate::error::Error;
use crate::store::{Cause, Store};

/// The service that owns payments.
pub const PAYMENTS: &str = "payment-service";

/// `command` about the payment of `order`, as a message.
pub fn command(order: &Order, command: &Command, context: &Context) -> Event {
    let (kind, data) = match command {
        Command::Authorize(token) => {
            let token = String::from(token.clone());
            ("payment.authorize.v1", with_terms(order, json!({ "token": token })))
        }
        Command::Capture => ("payment.capture.v1", json!({ "payment_id": order.payment_id })),
        // It may arrive before the authorize: then this is all that payments will know.
        Command::Void => ("payment.void.v1", with_terms(order, json!({}))),
        Command::Refund => (
            "payment.refund.v1",
            json!({ "payment_id": order.payment_id, "reason": "the order was not fulfilled" }),
        ),
    };
    Event::new(SERVICE, kind, order.id, data).within(context)
}

fn with_terms(order: &Order, mut data: Value) -> Value {
    data["payment_id"] = json!(order.payment_id);
    data["order_id"] = json!(order.id);
    data["customer_id"] = json!(order.customer_id);
    data["amount"] = json!({ "amount": order.total.amount(), "currency": CURRENCY });
    data
}

/// Handles what payment-service says about the payments of orders.
pub struct PaymentEvents {
    store: Store,
}

/// What all events of a payment say, and what some do.
#[derive(Debug, Deserialize)]
struct Notice {
    payment_id: Uuid,
    order_id: Uuid,
    amount: Option<Amount>,
    code: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Amount {
    amount: i64,
    currency: String,
}

const UPCASTS: [Upcast; 1] = [Upcast {
    from: "payment.captured.v1",
    to: "payment.captured.v2",
    data: |data| drop(data.insert("amount".to_owned(), Value::Null)),
}];

impl PaymentEvents {
    /// A handler that takes the orders in `store` on.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn take_on(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError> {
        let (kind, notice) = (kind(event)?, event.read::<Notice>()?);
        let happened = happened(kind, &notice);
        let checkout = self.store.lock(tx, notice.order_id).await?;
        if checkout.order.payment_id != notice.payment_id {
            return Err(HandleError::Rejected("the order has another payment".to_owned()));
        }
        if notice.amount.is_some_and(|amount| !amount.is(checkout.order.total)) {
            return Err(HandleError::Rejected("the order costs something else".to_owned()));
        }
        let cause = Cause {
            name: happened.as_str(),
            message_id: Some(event.id),
            attempt: delivery.attempt,
            context: event.context(),
        };
        self.store.proceed(tx, checkout, &happened, &cause, now()).await?;
        Ok(())
    }
}

impl Handler for PaymentEvents {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
        delivery: Delivery,
    ) -> LocalBoxFuture<'a, Result<(), HandleError>> {
        self.take_on(tx, event, delivery).boxed_local()
    }

    fn upcasts(&self) -> &[Upcast] {
        &UPCASTS
    }
}

impl Amount {
    fn is(&self, money: Money) -> bool {
        self.amount == money.amount() && self.currency == CURRENCY
    }
}

/// The kinds of event that are understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Authorized,
    Declined,
    Captured,
    Voided,
    Refunded,
    Stuck,
}

fn kind(event: &Event) -> Result<Kind, HandleError> {
    match event.kind.as_str() {
        "payment.authorized.v1" => Ok(Kind::Authorized),
        "payment.declined.v1" => Ok(Kind::Declined),
        "payment.captured.v2" => Ok(Kind::Captured),
        "payment.voided.v1" => Ok(Kind::Voided),
        "payment.refunded.v1" => Ok(Kind::Refunded),
        "payment.stuck.v1" => Ok(Kind::Stuck),
        _ => Err(HandleError::UnknownType),
    }
}

fn happened(kind: Kind, notice: &Notice) -> checkout::Event {
    match kind {
        Kind::Authorized => checkout::Event::Authorized,
        Kind::Declined => {
            // Card networks have many codes; what a customer can do about it differs for few.
            let code = notice.code.as_deref().and_then(Reason::named);
            checkout::Event::Declined(code.unwrap_or(Reason::CardDeclined))
        }
        Kind::Captured => checkout::Event::Captured,
        Kind::Voided => checkout::Event::Voided,
        Kind::Refunded => checkout::Event::Refunded,
        Kind::Stuck => {
            let why = notice.reason.clone();
            checkout::Event::Stuck(why.unwrap_or_else(|| "the payment gets nowhere".to_owned()))
        }
    }
}

impl From<Error> for HandleError {
    fn from(error: Error) -> Self {
        match error {
            Error::Db(error) => Self::Db(error),
            // The same message finds the new version when it comes again.
            Error::Stale => Self::Db(DbError::Locked(sqlx::Error::RowNotFound)),
            other => Self::Rejected(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::{Line, Money};

    fn order() -> Order {
        let line = Line {
            product_id: Uuid::now_v7(),
            sku: "TEA".to_owned(),
            name: "Tea".to_owned(),
            quantity: 2.try_into().unwrap(),
            unit_price: Money::cents(350).unwrap(),
        };
        Order::place(Uuid::now_v7(), vec![line], OffsetDateTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn an_authorization_and_a_void_say_all_that_a_payment_is_made_of() {
        let order = order();
        let token = Command::Authorize("tok_visa".to_owned().try_into().unwrap());
        for (sent, kind) in [(token, "payment.authorize.v1"), (Command::Void, "payment.void.v1")] {
            let event = command(&order, &sent, &Context::background());
            assert_eq!((event.kind.as_str(), event.subject), (kind, order.id.to_string()));
            assert_eq!(event.data["payment_id"], order.payment_id.to_string());
            assert_eq!(event.data["customer_id"], order.customer_id.to_string());
            assert_eq!(event.data["amount"], json!({ "amount": 700, "currency": "EUR" }));
        }
    }

    #[test]
    fn an_unknown_decline_code_is_a_declined_card_and_an_unknown_type_is_not_understood() {
        let notice = |code: &str| Notice {
            payment_id: Uuid::now_v7(),
            order_id: Uuid::now_v7(),
            amount: None,
            code: Some(code.to_owned()),
            reason: None,
        };
        for (code, reason) in [
            ("insufficient_funds", Reason::InsufficientFunds),
            ("payment_unavailable", Reason::PaymentUnavailable),
            ("lost_card", Reason::CardDeclined),
        ] {
            assert_eq!(happened(Kind::Declined, &notice(code)), checkout::Event::Declined(reason));
        }
        let unknown = Event::new(PAYMENTS, "payment.authorized.v9", "x", ());
        assert!(matches!(kind(&unknown), Err(HandleError::UnknownType)));
    }

    #[test]
    fn an_event_with_more_fields_than_today_is_read() {
        let order = order();
        let data = json!({ "payment_id": order.payment_id, "order_id": order.id, "network": "x" });
        let event = Event::new(PAYMENTS, "payment.voided.v1", order.id, data);
        assert_eq!(event.read::<Notice>().unwrap().order_id, order.id);
    }
}
