//! The gateway's registry passes the registry conformance suite, and only services can change it.

#![allow(clippy::unwrap_used, reason = "a test")]

use e2e::Stack;
use serde_json::json;
use shared::registry::conformance::keeps_its_promises;

#[actix_web::test]
async fn the_registry_in_the_gateway_keeps_its_promises() {
    let stack = Stack::start().await;
    keeps_its_promises(&stack.registry("conformance"), "conformance").await;
}

#[actix_web::test]
async fn only_services_can_register_and_only_private_http_addresses() {
    let stack = Stack::start().await;
    let path = "/registry/services/user-service/instances/mine";
    let body = json!({ "url": "http://127.0.0.1:1", "metadata": {} });
    stack.admin_port.put(path, body.clone()).await.expect_problem(401, "missing_token");
    let admin = stack.admin().await.api.token.unwrap();
    stack.admin_port.with_token(&admin).put(path, body).await.expect_problem(401, "invalid_token");
    let service = stack.admin_port.with_token(stack.service_token("user-service", "gateway", None));
    for outside in
        ["http://8.8.8.8:80", "http://example.com:80", "ftp://127.0.0.1:1", "http://127.0.0.1:1/path", "x"]
    {
        let reply = service.put(path, json!({ "url": outside, "metadata": {} })).await;
        reply.expect_problem(422, "validation_failed");
        assert_eq!(reply.body["errors"][0]["field"], "url", "{outside}");
    }
}
