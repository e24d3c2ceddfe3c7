//! The resources of another user are not found, neither through the gateway nor directly at a service.

#![allow(clippy::unwrap_used, reason = "a test")]

use actix_web::http::Method;
use e2e::{Api, Stack};

async fn not_found(api: &Api, method: Method, path: &str) {
    api.send(method, path, None).await.expect_problem(404, "not_found");
}

#[actix_web::test]
async fn resources_of_another_user_are_404_everywhere() {
    let stack = Stack::start().await;
    let (ann, bob) = (stack.register().await, stack.register().await);
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    let order = ann.order_reaches(&order, "confirmed").await;
    let id = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (order, payment) = (id(&order["id"]), id(&order["payment_id"]));
    let token = bob.api.token.clone().unwrap();

    let (users, orders, payments) = ("user-service", "order-service", "payment-service");
    for (service, method, path) in [
        (users, Method::GET, format!("/api/users/{}", ann.id)),
        (users, Method::DELETE, format!("/api/users/{}", ann.id)),
        (orders, Method::GET, format!("/api/orders/{order}")),
        (orders, Method::GET, format!("/api/orders/{order}/timeline")),
        (orders, Method::GET, format!("/api/orders/{order}/events")),
        (orders, Method::POST, format!("/api/orders/{order}/cancel")),
        (payments, Method::GET, format!("/api/payments/{payment}")),
    ] {
        not_found(&bob.api, method.clone(), &path).await;
        not_found(&stack.direct(service).with_token(&token), method, &path).await;
    }
    for (list, field) in [("/api/orders", "orders"), ("/api/payments", "payments")] {
        let path = format!("{list}?customer_id={}", ann.id);
        assert_eq!(bob.api.get(&path).await.expect(200)[field], serde_json::json!([]), "{path}");
    }
    bob.api.get("/api/users").await.expect_problem(403, "forbidden");
    // Nothing has changed for Ann.
    assert_eq!(ann.api.get(&format!("/api/orders/{order}")).await.expect(200)["status"], "confirmed");
}

#[actix_web::test]
async fn services_check_tokens_themselves() {
    let stack = Stack::start().await;
    for (service, path) in [
        ("user-service", "/api/users/me"),
        ("order-service", "/api/orders"),
        ("payment-service", "/api/payments"),
        ("order-service", "/admin/stock"),
        ("payment-service", "/admin/ledger"),
    ] {
        let direct = stack.direct(service);
        direct.get(path).await.expect_problem(401, "missing_token");
        direct.with_token("not.a.token").get(path).await.expect_problem(401, "invalid_token");
        stack.public.with_token("not.a.token").get(path).await.expect_problem(401, "invalid_token");
    }
    stack.public.get("/admin/stock").await.expect_problem(404, "not_found");
}
