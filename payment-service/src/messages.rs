//! What the order service asks for, and what it is told.
//!
//! | command | answer |
//! |---|---|
//! | `payment.authorize.v1 {payment_id, order_id, customer_id, amount, token}` | `payment.authorized.v1` or `payment.declined.v1 {code}` |
//! | `payment.capture.v1 {payment_id}` | `payment.captured.v2 {amount}` or `payment.declined.v1 {code}` |
//! | `payment.void.v1 {payment_id, order_id, customer_id, amount}` | `payment.voided.v1`, or `payment.captured.v2 {amount}` if it came too late |
//! | `payment.refund.v1 {payment_id, reason}` | `payment.refunded.v1`, when all of it went back |
//!
//! `payment.stuck.v1 {reason}` says that an answer takes long; it still comes. Every event carries
//! `payment_id` and `order_id`, and the order's id is its subject. A command that comes again is
//! answered again, if the answer is known.

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde::Deserialize;
use serde_json::json;
use shared::db::Tx;
use shared::messages::{Delivery, Event, HandleError, Handler};
use uuid::Uuid;

use crate::app::SERVICE;
use crate::domain::{Money, Notice, Payment, Purchase};
use crate::store::{Commanded, Store};

/// The service that orders payments.
pub const ORDERS: &str = "order-service";

/// Handles the commands of the order service.
#[derive(Clone, Debug)]
pub struct Commands {
    store: Store,
}

#[derive(Deserialize)]
struct Authorize {
    #[serde(flatten)]
    ordered: Ordered,
    token: String,
}

#[derive(Deserialize)]
struct Ordered {
    payment_id: Uuid,
    order_id: Uuid,
    customer_id: Uuid,
    amount: Money,
}

#[derive(Deserialize)]
struct Capture {
    payment_id: Uuid,
}

#[derive(Deserialize)]
struct Refund {
    payment_id: Uuid,
    reason: String,
}

impl Commands {
    /// Commands that change what is in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn carry_out(&self, tx: &mut Tx, event: &Event) -> Result<(), HandleError> {
        let trace = event.traceparent.as_deref();
        let commanded = match event.kind.as_str() {
            "payment.authorize.v1" => {
                let Authorize { ordered, token } = event.read()?;
                self.store.authorize(tx, ordered.into(), token, trace).await?
            }
            "payment.capture.v1" => {
                let Capture { payment_id } = event.read()?;
                self.store.capture(tx, payment_id, trace).await?
            }
            "payment.void.v1" => self.store.void(tx, event.read::<Ordered>()?.into(), trace).await?,
            "payment.refund.v1" => {
                let Refund { payment_id, reason } = event.read()?;
                self.store.refund_rest(tx, payment_id, &reason, trace).await?
            }
            _ => return Err(HandleError::UnknownType),
        };
        match commanded {
            Commanded::Done => Ok(()),
            Commanded::NoPayment => Err(HandleError::Rejected("there is no such payment".to_owned())),
            Commanded::Refused(refusal) => Err(HandleError::Rejected(refusal.to_string())),
        }
    }
}

impl Handler for Commands {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
        _: Delivery,
    ) -> LocalBoxFuture<'a, Result<(), HandleError>> {
        self.carry_out(tx, event).boxed_local()
    }
}

/// The event that tells the order of `notice`.
pub fn event(payment: &Payment, notice: &Notice, traceparent: Option<&str>) -> Event {
    let mut data = json!({ "payment_id": payment.id, "order_id": payment.order_id });
    let kind = match notice {
        Notice::Authorized => "payment.authorized.v1",
        Notice::Declined(code) => {
            data["code"] = json!(code);
            "payment.declined.v1"
        }
        Notice::Captured => {
            data["amount"] = json!(payment.amount);
            "payment.captured.v2"
        }
        Notice::Voided => "payment.voided.v1",
        Notice::Refunded => "payment.refunded.v1",
        Notice::Stuck(reason) => {
            data["reason"] = json!(reason);
            "payment.stuck.v1"
        }
    };
    let mut event = Event::new(SERVICE, kind, payment.order_id, data);
    event.traceparent = traceparent.map(str::to_owned);
    event
}

impl From<Ordered> for Purchase {
    fn from(Ordered { payment_id, order_id, customer_id, amount }: Ordered) -> Self {
        Self { id: payment_id, order_id, customer_id, amount }
    }
}
