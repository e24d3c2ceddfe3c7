use actix_web::http::Method;
use serde_json::json;
use shared::testing::Api;

use crate::harness::{ADMIN, CUSTOMER, Console};

/// All endpoints that show or change data.
const ENDPOINTS: [(Method, &str); 24] = [
    (Method::GET, "/api/session"),
    (Method::GET, "/api/map"),
    (Method::GET, "/api/live"),
    (Method::PUT, "/api/routes/orders/strategy"),
    (Method::POST, "/api/services/order-service/replicas/a/drain"),
    (Method::GET, "/api/orders"),
    (Method::GET, "/api/orders/0190f4c0-0000-7000-8000-000000000001"),
    (Method::GET, "/api/orders/0190f4c0-0000-7000-8000-000000000001/messages"),
    (Method::POST, "/api/orders/0190f4c0-0000-7000-8000-000000000001/cancel"),
    (Method::POST, "/api/orders/0190f4c0-0000-7000-8000-000000000001/resume"),
    (Method::GET, "/api/traces"),
    (Method::GET, "/api/traces/0af7651916cd43dd8448eb211c80319c"),
    (Method::GET, "/api/logs"),
    (Method::GET, "/api/messages"),
    (Method::POST, "/api/messages/order-service/0190f4c0-0000-7000-8000-000000000001/replay"),
    (Method::DELETE, "/api/messages/order-service/0190f4c0-0000-7000-8000-000000000001"),
    (Method::GET, "/api/numbers"),
    (Method::GET, "/api/numbers?minutes=60"),
    (Method::GET, "/api/lab"),
    (Method::POST, "/api/lab/faults"),
    (Method::DELETE, "/api/lab/faults/order-service/order-service-1/slow"),
    (Method::GET, "/api/lab/invariants"),
    (Method::GET, "/api/lab/customers"),
    (Method::PUT, "/api/lab/customers"),
];

async fn try_all(api: &Api, status: u16, code: &str, only: impl Fn(&Method) -> bool) {
    for (method, path) in ENDPOINTS.into_iter().filter(|(method, _)| only(method)) {
        let body = (method == Method::PUT).then(|| json!({ "strategy": "random" }));
        let reply = api.send(method.clone(), path, body.as_ref()).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        reply.expect_problem(status, code);
    }
}

#[actix_web::test]
async fn without_a_session_there_is_nothing_but_pages_and_health() {
    let console = Console::start().await;
    try_all(&console.page(), 401, "missing_token", |_| true).await;
    let stranger = console.page().with("cookie", format!("console={}", "0".repeat(64)));
    try_all(&stranger, 401, "invalid_token", |_| true).await;
    console.api.get("/health").await.expect(200);
    assert!(console.stubs.calls.lock().unwrap().is_empty(), "nobody was asked");
}

#[actix_web::test]
async fn every_endpoint_is_in_the_test_above() {
    let console = Console::start().await;
    let document = console.api.get("/openapi.json").await.expect(200);
    for path in document["paths"].as_object().unwrap().keys() {
        let begin = path.split('{').next().unwrap();
        let is_there = ENDPOINTS.iter().any(|(_, known)| known.starts_with(begin));
        assert!(is_there || begin == "/assets/", "{path}");
    }
}

#[actix_web::test]
async fn a_customer_gets_no_session_and_one_that_was_made_is_ended() {
    let console = Console::start().await;
    console.stubs.answer("DELETE /api/sessions/current", 204, json!(null));
    let refused = console.log_in(CUSTOMER).await;
    refused.expect_problem(403, "forbidden");
    assert_eq!(refused.header("set-cookie"), "");
    assert_eq!(console.stubs.calls_of("DELETE /api/sessions/current").len(), 1);
}

#[actix_web::test]
async fn an_admin_gets_a_cookie_that_no_script_reads_and_no_other_site_sends() {
    let console = Console::start().await;
    let reply = console.log_in(ADMIN).await;
    let cookie = reply.header("set-cookie").to_owned();
    let key = cookie.strip_prefix("console=").unwrap().split(';').next().unwrap();
    assert_eq!(key.len(), 64);
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    let session = reply.expect(200);
    assert_eq!(session["email"], ADMIN);
    assert!(!session.to_string().contains("token"), "no token leaves the console: {session}");
    let admin = console.page().with("cookie", format!("other=1; console={key}"));
    assert_eq!(admin.get("/api/session").await.expect(200), session);
}

#[actix_web::test]
async fn a_wrong_password_is_told_as_user_service_tells_it() {
    let console = Console::start().await;
    let login = json!({ "email": ADMIN, "password": "a wrong one" });
    let reply = console.page().send(Method::POST, "/api/session", Some(&login)).await;
    reply.expect_problem(401, "invalid_credentials");
    assert_eq!(reply.header("set-cookie"), "");
}

