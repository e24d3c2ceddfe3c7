//! Every documented error of the API, through the gateway: complete, and without internal details.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Person, Reply, Stack, eventually, key};
use serde_json::{Value, json};
use shared::db::{Db, DbConfig, Migrations, query};

async fn text(api: &Api, path: &str, kind: &str, body: &str) -> Reply {
    api.with("content-type", kind).with_key(key()).send_text(Method::POST, path, body.to_owned()).await
}

fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap()
}

#[actix_web::test]
async fn invalid_input_has_its_error_codes() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    let (json, api) = ("application/json", &stack.public);
    text(api, "/api/users", json, "{").await.expect_problem(400, "malformed_json");
    text(api, "/api/users", json, "\u{fffd}{}").await.expect_problem(400, "malformed_json");
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    text(api, "/api/users", json, &deep).await.expect_problem(400, "malformed_json");
    text(api, "/api/users", "text/plain", "x").await.expect_problem(415, "unsupported_media_type");
    text(api, "/api/users", json, &" ".repeat(300_000)).await.expect_problem(413, "body_too_large");
    let reply = text(api, "/api/users", json, r#"{"email":1,"name":"","colour":"red"}"#).await;
    let named = reply.expect_problem(422, "validation_failed");
    assert_eq!(named, ["email", "name", "password", "colour"]);
    for query in ["limit=0", "limit=x", "cursor=tampered"] {
        api.get(&format!("/api/products?{query}")).await.expect_problem(400, "invalid_parameter");
    }
    let product = ann.product().await;
    for quantity in [json!(-1), json!(0), json!(1001), json!(1e30), json!("2"), json!(1.5)] {
        let lines = json!([{ "product_id": product["id"], "quantity": quantity }]);
        let reply = ann.api.post("/api/orders", json!({ "lines": lines, "payment_token": "tok_visa" })).await;
        assert_eq!(reply.expect_problem(422, "validation_failed")[0], "lines[0].quantity");
    }
    let order =
        json!({ "lines": [{ "product_id": product["id"], "quantity": 1 }], "payment_token": "tok_visa" });
    let bad_key = ann.api.with_key("k".repeat(256));
    bad_key.post("/api/orders", order.clone()).await.expect_problem(400, "invalid_parameter");
    ann.api
        .send(Method::POST, "/api/orders", Some(&order))
        .await
        .expect_problem(428, "idempotency_key_required");
    let once = ann.api.with_key(key());
    once.post("/api/orders", order.clone()).await.expect(201);
    let again = once.post("/api/orders", order).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other =
        json!({ "lines": [{ "product_id": product["id"], "quantity": 2 }], "payment_token": "tok_visa" });
    once.post("/api/orders", other).await.expect_problem(422, "idempotency_key_reused");
}

#[actix_web::test]
async fn missing_and_forbidden_resources_have_their_error_codes() {
    let stack = Stack::start_with(&[("ACCESS_TOKEN_TTL", "2s")]).await;
    let ann = stack.register().await;
    let api = &stack.public;
    api.get("/api/users/me").await.expect_problem(401, "missing_token");
    api.with_token("x").get("/api/users/me").await.expect_problem(401, "invalid_token");
    assert!(api.get("/api/users/me").await.header("www-authenticate").starts_with("Bearer"));
    ann.api.get("/api/users").await.expect_problem(403, "forbidden");
    for nowhere in
        ["/api/nowhere", "/api/usersX", "/x", "/api/orders/7", "/messages", "/admin/outbox", "/metrics"]
    {
        ann.api.get(nowhere).await.expect_problem(404, "not_found");
    }
    let put = ann.api.put("/api/users", json!({})).await;
    put.expect_problem(405, "method_not_allowed");
    assert!(put.header("allow").contains("POST"), "{:?}", put.headers);
    api.with("accept", "text/html").get("/api/products").await.expect_problem(406, "not_acceptable");
    eventually("the token expires", Duration::from_secs(10), || async {
        let reply = ann.api.get("/api/users/me").await;
        (reply.body["code"] == "expired_token").then_some(reply)
    })
    .await
    .expect_problem(401, "expired_token");
}

