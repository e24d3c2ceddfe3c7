//! The events that order-service gets.

use serde_json::json;
use shared::messages::Event;

use crate::config::SERVICE;
use crate::domain::{Notice, Payment};

/// The subject is the order's id: events of one order are delivered in order.
pub(super) fn event(payment: &Payment, notice: &Notice, traceparent: Option<&str>) -> Event {
    let mut data = json!({ "payment_id": payment.id, "order_id": payment.order_id });
    let kind = match notice {
        Notice::Authorized => "payment.authorized.v1",
        Notice::Declined(code) => {
            data["code"] = json!(code);
            "payment.declined.v1"
        }
        Notice::Captured => {
            let money = payment.amount;
            data["amount"] = json!({ "amount": money.amount(), "currency": money.currency().as_str() });
            "payment.captured.v2"
        }
        Notice::Voided => "payment.voided.v1",
        Notice::Refunded => "payment.refunded.v1",
        Notice::Stuck { operation, reason } => {
            data["operation"] = json!(operation.as_str());
            data["reason"] = json!(reason);
            "payment.stuck.v1"
        }
    };
    let mut event = Event::new(SERVICE, kind, payment.order_id, data);
    event.traceparent = traceparent.map(str::to_owned);
    event
}
