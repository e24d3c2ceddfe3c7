//! The program, and stubs of the gateway, user-service, order-service and payment-service.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use console::app;
use console::config::{CALLS, Config, ORDERS, PAYMENTS, SERVICE, USERS};
use serde_json::{Value, json};
use shared::db::DbConfig;
use shared::service::{HttpConfig, ServerHandle, Service};
use shared::testing::{Api, Keys, Reply, eventually, publish_keys, run};
use uuid::Uuid;

pub(crate) const ADMIN: &str = "admin@example.com";
pub(crate) const CUSTOMER: &str = "ann@example.com";
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Console {
    /// A client without a session.
    pub(crate) api: Api,
    /// The port for traces and logs.
    pub(crate) otlp: Api,
    pub(crate) stubs: Arc<Stubs>,
    handle: ServerHandle,
    settings: Settings,
}

/// The settings that a restart keeps.
struct Settings {
    folder: Arc<Folder>,
    registry: String,
    gateway: String,
    network: String,
    keys: Arc<Keys>,
    max_bytes: i64,
    has_lab: bool,
}

/// The requests that the stubs got, and the responses that they give.
#[derive(Default)]
pub(crate) struct Stubs {
    /// Method and path with query, the token, and the body.
    pub(crate) calls: Mutex<Vec<(String, String, Value)>>,
    /// Answers by method and path, in place of 404. A path with a query is for this query alone, and goes first.
    answers: Mutex<Vec<(String, u16, Value)>>,
    keys: Mutex<Option<Arc<Keys>>>,
    /// Whether user-service refuses to refresh.
    pub(crate) refuses: Mutex<bool>,
    /// While a test has this, no refresh is answered.
    pub(crate) held: tokio::sync::Mutex<()>,
    /// The lifetime of access tokens, in seconds.
    pub(crate) life: Mutex<u64>,
}

impl Stubs {
    pub(crate) fn answer(&self, call: &str, status: u16, body: Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, ..)| known != call);
        answers.push((call.to_owned(), status, body));
    }

    /// The calls of this method and path, without the query.
    pub(crate) fn calls_of(&self, call: &str) -> Vec<(String, Value)> {
        let calls = self.calls.lock().unwrap();
        let found = calls.iter().filter(|(made, ..)| made.split('?').next() == Some(call));
        found.map(|(_, token, body)| (token.clone(), body.clone())).collect()
    }
}

impl Console {
    pub(crate) async fn start() -> Self {
        Self::start_with(180 * 1024 * 1024).await
    }

    /// Starts a console with `LAB=on`.
    pub(crate) async fn start_lab() -> Self {
        Self::start_as(180 * 1024 * 1024, true).await
    }

    /// Starts a console that stores at most `max_bytes` of traces and logs.
    pub(crate) async fn start_with(max_bytes: i64) -> Self {
        Self::start_as(max_bytes, false).await
    }