#[actix_web::test]
async fn users_and_sessions_have_their_error_codes() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    let api = &stack.public;
    let again = json!({ "email": ann.email.to_uppercase(), "name": "Ann", "password": "a long enough one" });
    api.post("/api/users", again).await.expect_problem(409, "email_taken");
    let wrong = json!({ "email": ann.email, "password": "the wrong one" });
    api.post("/api/sessions", wrong).await.expect_problem(401, "invalid_credentials");
    let stale = ann.api.with("if-match", "\"99\"");
    stale.patch("/api/users/me", json!({ "name": "Anna" })).await.expect_problem(412, "stale_version");
    let right = json!({ "email": ann.email, "password": "a long enough one" });
    let tokens = api.post("/api/sessions", right).await.expect(201);
    let refresh = json!({ "refresh_token": tokens["refresh_token"] });
    let tokens = api.post("/api/sessions/refresh", refresh.clone()).await.expect(200);
    let next = json!({ "refresh_token": tokens["refresh_token"] });
    api.post("/api/sessions/refresh", next).await.expect(200);
    api.post("/api/sessions/refresh", refresh).await.expect_problem(401, "token_reused");
    let never = json!({ "refresh_token": "never" });
    api.post("/api/sessions/refresh", never).await.expect_problem(401, "invalid_token");
    let product = ann.product().await;
    ann.api.delete("/api/users/me").await.expect(204);
    let order =
        json!({ "lines": [{ "product_id": product["id"], "quantity": 1 }], "payment_token": "tok_visa" });
    ann.api.post("/api/orders", order).await.expect_problem(403, "customer_inactive");
}

#[actix_web::test]
async fn orders_and_payments_have_their_error_codes() {
    let stack = Stack::start().await;
    let (ann, admin) = (stack.register().await, stack.admin().await);
    let money = |amount: i64| json!({ "amount": amount, "currency": "EUR" });
    let cup = json!({ "sku": "CUP-1", "name": "Cup", "description": "", "price": money(500), "stock": 1 });
    let product = admin.api.post("/api/products", cup.clone()).await.expect(201);
    admin.api.post("/api/products", cup).await.expect_problem(409, "sku_taken");
    let order = |product: &str, quantity: u32| json!({ "lines": [{ "product_id": product, "quantity": quantity }], "payment_token": "tok_visa" });
    let reply = ann.api.post("/api/orders", order(id(&product), 2)).await;
    reply.expect_problem(409, "out_of_stock");
    assert_eq!(reply.body["errors"][0]["field"], "lines[0].product_id");
    let nobody = uuid::Uuid::now_v7().to_string();
    ann.api.post("/api/orders", order(&nobody, 1)).await.expect_problem(422, "unknown_product");
    let adjust = format!("/api/products/{}/stock-adjustments", id(&product));
    let less = json!({ "delta": -5, "reason": "broken" });
    admin.api.post(&adjust, less).await.expect_problem(409, "out_of_stock");

    let rejected = ann.place(&product, 1, "tok_declined").await;
    ann.order_reaches(&rejected, "rejected").await;
    ann.cancel(&rejected).await.expect_problem(409, "not_cancellable");
    let deliver = format!("/api/orders/{}/deliver", id(&rejected));
    admin.api.post(&deliver, Value::Null).await.expect_problem(409, "invalid_transition");
    let payments = ann.api.get(&format!("/api/payments?order_id={}", id(&rejected))).await.expect(200);
    refund(&admin, &payments["payments"][0], 1).await.expect_problem(409, "not_refundable");

    let paid = ann.place(&product, 1, "tok_visa").await;
    ann.order_reaches(&paid, "confirmed").await;
    let payments = ann.api.get(&format!("/api/payments?order_id={}", id(&paid))).await.expect(200);
    refund(&admin, &payments["payments"][0], 501).await.expect_problem(409, "exceeds_captured");
}

async fn refund(admin: &Person, payment: &Value, amount: i64) -> Reply {
    let path = format!("/api/payments/{}/refunds", id(payment));
    let amount = json!({ "amount": amount, "currency": "EUR" });
    admin.api.post(&path, json!({ "amount": amount, "reason": "a gift" })).await
}