#[actix_web::test]
async fn a_change_that_no_page_of_the_console_asks_for_is_refused_with_any_cookie() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let key = { console.log_in(ADMIN).await.header("set-cookie").split(';').next().unwrap().to_owned() };
    let host = console.api.base.trim_start_matches("http://").to_owned();
    let before = console.stubs.calls.lock().unwrap().len();
    for headers in [
        vec![],
        vec![("sec-fetch-site", "cross-site".to_owned())],
        vec![("sec-fetch-site", "same-site".to_owned()), ("origin", format!("http://{host}"))],
        vec![("origin", "http://127.0.0.1:8080".to_owned())],
        vec![("origin", "null".to_owned())],
    ] {
        let api = console.api.with("cookie", &key);
        let api = headers.into_iter().fold(api, |api, (name, value)| api.with(name, value));
        try_all(&api, 403, "forbidden", |method| *method != Method::GET).await;
        let login = json!({ "email": ADMIN, "password": "a long enough one" });
        api.send(Method::POST, "/api/session", Some(&login)).await.expect_problem(403, "forbidden");
        api.delete("/api/session").await.expect_problem(403, "forbidden");
    }
    assert_eq!(console.stubs.calls.lock().unwrap().len(), before, "nobody was asked");
    admin.get("/api/session").await.expect(200);
}

#[actix_web::test]
async fn a_token_is_refreshed_before_it_ends_and_a_refused_one_ends_the_session() {
    let console = Console::start().await;
    *console.stubs.life.lock().unwrap() = 10;
    let admin = console.admin().await;
    admin.get("/api/session").await.expect(200);
    let refreshed = console.stubs.calls_of("POST /api/sessions/refresh");
    assert_eq!(refreshed[0].1, json!({ "refresh_token": "a-refresh-token" }));
    *console.stubs.refuses.lock().unwrap() = true;
    admin.get("/api/session").await.expect_problem(401, "invalid_token");
    *console.stubs.refuses.lock().unwrap() = false;
    admin.get("/api/session").await.expect_problem(401, "invalid_token");
}

#[actix_web::test]
async fn a_request_that_ends_while_its_token_is_refreshed_does_not_lose_the_new_token() {
    let console = Console::start().await;
    *console.stubs.life.lock().unwrap() = 10;
    let admin = console.admin().await;
    let held = console.stubs.held.lock().await;
    let left = admin.with("x-request-timeout-ms", "300").get("/api/session").await;
    left.expect_problem(504, "upstream_timeout");
    *console.stubs.life.lock().unwrap() = 300;
    drop(held);
    admin.get("/api/session").await.expect(200);
    // The first request has spent the refresh token, and the second one used what it got for it.
    assert_eq!(console.stubs.calls_of("POST /api/sessions/refresh").len(), 1);
}

#[actix_web::test]
async fn a_log_out_ends_the_session_here_and_at_user_service() {
    let console = Console::start().await;
    console.stubs.answer("DELETE /api/sessions/current", 204, json!(null));
    let admin = console.admin().await;
    let reply = admin.delete("/api/session").await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("set-cookie").contains("Max-Age=0"), "{:?}", reply.headers);
    admin.get("/api/map").await.expect_problem(401, "invalid_token");
    assert_eq!(console.stubs.calls_of("DELETE /api/sessions/current").len(), 1);
}

#[actix_web::test]
async fn a_log_out_ends_the_session_also_when_user_service_does_not_answer() {
    let console = Console::start().await;
    *console.stubs.life.lock().unwrap() = 10;
    let admin = console.admin().await;
    *console.stubs.refuses.lock().unwrap() = true;
    assert_eq!(admin.delete("/api/session").await.status, 204);
    admin.get("/api/map").await.expect_problem(401, "invalid_token");
    assert_eq!(console.page().delete("/api/session").await.status, 204, "there is none");
}

#[actix_web::test]
async fn an_admin_who_confirms_the_password_has_one_session() {
    let console = Console::start().await;
    console.stubs.answer("DELETE /api/sessions/current", 204, json!(null));
    let admin = console.admin().await;
    let login = json!({ "email": ADMIN, "password": "a long enough one" });
    let confirmed = admin.send(Method::POST, "/api/session", Some(&login)).await;
    let cookie = confirmed.header("set-cookie").split(';').next().unwrap().to_owned();
    admin.get("/api/session").await.expect_problem(401, "invalid_token");
    console.page().with("cookie", cookie).get("/api/session").await.expect(200);
    assert_eq!(console.stubs.calls_of("DELETE /api/sessions/current").len(), 1);
}
