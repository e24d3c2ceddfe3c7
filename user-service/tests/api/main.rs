//! The service over HTTP.

#![allow(clippy::unwrap_used, reason = "a test")]

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use serde_json::{Value, json};
use shared::auth::{Secret, ServiceKey, SigningKeys};
use shared::config::Variable as _;
use shared::db::DbConfig;
use shared::db::testing::sqlite_url;
use shared::registry::RegistryUrl;
use shared::service::HttpConfig;
use shared::stack::StackConfig;
use user_service::app;
use user_service::config::{Admin, Config};

const PASSWORD: &str = "a long enough one";
const ADMIN: &str = "admin@example.com";
/// Two keys, made for these tests alone: PKCS#8 of thirty-two times 1 and 2.
const KEYS: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n\
    -----END PRIVATE KEY-----\n\
    -----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC\n\
    -----END PRIVATE KEY-----\n";

struct Service {
    url: String,
    client: awc::Client,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    fn expect_code(&self, status: u16, code: &str) {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{}", self.body);
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

fn service_key() -> ServiceKey {
    ServiceKey::from_base64(&Secret::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")).unwrap()
}

impl Service {
    async fn start() -> Self {
        let config = Config {
            http: HttpConfig::for_tests(),
            stack: StackConfig {
                registry: RegistryUrl::parse("static://").unwrap(),
                service_key: service_key(),
                advertise_url: None,
            },
            database: DbConfig::at(&sqlite_url()),
            signing_keys: SigningKeys::from_pem(&Secret::new(KEYS)).unwrap(),
            access_token_ttl: std::time::Duration::from_secs(300),
            admin: Some(Admin { email: ADMIN.to_owned(), password: Secret::new(PASSWORD) }),
        };
        let server = app::build(config).await.unwrap();
        let url = format!("http://{}", server.address());
        actix_web::rt::spawn(server.run());
        Self { url, client: awc::Client::default() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Reply {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for header in headers {
            request = request.insert_header(*header);
        }
        let mut response = match body {
            Some(body) => request.send_json(&body).await,
            None => request.send().await,
        }
        .unwrap();
        let bytes = response.body().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Reply { status: response.status().as_u16(), headers: response.headers().clone(), body }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Reply {
        self.send(Method::GET, path, token, &[], None).await
    }

    async fn patch(&self, path: &str, token: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, Some(token), &[], Some(body)).await
    }

    async fn delete(&self, path: &str, token: &str) -> Reply {
        self.send(Method::DELETE, path, Some(token), &[], None).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, None, &[], Some(body)).await
    }

    async fn register(&self, email: &str) -> Reply {
        self.post("/api/users", json!({ "email": email, "name": "Ann", "password": PASSWORD })).await
    }

    async fn log_in(&self, email: &str, password: &str) -> Reply {
        self.post("/api/sessions", json!({ "email": email, "password": password })).await
    }

    /// The tokens of somebody new.
    async fn somebody(&self, email: &str) -> (String, String) {
        self.register(email).await.expect(201);
        tokens(&self.log_in(email, PASSWORD).await.expect(201))
    }
}

fn tokens(body: &Value) -> (String, String) {
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

#[actix_web::test]
async fn somebody_registers_logs_in_and_reads_themselves() {
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
        let me = service.get(&path, Some(&token)).await;
        assert_eq!((me.header("etag"), &me.body["email"]), ("\"1\"", &json!("Ann@example.com")));
    }
    service.register("ANN@example.com").await.expect_code(409, "email_taken");
}

#[actix_web::test]
async fn a_registration_that_is_sent_twice_happens_once() {
    let service = Service::start().await;
    let register = |name: &'static str| {
        let body = json!({ "email": "ann@example.com", "name": name, "password": PASSWORD });
        service.send(Method::POST, "/api/users", None, &[("idempotency-key", "k")], Some(body))
    };
    let (first, again) = (register("Ann").await, register("Ann").await);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(
        (first.status, first.body, first.headers.get("location")),
        (201, again.body, again.headers.get("location"))
    );
    register("Anna").await.expect_code(422, "idempotency_key_reused");
}

#[actix_web::test]
async fn whether_an_address_exists_shows_in_no_answer() {
    let service = Service::start().await;
    service.register("ann@example.com").await.expect(201);
    let wrong = service.log_in("ann@example.com", "the wrong one").await;
    let unknown = service.log_in("bob@example.com", "the wrong one").await;
    for reply in [&wrong, &unknown] {
        reply.expect_code(401, "invalid_credentials");
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
    }
    assert_eq!(wrong.body["detail"], unknown.body["detail"]);
    for odd in ["", "no address", &"x".repeat(1000)] {
        service.log_in(odd, odd).await.expect_code(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn the_eleventh_try_is_told_to_wait_right_or_wrong() {
    let service = Service::start().await;
    service.register("ann@example.com").await.expect(201);
    for _ in 0..10 {
        service.log_in("ann@example.com", "the wrong one").await.expect_code(401, "invalid_credentials");
    }
    let reply = service.log_in("ann@example.com", PASSWORD).await;
    reply.expect_code(429, "rate_limited");
    assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 600));
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let elsewhere = [("x-real-ip", "203.0.113.9")];
    service.send(Method::POST, "/api/sessions", None, &elsewhere, Some(body)).await.expect(201);
}

#[actix_web::test]
async fn a_session_goes_on_with_refresh_tokens_and_ends_with_a_logout() {
    let service = Service::start().await;
    let (_, first) = service.somebody("ann@example.com").await;
    let refresh = |token: &str| service.post("/api/sessions/refresh", json!({ "refresh_token": token }));
    let (access, second) = tokens(&refresh(&first).await.expect(200));
    service.get("/api/users/me", Some(&access)).await.expect(200);
    service.delete("/api/sessions/current", &access).await.expect(204);
    refresh(&second).await.expect_code(401, "invalid_token");
    refresh(&first).await.expect_code(401, "token_reused");
    refresh("never").await.expect_code(401, "invalid_token");
    // An access token is good until it expires.
    service.get("/api/users/me", Some(&access)).await.expect(200);
}

#[actix_web::test]
async fn secrets_change_only_for_who_knows_the_password() {
    let service = Service::start().await;
    let (token, refresh) = service.somebody("ann@example.com").await;
    let (_, other) = tokens(&service.log_in("ann@example.com", PASSWORD).await.expect(201));
    for change in [
        json!({ "password": "another long one" }),
        json!({ "email": "anna@example.com", "current_password": "the wrong one" }),
    ] {
        let reply = service.patch("/api/users/me", &token, change).await;
        reply.expect_code(422, "validation_failed");
        assert_eq!(reply.body["errors"][0]["field"], "current_password");
    }
    let change = json!({ "password": "another long one", "name": "Anna", "current_password": PASSWORD });
    let changed = service.patch("/api/users/me", &token, change).await;
    assert_eq!((changed.header("etag"), &changed.body["name"]), ("\"2\"", &json!("Anna")));
    service.log_in("ann@example.com", PASSWORD).await.expect_code(401, "invalid_credentials");
    service.log_in("ann@example.com", "another long one").await.expect(201);
    let go_on = |token: String| service.post("/api/sessions/refresh", json!({ "refresh_token": token }));
    go_on(refresh).await.expect(200);
    go_on(other).await.expect_code(401, "invalid_token");
    let stale = [("if-match", "\"1\"")];
    let body = Some(json!({ "name": "Ann" }));
    service
        .send(Method::PATCH, "/api/users/me", Some(&token), &stale, body)
        .await
        .expect_code(412, "stale_version");
}

#[actix_web::test]
async fn who_leaves_keeps_the_address_and_cannot_log_in() {
    let service = Service::start().await;
    let (token, _) = service.somebody("ann@example.com").await;
    service.delete("/api/users/me", &token).await.expect(204);
    assert_eq!(service.get("/api/users/me", Some(&token)).await.expect(200)["status"], "deactivated");
    service.log_in("ann@example.com", PASSWORD).await.expect_code(401, "invalid_credentials");
    service.register("ann@example.com").await.expect_code(409, "email_taken");
}

#[actix_web::test]
async fn others_are_not_there_but_for_admins_and_services_that_act_for_them() {
    let service = Service::start().await;
    let (ann, _) = service.somebody("ann@example.com").await;
    let (bob, _) = service.somebody("bob@example.com").await;
    let id = service.get("/api/users/me", Some(&ann)).await.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/users/{id}");
    service.get(&path, Some(&bob)).await.expect_code(404, "not_found");
    service.patch(&path, &bob, json!({ "name": "Bob" })).await.expect_code(404, "not_found");
    service.delete(&path, &bob).await.expect_code(404, "not_found");
    service.get("/api/users", Some(&bob)).await.expect_code(403, "forbidden");
    service.get(&path, None).await.expect_code(401, "missing_token");
    service.get(&path, Some("x")).await.expect_code(401, "invalid_token");

    let (admin, _) = tokens(&service.log_in(ADMIN, PASSWORD).await.expect(201));
    service.get(&path, Some(&admin)).await.expect(200);
    let page = service.get("/api/users?limit=2", Some(&admin)).await.expect(200);
    assert_eq!(page["users"].as_array().map(Vec::len), Some(2));
    let next = format!("/api/users?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = service.get(&next, Some(&admin)).await.expect(200);
    assert_eq!((rest["users"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &Value::Null));

    let acting = |person: &str| service_key().mint("order-service", "user-service", person.parse().ok());
    service.get(&path, Some(&acting(&id))).await.expect(200);
    let somebody_else = uuid::Uuid::now_v7().to_string();
    service.get(&path, Some(&acting(&somebody_else))).await.expect_code(404, "not_found");
    let for_another_service = service_key().mint("order-service", "payment-service", id.parse().ok());
    service.get(&path, Some(&for_another_service)).await.expect_code(401, "invalid_token");
}

#[actix_web::test]
async fn every_fault_of_a_registration_is_named() {
    let service = Service::start().await;
    let body = json!({ "email": "no address", "name": 7, "password": "short", "role": "admin" });
    let reply = service.post("/api/users", body).await;
    reply.expect_code(422, "validation_failed");
    let named: Vec<_> =
        reply.body["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
    assert_eq!(named, ["email", "name", "password", "role"]);
    service.get("/api/users/7", None).await.expect_code(401, "missing_token");
    let options = service.send(Method::OPTIONS, "/api/users/me", None, &[], None).await;
    assert_eq!((options.status, options.header("allow")), (204, "OPTIONS, HEAD, GET, PATCH, DELETE"));
    service.send(Method::PUT, "/api/users", None, &[], None).await.expect_code(405, "method_not_allowed");
}

#[actix_web::test]
async fn the_keys_are_published_newest_first_and_the_api_describes_itself() {
    let service = Service::start().await;
    let keys = service.get("/.well-known/jwks.json", None).await.expect(200);
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(keys["keys"][0]["alg"], "EdDSA");
    let document = service.get("/openapi.json", None).await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in
        ["/api/users", "/api/users/{id}", "/api/sessions", "/api/sessions/refresh", "/api/sessions/current"]
    {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}
