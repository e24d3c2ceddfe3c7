//! The commands to payment-service, as messages.

use serde_json::{Value, json};
use shared::client::Context;
use shared::messages::Event;

use crate::checkout::Command;
use crate::config::SERVICE;
use crate::domain::Order;
use crate::domain::money::CURRENCY;

pub(super) fn event(order: &Order, command: &Command, context: &Context) -> Event {
    let (kind, data) = match command {
        Command::Authorize(token) => {
            let token = String::from(token.clone());
            ("payment.authorize.v1", with_terms(order, json!({ "token": token })))
        }
        Command::Capture => ("payment.capture.v1", json!({ "payment_id": order.payment_id })),
        // A void that arrives before its authorization needs the terms: payment-service creates a voided payment.
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

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

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
    fn an_authorization_and_a_void_contain_all_fields_of_a_payment() {
        let order = order();
        let authorize = Command::Authorize("tok_visa".to_owned().try_into().unwrap());
        for (sent, kind) in [(authorize, "payment.authorize.v1"), (Command::Void, "payment.void.v1")] {
            let event = event(&order, &sent, &Context::background());
            assert_eq!((event.kind.as_str(), event.subject), (kind, order.id.to_string()));
            assert_eq!(event.data["payment_id"], order.payment_id.to_string());
            assert_eq!(event.data["customer_id"], order.customer_id.to_string());
            assert_eq!(event.data["amount"], json!({ "amount": 700, "currency": "EUR" }));
        }
    }
}
