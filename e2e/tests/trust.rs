//! Permitted calls: what `calls.txt` does not list is refused, and leaves a line in the log.

#![allow(clippy::unwrap_used, reason = "a test")]

mod trust {
    pub(crate) mod table; // every cell that is not in the table
}

use e2e::{Person, Stack};
use serde_json::{Value, json};
use shared::messages::Event;
use shared::testing::{Api, Keys};

/// An order that nobody can pay, because payment-service is gone.
async fn unpaid() -> (Stack, Person, Value) {
    let mut stack = Stack::start().await;
    for replica in 0..2 {
        stack.kill("payment-service", replica);
    }
    let ann = stack.register().await;
    let product = ann.product().await;
    let lines = json!([{ "product_id": product["id"], "quantity": 1 }]);
    let order = json!({ "lines": lines, "payment_token": "tok_visa" });
    let order = ann.api.post("/api/orders", order).await.expect(201);
    (stack, ann, order)
}

/// What payment-service would say of the order if it were paid.
fn payment(order: &Value, kind: &str, source: &str) -> Value {
    let data =
        json!({ "payment_id": order["payment_id"], "order_id": order["id"], "amount": order["total"] });
    Event::new(source, kind, order["id"].as_str().unwrap(), data).to_json()
}

#[actix_web::test]
async fn nobody_but_payment_service_says_that_an_order_is_paid() {
    let (stack, ann, order) = unpaid().await;
    let (callee, payments) = ("order-service", "payment-service");
    let orders = stack.direct(callee);
    let stranger = Keys::new("user-service").service_token("not-even-a-service", callee, None);
    let gateway_as_payments = stack.keys_of("gateway").mint(payments, callee, None);
    let for_another = stack.service_token(payments, "user-service", None);
    for kind in ["payment.authorized.v1", "payment.captured.v2"] {
        for (token, source, status) in [
            // A caller without a key, and one with another service's.
            (&stranger, payments, 401),
            (&gateway_as_payments, payments, 401),
            (&for_another, payments, 401),
            // A known caller that is not payment-service.
            (&stack.service_token("gateway", callee, None), payments, 403),
            (&stack.service_token("user-service", callee, None), payments, 403),
            (&stack.service_token("user-service", callee, None), "user-service", 403),
            (&stack.service_token(payments, callee, None), "user-service", 403),
            (&stack.service_token(payments, callee, Some(ann.id.parse().unwrap())), payments, 403),
        ] {
            let reply =
                orders.with_token(token.as_str()).post("/messages", payment(&order, kind, source)).await;
            assert_eq!(reply.status, status, "{kind} of {source}: {reply:?}");
        }
    }
    assert_eq!(ann.order(&order).await["status"], "awaiting_payment");
    let log = stack.log("order-service-1");
    assert_eq!(log.matches("a service token is refused").count(), 6, "{log}");
    assert_eq!(log.matches("a service's call is refused").count(), 8, "{log}");
    assert_eq!(log.matches("a service's event is refused").count(), 2, "{log}");
}

#[actix_web::test]
async fn a_service_does_for_a_person_only_what_the_table_lists() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    let (path, callee) = (format!("/api/users/{}", ann.id), "user-service");
    let acting = |caller: &str| {
        let person = Some(ann.id.parse().unwrap());
        stack.direct(callee).with_token(stack.service_token(caller, callee, person))
    };
    acting("order-service").get(&path).await.expect(200);
    for caller in ["gateway", "payment-service", "user-service"] {
        acting(caller).get(&path).await.expect_problem(403, "forbidden");
    }
    for caller in ["gateway", "order-service"] {
        acting(caller).delete(&path).await.expect_problem(403, "forbidden");
    }
    assert_eq!(ann.api.get("/api/users/me").await.expect(200)["status"], "active");
    let log = stack.log("user-service-1");
    assert!(log.contains("a service's call is refused") && log.contains("caller=gateway"), "{log}");
}

#[actix_web::test]
async fn a_service_registers_nobody_but_itself() {
    let stack = Stack::start().await;
    let registered = async || {
        let all = stack.admin_port.get("/registry/services/user-service").await.expect(200);
        all["instances"].as_array().unwrap().len()
    };
    let thief = stack.admin_port.with_token(stack.service_token("payment-service", "gateway", None));
    let instances = stack.admin_port.get("/registry/services/user-service").await.body["instances"].clone();
    let body = json!({ "url": "http://127.0.0.1:1", "metadata": {} });
    let mine = |service: &str| format!("/registry/services/{service}/instances/mine");
    thief.put(&mine("user-service"), body.clone()).await.expect_problem(403, "forbidden");
    let theirs =
        format!("/registry/services/user-service/instances/{}", instances[0]["id"].as_str().unwrap());
    thief.delete(&theirs).await.expect_problem(403, "forbidden");
    assert_eq!(registered().await, 2);
    assert!(stack.log("gateway").contains("a registration of another service is refused"));
    thief.put(&mine("payment-service"), body).await.expect(200);
    assert_eq!(thief.delete(&mine("payment-service")).await.status, 204);
}

#[actix_web::test]
async fn the_public_port_takes_no_service_token() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    for callee in ["gateway", "user-service"] {
        let token = stack.service_token("order-service", callee, Some(ann.id.parse().unwrap()));
        let api: Api = stack.public.with_token(token);
        api.get(&format!("/api/users/{}", ann.id)).await.expect_problem(401, "invalid_token");
    }
}
