use actix_web::http::Method;
use serde_json::json;

use crate::harness::{PASSWORD, Service, tokens};

#[actix_web::test]
async fn a_user_registers_logs_in_and_reads_the_account() {
    let service = Service::start().await;
    let registered = service.register("Ann@example.com").await;
    let id = registered.body["id"].as_str().unwrap().to_owned();
    assert_eq!(registered.header("location"), format!("/api/users/{id}"));
    assert_eq!(registered.header("etag"), "\"1\"");
    assert_eq!(
        (&registered.body["roles"], &registered.body["status"]),
        (&json!(["customer"]), &json!("active"))
    );
    assert!(!registered.body.to_string().contains("argon2"));

    let login = service.log_in("ann@EXAMPLE.com", PASSWORD).await;
    assert_eq!(login.header("cache-control"), "no-store");
    assert_eq!((&login.body["token_type"], &login.body["expires_in"]), (&json!("Bearer"), &json!(300)));
    let (token, _) = tokens(&login.expect(201));
    for path in ["/api/users/me".to_owned(), format!("/api/users/{id}")] {
        let me = service.api.with_token(&token).get(&path).await;
        assert_eq!((me.header("etag"), &me.body["email"]), ("\"1\"", &json!("Ann@example.com")));
    }
    service.register("ANN@example.com").await.expect_problem(409, "email_taken");
}

#[actix_web::test]
async fn a_registration_that_is_sent_twice_happens_once() {
    let service = Service::start().await;
    let register = async |name: &str| {
        let body = json!({ "email": "ann@example.com", "name": name, "password": PASSWORD });
        service.api.with_key("k").post("/api/users", body).await
    };
    let (first, again) = (register("Ann").await, register("Ann").await);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(
        (first.status, first.body, first.headers.get("location")),
        (201, again.body, again.headers.get("location"))
    );
    register("Anna").await.expect_problem(422, "idempotency_key_reused");
}

#[actix_web::test]
async fn every_fault_of_a_registration_is_named() {
    let service = Service::start().await;
    let body = json!({ "email": "no address", "name": 7, "password": "short", "role": "admin" });
    let reply = service.api.send(Method::POST, "/api/users", Some(&body)).await;
    assert_eq!(reply.expect_problem(422, "validation_failed"), ["email", "name", "password", "role"]);
}
