use actix_web::http::Method;
use serde_json::{Value, json};

use crate::harness::Console;

const ORDER: &str = "0190f4c0-0000-7000-8000-000000000001";

#[actix_web::test]
async fn what_an_admin_does_is_done_with_the_admins_own_token() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let (strategy, maintenance) =
        ("/routes/orders/strategy", "/registry/services/a-service/instances/a-1/maintenance");
    let actions = [
        (
            Method::PUT,
            "/api/routes/orders/strategy".to_owned(),
            json!({ "strategy": "random" }),
            format!("PUT {strategy}"),
        ),
        (
            Method::POST,
            "/api/services/a-service/replicas/a-1/eject".to_owned(),
            json!({ "seconds": 60 }),
            format!("PUT {maintenance}"),
        ),
        (
            Method::POST,
            "/api/services/a-service/replicas/a-1/drain".to_owned(),
            json!({}),
            format!("PUT {maintenance}"),
        ),
        (
            Method::POST,
            "/api/services/a-service/replicas/a-1/restore".to_owned(),
            Value::Null,
            format!("DELETE {maintenance}"),
        ),
        (
            Method::POST,
            format!("/api/orders/{ORDER}/cancel"),
            Value::Null,
            format!("POST /api/orders/{ORDER}/cancel"),
        ),
        (
            Method::POST,
            format!("/api/orders/{ORDER}/resume"),
            Value::Null,
            format!("POST /admin/sagas/{ORDER}/resume"),
        ),
        (
            Method::POST,
            format!("/api/orders/{ORDER}/compensate"),
            Value::Null,
            format!("POST /admin/sagas/{ORDER}/compensate"),
        ),
        (
            Method::POST,
            format!("/api/messages/order-service/{ORDER}/replay"),
            Value::Null,
            format!("POST /admin/dead-letters/{ORDER}/replay"),
        ),
        (
            Method::DELETE,
            format!("/api/messages/order-service/{ORDER}"),
            Value::Null,
            format!("DELETE /admin/dead-letters/{ORDER}"),
        ),
    ];
    for (method, path, body, call) in actions {
        console.stubs.answer(&call, 200, json!({ "done": true }));
        let body = Some(&body).filter(|body| !body.is_null());
        let reply = admin.send(method, &path, body).await;
        assert_eq!(reply.expect(200), json!({ "done": true }), "{path}");
        let (token, sent) = console.stubs.calls_of(&call).pop().unwrap();
        // The payload of a user token has roles, that of a service token an issuer's name only.
        assert!(token.starts_with("Bearer ey"), "{path}: {token}");
        let payload = shared_payload(&token);
        assert_eq!(payload["roles"], json!(["admin"]), "{path}");
        if let Some(body) = body {
            assert_eq!(&sent, body, "{path}");
        }
    }
    admin.send(Method::POST, "/api/orders/x/explode", None).await.expect_problem(404, "not_found");
    admin
        .send(Method::POST, "/api/messages/no-service/1/replay", None)
        .await
        .expect_problem(404, "not_found");
    let eject = "/api/services/a-service/replicas/a-1/eject";
    assert_eq!(
        admin.send(Method::POST, eject, Some(&json!({}))).await.expect_problem(422, "validation_failed"),
        ["seconds"]
    );
}

#[actix_web::test]
async fn a_refusal_is_passed_on_as_it_was_said() {
    let console = Console::start().await;
    let admin = console.admin().await;
    console.stubs.answer(&format!("DELETE /admin/dead-letters/{ORDER}"), 403, json!("recent_login_required"));
    let reply = admin.delete(&format!("/api/messages/payment-service/{ORDER}")).await;
    reply.expect_problem(403, "recent_login_required");
    assert_eq!(reply.header("content-type"), "application/problem+json");
}

/// The claims of a token.
fn shared_payload(token: &str) -> Value {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let payload = token.split('.').nth(1).unwrap();
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in payload.bytes() {
        let value = ALPHABET.iter().position(|known| *known == byte).unwrap() as u32;
        (bits, count) = (bits << 6 | value, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}
