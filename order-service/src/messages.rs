//! The commands to payment-service (built in `store/commands.rs`), and its events.
//!
//! | command | meaning | | event | meaning |
//! |---|---|---|---|---|
//! | `payment.authorize.v1` | hold the money | | `payment.authorized.v1` | the money is held |
//! | `payment.capture.v1` | take it | | `payment.captured.v2` | `amount` is taken |
//! | `payment.void.v1` | release it | | `payment.voided.v1` | no money is held |
//! | `payment.refund.v1` | give it back | | `payment.refunded.v1` | the money is back |
//! | | | | `payment.declined.v1` | the authorization or the capture is declined |
//! | | | | `payment.stuck.v1` | `operation` makes no progress; `reason` is for people |
//!
//! The subject is the order's id, so the events of one order are usually in sequence. The checkout does not
//! rely on that. `payment.captured.v1`, without `amount`, is still accepted.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use shared::db::Tx;
use shared::messages::{Delivery, Event, HandleError, Handler, Upcast};
use uuid::Uuid;

use crate::checkout::{Step, Trigger};
use crate::domain::money::CURRENCY;
use crate::domain::{Money, Reason};
use crate::error::Error;
use crate::store::{Cause, Store};

pub struct PaymentEventHandler {
    store: Store,
}

/// The union of the fields of all events.
#[derive(Debug, Deserialize)]
struct PaymentEvent {
    payment_id: Uuid,
    order_id: Uuid,
    amount: Option<Amount>,
    code: Option<String>,
    /// Older events do not have this field.
    operation: Option<String>,
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

impl PaymentEventHandler {
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait(?Send)]
impl Handler for PaymentEventHandler {
    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError> {
        let (trigger, payment) = read(event)?;
        let locked = self.store.lock(tx, payment.order_id).await?;
        if locked.order.payment_id != payment.payment_id {
            return Err(HandleError::Rejected("the order has another payment".to_owned()));
        }
        if payment.amount.is_some_and(|amount| !amount.equals(locked.order.total)) {
            return Err(HandleError::Rejected("the order costs something else".to_owned()));
        }
        let cause = Cause {
            name: trigger.as_str(),
            message_id: Some(event.id),
            attempt: delivery.attempt,
            context: event.context(),
        };
        let now = tx.now();
        self.store.apply_trigger(tx, locked, &trigger, &cause, now).await?;
        Ok(())
    }

    /// Locks the orders of all events with one statement. The subject of an event is its order's id.
    async fn prepare(&self, tx: &mut Tx, events: &[&Event]) -> Result<(), HandleError> {
        let ids = events.iter().filter_map(|event| event.subject.parse().ok()).collect();
        Ok(self.store.lock_all(tx, ids).await?)
    }

    fn upcasts(&self) -> &[Upcast] {
        &UPCASTS
    }
}

impl Amount {
    fn equals(&self, money: Money) -> bool {
        self.amount == money.amount() && self.currency == CURRENCY
    }
}

/// Converts an event to the trigger of the checkout, and returns its data. The data is read only if the type is known.
fn read(event: &Event) -> Result<(Trigger, PaymentEvent), HandleError> {
    let trigger: fn(&PaymentEvent) -> Trigger = match event.kind.as_str() {
        "payment.authorized.v1" => |_| Trigger::Authorized,
        "payment.declined.v1" => |payment| {
            // Card networks have many codes, but the customer can react only to a few.
            let code = payment.code.as_deref().and_then(Reason::named);
            Trigger::Declined(code.unwrap_or(Reason::CardDeclined))
        },
        "payment.captured.v2" => |_| Trigger::Captured,
        "payment.voided.v1" => |_| Trigger::Voided,
        "payment.refunded.v1" => |_| Trigger::Refunded,
        "payment.stuck.v1" => |payment| {
            let reason = payment.reason.clone();
            let reason = reason.unwrap_or_else(|| "the payment makes no progress".to_owned());
            Trigger::PaymentStuck { operation: payment.operation(), reason }
        },
        _ => return Err(HandleError::UnknownType),
    };
    let payment = event.read()?;
    Ok((trigger(&payment), payment))
}

impl PaymentEvent {
    /// The step that makes no progress. Old events have no field `operation`; their reason begins with the name of the
    /// step.
    fn operation(&self) -> Option<Step> {
        let named = |text: &String| Step::named(text.split('_').next().unwrap_or_default());
        self.operation.as_ref().or(self.reason.as_ref()).and_then(named)
    }
}

impl From<Error> for HandleError {
    fn from(error: Error) -> Self {
        match error {
            Error::Db(error) => Self::Db(error),
            // The next delivery reads the new version.
            Error::Stale => Self::Retry,
            other => Self::Rejected(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::PAYMENTS;

    #[test]
    fn an_unknown_decline_code_is_card_declined_and_an_unknown_type_is_an_error() {
        let declined = |code: &str| {
            let data = json!({ "payment_id": Uuid::now_v7(), "order_id": Uuid::now_v7(), "code": code });
            read(&Event::new(PAYMENTS, "payment.declined.v1", "x", data)).unwrap().0
        };
        for (code, reason) in [
            ("insufficient_funds", Reason::InsufficientFunds),
            ("payment_unavailable", Reason::PaymentUnavailable),
            ("lost_card", Reason::CardDeclined),
        ] {
            assert_eq!(declined(code), Trigger::Declined(reason));
        }
        let unknown = Event::new(PAYMENTS, "payment.authorized.v9", "x", ());
        assert!(matches!(read(&unknown), Err(HandleError::UnknownType)));
    }

    #[test]
    fn a_stuck_payment_names_its_operation_and_before_that_field_existed_its_reason_does() {
        let operation = |mut data: serde_json::Value| {
            data["payment_id"] = json!(Uuid::now_v7());
            data["order_id"] = json!(Uuid::now_v7());
            Event::new(PAYMENTS, "payment.stuck.v1", "x", data).read::<PaymentEvent>().unwrap().operation()
        };
        let both = json!({ "operation": "void", "reason": "capture_unanswered" });
        assert_eq!(operation(both), Some(Step::Void));
        assert_eq!(operation(json!({ "reason": "capture_unanswered" })), Some(Step::Capture));
        assert_eq!(operation(json!({ "reason": "five times 500" })), None);
    }

    #[test]
    fn unknown_fields_of_an_event_are_ignored() {
        let id = Uuid::now_v7();
        let data = json!({ "payment_id": id, "order_id": id, "network": "x" });
        let event = Event::new(PAYMENTS, "payment.voided.v1", id, data);
        assert_eq!(event.read::<PaymentEvent>().unwrap().order_id, id);
    }
}
