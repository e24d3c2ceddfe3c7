use actix_web::http::Method;
use serde_json::{Value, json};
use shared::testing::{Api, Reply};

use crate::harness::start;

const LOGIN: &str = "/shop/session";
const REFRESH: &str = "/shop/session/refresh";

async fn log_in(api: &Api) -> Reply {
    let login = json!({ "email": "ann@example.com", "password": "a long enough one" });
    api.send(Method::POST, LOGIN, Some(&login)).await
}

async fn refresh(api: &Api) -> Reply {
    api.send(Method::POST, REFRESH, None).await
}

#[actix_web::test]
async fn the_refresh_token_is_in_a_cookie_that_no_script_reads_and_the_access_token_in_the_body() {
    let replica = start().await;
    let page = replica.page().with("x-real-ip", "203.0.113.7").with("cookie", "refresh=refresh-1");
    let (logged_in, refreshed) = (log_in(&page).await, refresh(&page).await);
    for (reply, status, token) in [(&logged_in, 201, "refresh-1"), (&refreshed, 200, "refresh-2")] {
        assert_eq!(reply.clone().expect(status), json!({ "access_token": "access", "expires_in": 300 }));
        assert_eq!(reply.header("cache-control"), "no-store");
        let cookie = reply.header("set-cookie");
        let mut parts: Vec<_> = cookie.split("; ").collect();
        parts.sort_unstable();
        let expected = [
            "HttpOnly",
            "Max-Age=2592000",
            "Path=/shop/session",
            "SameSite=Strict",
            &format!("refresh={token}"),
        ];
        assert_eq!(parts, expected);
    }
    let calls = replica.stubs.sessions.lock().unwrap().clone();
    assert_eq!(calls[0].0, "/api/sessions");
    assert_eq!(calls[0].1, json!({ "email": "ann@example.com", "password": "a long enough one" }));
    assert_eq!(calls[0].2, "203.0.113.7", "failed logins are counted by the client's address");
    assert_eq!(
        (&*calls[1].0, &calls[1].1),
        ("/api/sessions/refresh", &json!({ "refresh_token": "refresh-1" }))
    );
}

#[actix_web::test]
async fn over_https_the_cookie_is_secure() {
    let replica = start().await;
    let cookie = log_in(&replica.page().with("x-forwarded-proto", "https")).await;
    assert!(cookie.header("set-cookie").contains("; Secure"), "{:?}", cookie.headers);
}

#[actix_web::test]
async fn a_request_that_no_page_of_the_shop_has_sent_is_refused_before_it_does_anything() {
    let replica = start().await;
    let host = replica.api.base.trim_start_matches("http://").to_owned();
    let same = format!("http://{host}");
    for headers in [
        vec![],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site"), ("origin", same.as_str())],
        vec![("sec-fetch-site", "none")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
    ] {
        let api = replica.api.with("cookie", "refresh=refresh-1");
        let api = headers.iter().fold(api, |api, (name, value)| api.with(name, *value));
        log_in(&api).await.expect_problem(403, "forbidden");
        refresh(&api).await.expect_problem(403, "forbidden");
        let out = api.delete(LOGIN).await;
        out.expect_problem(403, "forbidden");
        assert_eq!(out.header("set-cookie"), "", "{headers:?}");
    }
    assert_eq!(replica.calls_of_sessions(), 0);
    log_in(&replica.api.with("origin", same)).await.expect(201);
}

#[actix_web::test]
async fn a_form_of_another_kind_than_json_logs_nobody_in() {
    let replica = start().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let form = replica.page().with("content-type", kind);
        let body = "{\"email\":\"ann@example.com\",\"password\":\"a long enough one\"}";
        form.send_text(Method::POST, LOGIN, body).await.expect_problem(415, "unsupported_media_type");
    }
    assert_eq!(replica.calls_of_sessions(), 0);
}

#[actix_web::test]
async fn without_a_cookie_nobody_is_logged_in_and_user_service_is_not_asked() {
    let replica = start().await;
    for cookie in ["", "refresh=", "other=refresh"] {
        let reply = refresh(&replica.page().with("cookie", cookie)).await;
        assert_eq!((reply.status, reply.bytes.len()), (204, 0), "{cookie}");
    }
    assert_eq!(replica.calls_of_sessions(), 0);
}

#[actix_web::test]
async fn a_refused_token_is_forgotten_and_a_token_without_an_answer_is_kept() {
    let replica = start().await;
    let api = replica.page().with("cookie", "refresh=spent");
    let refusal = |status: u16, code: &str| -> (u16, Value) {
        let request_id = "the-request";
        let rest = json!({ "type": "about:blank", "title": "Refused", "status": status, "detail": "It is refused.",
            "code": code, "service": "user-service", "timestamp": "2026-01-01T00:00:00Z", "request_id": request_id });
        (status, rest)
    };
    *replica.stubs.refusal.lock().unwrap() = Some(refusal(401, "token_reused"));
    let refused = refresh(&api).await;
    refused.expect_problem(401, "token_reused");
    assert!(refused.header("set-cookie").starts_with("refresh=; "), "{:?}", refused.headers);
    assert!(refused.header("set-cookie").contains("Max-Age=0"), "{:?}", refused.headers);

    // `invalid_token` may be said of the service's own token.
    for (status, code) in [(503, "unavailable"), (401, "invalid_token")] {
        *replica.stubs.refusal.lock().unwrap() = Some(refusal(status, code));
        let kept = refresh(&api).await;
        kept.expect_problem(status, code);
        assert_eq!(kept.header("set-cookie"), "", "{code}");
    }
}

#[actix_web::test]
async fn a_log_out_forgets_the_cookie() {
    let replica = start().await;
    let out = replica.page().with("cookie", "refresh=refresh-1").delete(LOGIN).await;
    assert_eq!(out.status, 204);
    let cookie = out.header("set-cookie");
    for part in ["refresh=;", "Max-Age=0", "Path=/shop/session", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
}

#[actix_web::test]
async fn every_fault_of_a_login_is_named() {
    let replica = start().await;
    let reply = replica.page().send(Method::POST, LOGIN, Some(&json!({ "email": 7, "more": true }))).await;
    assert_eq!(reply.expect_problem(422, "validation_failed"), ["email", "password", "more"]);
}