    async fn start_as(max_bytes: i64, has_lab: bool) -> Self {
        let (stubs, keys) = (Arc::new(Stubs::default()), Arc::new(Keys::new(USERS)));
        *stubs.keys.lock().unwrap() = Some(keys.clone());
        *stubs.life.lock().unwrap() = 300;
        let stub = |name: &'static str| {
            let (data, keys) = (Data::from(stubs.clone()), keys.clone());
            let service = Service::bind(name, HttpConfig::for_tests()).unwrap().configure(move |app| {
                publish_keys(app, &keys.signing);
                app.app_data(data.clone())
                    .route("/api/sessions", web::post().to(log_in))
                    .route("/api/sessions/refresh", web::post().to(refresh))
                    .default_service(web::to(answer));
            });
            run(service.build().unwrap()).0.base
        };
        let registry = format!(
            "static://{USERS}={};{ORDERS}={};{PAYMENTS}={}",
            stub("users"),
            stub("orders"),
            stub("payments")
        );
        let folder = std::env::temp_dir().join(format!("console-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let (gateway, network) = (stub("gateway"), stub("network"));
        let folder = Arc::new(Folder(folder));
        let settings = Settings { folder, registry, gateway, network, keys, max_bytes, has_lab };
        Self::start_again(settings, stubs).await
    }

    async fn start_again(settings: Settings, stubs: Arc<Stubs>) -> Self {
        let config = |port| Config {
            http: HttpConfig::for_tests(),
            otlp: HttpConfig { port, ..HttpConfig::for_tests() },
            platform: settings.keys.platform(SERVICE, CALLS, &settings.registry),
            database: DbConfig::at(&format!("sqlite://{}/console.db", settings.folder.0.display())),
            hosts: Vec::new(),
            max_bytes: settings.max_bytes,
            gateway: settings.gateway.parse().unwrap(),
            public_gateway: settings.gateway.parse().unwrap(),
            card_network: Some(settings.network.parse().unwrap()),
            has_lab: settings.has_lab,
        };
        // Another test may take the port before the console listens to it.
        let (server, port) = loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            match app::build(config(port)).await {
                Err(error) if error.to_string().contains("Address already in use") => {}
                built => break (built.unwrap(), port),
            }
        };
        let (api, handle) = run(server);
        Self { api, otlp: Api::local(port), stubs, handle, settings }
    }

    /// Ends it as SIGTERM does, and starts another one with its data.
    pub(crate) async fn restart(self) -> Self {
        self.handle.stop().await;
        Self::start_again(self.settings, self.stubs).await
    }