#[actix_web::test]
async fn a_repeated_request_is_refused_while_the_first_one_runs() {
    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let product = ann.product().await;
    // The only replica of order-service waits for user-service, which is paused and does not answer.
    stack.kill("order-service", 1);
    eventually("order-service has the keys of user tokens", Duration::from_secs(20), || async {
        (ann.api.get("/api/orders").await.status == 200).then_some(())
    })
    .await;
    let port = stack.replicas("order-service")[0].port;
    (0..2).for_each(|replica| stack.pause("user-service", replica));
    let order =
        json!({ "lines": [{ "product_id": product["id"], "quantity": 1 }], "payment_token": "tok_visa" });
    let keyed = ann.api.with_key(key());
    let first = actix_web::rt::spawn({
        let (keyed, order) = (keyed.clone(), order.clone());
        async move { keyed.post("/api/orders", order).await.status }
    });
    eventually("the first request is running", Duration::from_secs(5), || async {
        (stack.active_requests("order-service", port).await == 1).then_some(())
    })
    .await;
    let reply = keyed.post("/api/orders", order).await;
    reply.expect_problem(409, "idempotency_in_progress");
    assert_eq!(reply.header("retry-after"), "1");
    (0..2).for_each(|replica| stack.resume("user-service", replica));
    assert_eq!(first.await.unwrap(), 201);
}

#[actix_web::test]
async fn failures_of_services_are_reported_without_internal_details() {
    let mut stack = Stack::start().await;
    let ann = stack.register().await;

    let db = Db::open(&DbConfig::at(&stack.database_url("order-service")), Migrations::none()).await.unwrap();
    query("ALTER TABLE products RENAME TO lost").execute(&db).await.unwrap();
    ann.api.get("/api/products").await.expect_problem(500, "internal");
    query("ALTER TABLE lost RENAME TO products").execute(&db).await.unwrap();
    ann.api.get("/api/products").await.expect(200);

    (0..2).for_each(|replica| stack.pause("payment-service", replica));
    ann.api.get("/api/payments").await.expect_problem(504, "upstream_timeout");
    (0..2).for_each(|replica| stack.kill("payment-service", replica));
    let reply = ann.api.get("/api/payments").await;
    reply.expect_problem(503, "unavailable");
    assert!(!reply.header("retry-after").is_empty());
}

/// Starts an origin that is healthy but answers other requests with bytes that are not HTTP. Returns its URL.
fn malformed_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or_default();
            let healthy = head[..length].starts_with(b"GET /health/ready");
            let answer =
                if healthy { "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" } else { "not HTTP\r\n\r\n" };
            // The client may have closed the connection.
            stream.write_all(answer.as_bytes()).unwrap_or_default();
        }
    });
    url
}

#[actix_web::test]
async fn a_response_that_is_not_http_is_a_bad_upstream() {
    let file = std::env::temp_dir().join(format!("malformed-{}.toml", uuid::Uuid::now_v7()));
    let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
    let route = "\n[[routes]]\nid = \"malformed\"\nprefix = \"/api/malformed\"\nservice = \"origin\"\n";
    std::fs::write(&file, routes + route).unwrap();
    let stack = Stack::starting(&[("CONFIG_FILE", file.to_str().unwrap())]).await;
    stack.register_origin("origin", &malformed_origin()).await;
    stack.public.get("/api/malformed").await.expect_problem(502, "bad_upstream");
    std::fs::remove_file(file).unwrap();
}

#[actix_web::test]
async fn a_client_over_the_rate_limit_gets_429_and_retry_after() {
    let stack = Stack::start_with(&[("RATE_LIMITS", "on")]).await;
    // Each with its own email address, because user-service also limits failures per email address.
    let burst = (0..50).map(|number| {
        let wrong = json!({ "email": format!("{number}@example.com"), "password": "the wrong one" });
        stack.public.post("/api/sessions", wrong)
    });
    let replies = futures_util::future::join_all(burst).await;
    let refused = replies.iter().find(|reply| reply.status == 429).unwrap();
    refused.expect_problem(429, "rate_limited");
    assert_eq!(refused.body["service"], "gateway");
    assert!(!refused.header("retry-after").is_empty());
}