    /// The size of its database on disk.
    pub(crate) fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.settings.folder.0).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    /// A client that sends requests as a page of this origin does.
    pub(crate) fn page(&self) -> Api {
        self.api.with("sec-fetch-site", "same-origin")
    }

    /// Where a stub answers as any replica.
    pub(crate) fn replica(&self) -> String {
        self.settings.network.clone()
    }

    pub(crate) async fn log_in(&self, email: &str) -> Reply {
        let login = json!({ "email": email, "password": "a long enough one" });
        self.page().send(Method::POST, "/api/session", Some(&login)).await
    }

    /// The page of an admin who has logged in.
    pub(crate) async fn admin(&self) -> Api {
        let reply = self.log_in(ADMIN).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let cookie = reply.header("set-cookie").split(';').next().unwrap().to_owned();
        self.page().with("cookie", cookie)
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> Reply {
        self.otlp.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn send_protobuf(&self, path: &str, body: Vec<u8>) -> Reply {
        self.otlp.with("content-type", "application/x-protobuf").send_text(Method::POST, path, body).await
    }

    /// Sends spans, and waits until they can be read.
    pub(crate) async fn keep(&self, admin: &Api, spans: Vec<Value>) {
        let ids: Vec<_> = spans.iter().map(|span| span["traceId"].as_str().unwrap().to_owned()).collect();
        // While the queue is full, the console refuses spans with 503.
        eventually("there is room in the queue", SOON, async || {
            let sent = self.send("/v1/traces", &traces("a-service", spans.clone())).await;
            (sent.status == 200).then_some(())
        })
        .await;
        for id in ids {
            self.kept(admin, &id).await;
        }
    }

    /// Waits until the trace can be read.
    pub(crate) async fn kept(&self, admin: &Api, id: &str) -> Value {
        let path = format!("/api/traces/{id}");
        eventually("the trace is kept", SOON, async || {
            let reply = admin.get(&path).await;
            (reply.status == 200).then_some(reply.body)
        })
        .await
    }
}

/// A folder that is deleted with the last console that uses it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// OTLP of one service.
pub(crate) fn traces(service: &str, spans: Vec<Value>) -> Value {
    json!({ "resourceSpans": [{ "resource": resource(service), "scopeSpans": [{ "spans": spans }] }] })
}

pub(crate) fn logs(service: &str, records: Vec<Value>) -> Value {
    json!({ "resourceLogs": [{ "resource": resource(service), "scopeLogs": [{ "logRecords": records }] }] })
}

fn resource(service: &str) -> Value {
    json!({ "attributes": [
        { "key": "service.name", "value": { "stringValue": service } },
        { "key": "service.instance.id", "value": { "stringValue": format!("{service}-1") } },
    ] })
}

/// An id with this number of digits.
pub(crate) fn id(digits: usize) -> String {
    let uuid = Uuid::new_v4().simple().to_string();
    uuid[..digits].to_owned()
}

/// A server span of `trace`, that has just ended.
pub(crate) fn span(trace: &str, name: &str) -> Value {
    let now = now();
    json!({
        "traceId": trace, "spanId": id(16), "name": name, "kind": 2,
        "startTimeUnixNano": (now - 5_000_000).to_string(), "endTimeUnixNano": now.to_string(),
        "attributes": [], "status": {},
    })
}

pub(crate) fn with_attribute(mut span: Value, key: &str, value: &str) -> Value {
    let pair = json!({ "key": key, "value": { "stringValue": value } });
    span["attributes"].as_array_mut().unwrap().push(pair);
    span
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i128 {
    shared::db::now().unix_timestamp_nanos()
}

async fn log_in(body: web::Json<Value>, request: HttpRequest, stubs: Data<Stubs>) -> HttpResponse {
    stubs.note(&request, body.0.clone());
    if body["password"] != "a long enough one" {
        return problem(401, "invalid_credentials");
    }
    let roles = if body["email"] == ADMIN { ["admin"] } else { ["customer"] };
    stubs.tokens(201, &roles)
}

async fn refresh(body: web::Json<Value>, request: HttpRequest, stubs: Data<Stubs>) -> HttpResponse {
    stubs.note(&request, body.0);
    drop(stubs.held.lock().await);
    match *stubs.refuses.lock().unwrap() {
        true => problem(401, "token_reused"),
        false => stubs.tokens(200, &["admin"]),
    }
}

async fn answer(request: HttpRequest, body: Bytes, stubs: Data<Stubs>) -> HttpResponse {
    stubs.note(&request, serde_json::from_slice(&body).unwrap_or_default());
    let answers = stubs.answers.lock().unwrap();
    let named = |target: &str| {
        let call = format!("{} {target}", request.method());
        answers.iter().find(move |(known, ..)| *known == call)
    };
    match named(&request.uri().to_string()).or_else(|| named(request.path())) {
        Some((_, 204, _)) => HttpResponse::NoContent().finish(),
        Some((_, status, body)) if *status >= 400 => problem(*status, body.as_str().unwrap()),
        Some((_, status, body)) => HttpResponse::build((*status).try_into().unwrap()).json(body),
        None => problem(404, "not_found"),
    }
}

impl Stubs {
    fn note(&self, request: &HttpRequest, body: Value) {
        let call = format!("{} {}", request.method(), request.uri());
        let token = request.headers().get("authorization").map(|token| token.to_str().unwrap().to_owned());
        self.calls.lock().unwrap().push((call, token.unwrap_or_default(), body));
    }

    fn tokens(&self, status: u16, roles: &[&str]) -> HttpResponse {
        let keys = self.keys.lock().unwrap().clone().unwrap();
        HttpResponse::build(status.try_into().unwrap()).json(json!({
            "access_token": keys.user_token(Uuid::now_v7(), roles), "token_type": "Bearer",
            "expires_in": *self.life.lock().unwrap(), "refresh_token": "a-refresh-token",
        }))
    }
}

fn problem(status: u16, code: &str) -> HttpResponse {
    let document = json!({ "type": "about:blank", "title": "Refused", "status": status, "detail": "It is refused.",
        "code": code, "service": "a-stub", "timestamp": "2026-01-01T00:00:00Z", "request_id": "the-request" });
    let mut response = HttpResponse::build(status.try_into().unwrap());
    response.content_type("application/problem+json").body(document.to_string())
}
