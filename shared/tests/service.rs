//! Tests of the service template over real connections.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use actix_web::guard::{self, Guard};
use actix_web::http::Method;
use actix_web::{HttpResponse, web};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde::Serialize;
use serde_json::Value;
use shared::body::{Body, Fields, FromBody, Invalid};
use shared::db::testing::{postgres_url, urls};
use shared::db::{Db, DbConfig, Migrations, query};
use shared::otlp::OtlpConfig;
use shared::problem::Problem;
use shared::service::{HttpConfig, Server, ServerHandle, Service, resource};
use shared::testing::{Api, Gate, eventually, run};

#[derive(Debug)]
struct Thing(u8);

impl FromBody for Thing {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        fields.required("size").map(Self)
    }
}

async fn make(body: Body<Thing>) -> HttpResponse {
    HttpResponse::Created().json(body.value.0)
}

async fn list() -> HttpResponse {
    HttpResponse::Ok().json(["a", "b"])
}

async fn slow() -> HttpResponse {
    tokio::time::sleep(Duration::from_millis(300)).await;
    HttpResponse::Ok().json("done")
}

async fn broken() -> Result<HttpResponse, Problem> {
    Err(Problem::internal().because(&std::io::Error::other("the secret cause")))
}

async fn server(http: HttpConfig) -> Server {
    let routes = |app: &mut web::ServiceConfig| {
        app.service(resource("/api/things").get(list).post(make))
            .service(resource("/api/slow").get(slow))
            .service(resource("/api/broken").get(broken));
    };
    Service::bind("a-service", http).unwrap().configure(routes).build().unwrap()
}

async fn start() -> (Api, ServerHandle) {
    run(server(HttpConfig::for_tests()).await)
}

#[actix_web::test]
async fn every_error_is_a_problem_document_with_the_request_id() {
    let (api, _server) = start().await;
    let json = api.with("content-type", "application/json");
    let things = "/api/things";
    let cases = [
        (api.get("/nowhere").await, 404, "not_found"),
        (api.delete(things).await, 405, "method_not_allowed"),
        (api.with("accept", "text/html").get(things).await, 406, "not_acceptable"),
        (json.send_text(Method::POST, things, "{").await, 400, "malformed_json"),
        (
            json.send_text(Method::POST, things, r#"{"size":-1,"colour":"red"}"#).await,
            422,
            "validation_failed",
        ),
        (
            api.with("content-type", "text/plain").send_text(Method::POST, things, "x").await,
            415,
            "unsupported_media_type",
        ),
        (json.send_text(Method::POST, things, " ".repeat(300_000)).await, 413, "body_too_large"),
        (api.get("/api/broken").await, 500, "internal"),
    ];
    for (reply, status, code) in cases {
        reply.expect_problem(status, code);
        assert_eq!(reply.body["service"], "a-service");
        assert_eq!(reply.body["request_id"], reply.header("x-request-id"));
        assert!(!reply.text().contains("secret"), "{}", reply.body);
    }
}

#[actix_web::test]
async fn json_is_recognised_in_every_spelling_and_an_encoded_body_is_refused() {
    let (api, _) = start().await;
    let thing = r#"{"size":1}"#;
    for kind in ["application/json ; charset=utf-8", "Application/JSON", "application/merge-patch+json", ""] {
        let reply = api.with("content-type", kind).send_text(Method::POST, "/api/things", thing).await;
        assert_eq!(reply.status, 201, "{kind:?}: {}", reply.text());
    }
    let text = api.with("content-type", "text/plain").send_text(Method::POST, "/api/things", thing).await;
    text.expect_problem(415, "unsupported_media_type");
    let zipped = api.with("content-type", "application/json").with("content-encoding", "gzip");
    let zipped = zipped.send_text(Method::POST, "/api/things", thing).await;
    zipped.expect_problem(415, "unsupported_media_type");
    assert_eq!(zipped.header("accept-encoding"), "identity");
}

#[actix_web::test]
async fn an_empty_accept_accepts_everything() {
    let (api, _) = start().await;
    for (accept, status) in [("", 200), (" ", 200), ("application/json;q=0", 406), ("text/html", 406)] {
        assert_eq!(api.with("accept", accept).get("/api/things").await.status, status, "{accept:?}");
    }
}

#[actix_web::test]
async fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
    let (api, _server) = start().await;
    for (sent, kept) in [("my-id.1", true), ("my id", false), ("", false)] {
        let reply = api.with("x-request-id", sent).get("/api/things").await;
        assert!(reply.headers.contains_key("x-request-id"));
        assert_eq!(reply.header("x-request-id") == sent, kept, "{sent:?}");
    }
}

#[actix_web::test]
async fn head_works_where_get_does_and_options_names_the_methods() {
    let (api, _server) = start().await;
    let head = api.send(Method::HEAD, "/api/things", None).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    let options = api.send(Method::OPTIONS, "/api/things", None).await;
    assert_eq!((options.status, options.header("allow")), (204, "OPTIONS, HEAD, GET, POST"));
}

#[actix_web::test]
async fn a_request_is_cancelled_at_the_callers_deadline() {
    let (api, _server) = start().await;
    let reply = api.with("x-request-timeout-ms", "50").get("/api/slow").await;
    reply.expect_problem(504, "upstream_timeout");
    assert!(reply.headers.contains_key("x-request-id"));
}

#[actix_web::test]
async fn health_names_the_replica_and_metrics_count_by_route() {
    let (api, _server) = start().await;
    let report = api.get("/health").await.body;
    assert_eq!((&report["status"], &report["service"]), (&"ok".into(), &"a-service".into()));
    api.get("/api/things").await;
    let metrics = api.text("/metrics").await;
    assert!(metrics.contains(r#"http_route="/api/things""#), "{metrics}");
}

#[actix_web::test]
async fn a_failing_check_makes_the_service_not_ready_but_it_stays_alive() {
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap();
    let server = service.check("database", || async { Err("away".to_owned()) }).build().unwrap();
    let (api, _server) = run(server);
    let report = api.get("/health/ready").await.expect(503);
    assert_eq!((&report["status"], &report["checks"]["database"]), (&"down".into(), &"down".into()));
    api.get("/health/live").await.expect(200);
}

/// A service that queries its database, with short timeouts.
async fn on_database(url: &str) -> Api {
    async fn ask(db: web::Data<Db>) -> Result<HttpResponse, Problem> {
        query("SELECT 1 AS one").fetch_one(&**db).await.map_err(|error| error.problem())?;
        Ok(HttpResponse::Ok().json("done"))
    }
    let soon = Duration::from_millis(300);
    let config = DbConfig { acquire_timeout: soon, statement_timeout: soon, ..DbConfig::at(url) };
    let db = Db::open(&config, Migrations::none()).await.unwrap();
    let service =
        Service::bind("a-service", HttpConfig::for_tests()).unwrap().database(&db).configure(move |app| {
            app.app_data(web::Data::new(db.clone())).service(resource("/api/things").get(ask));
        });
    run(service.build().unwrap()).0
}

#[actix_web::test]
async fn without_its_database_a_service_is_not_ready_and_answers_retry_after() {
    let Some(database) = postgres_url().await else { return };
    let mut gate = Gate::before(&database).await;
    let api = on_database(&gate.url(&database)).await;
    for stalls in [false, true] {
        api.get("/health/ready").await.expect(200);
        api.get("/api/things").await.expect(200);
        match stalls {
            true => gate.stall(),
            false => gate.shut().await,
        }
        let refused = api.get("/api/things").await;
        refused.expect_problem(503, "unavailable");
        assert_eq!(refused.header("retry-after"), "1", "{stalls}");
        api.get("/health/ready").await.expect(503);
        api.get("/health/live").await.expect(200);

        gate.open().await;
        eventually("the database is back", Duration::from_secs(10), async || {
            (api.get("/api/things").await.status == 200).then_some(())
        })
        .await;
    }
}

#[actix_web::test]
async fn the_metrics_show_the_connections_to_the_database() {
    for database in urls().await {
        let api = on_database(&database).await;
        api.get("/api/things").await;
        let metrics = api.text("/metrics").await;
        let pool = if database.starts_with("sqlite") { "readers" } else { "postgres" };
        let count = |state: &str| {
            let line = format!(
                "db_client_connection_count{{db_client_connection_pool_name=\"{pool}\",db_client_connection_state=\"{state}\"}} "
            );
            metrics.split(&line).nth(1).and_then(|rest| rest.split('\n').next()?.parse::<u32>().ok())
        };
        let (idle, used) = (count("idle").unwrap(), count("used").unwrap());
        assert!((1..=8).contains(&(idle + used)), "{metrics}");
        let most = format!("db_client_connection_max{{db_client_connection_pool_name=\"{pool}\"}} 8");
        assert!(metrics.contains(&most), "{metrics}");
    }
}

#[actix_web::test]
async fn a_draining_server_is_not_ready_still_answers_and_finishes_running_requests() {
    let http = HttpConfig { drain_grace: Duration::from_millis(500), ..HttpConfig::for_tests() };
    let server = server(http).await;
    let (url, handle) = (format!("http://{}", server.address()), server.handle());
    let running = actix_web::rt::spawn(server.run());
    let api = Api::at(url);
    api.get("/api/things").await;

    let drained = actix_web::rt::spawn(async move { handle.stop().await });
    let ready = eventually("the drain begins", Duration::from_secs(5), async || {
        Some(api.get("/health/ready").await).filter(|ready| ready.status == 503)
    })
    .await;
    assert_eq!(ready.header("connection"), "close");
    assert_eq!((&ready.body["status"], &ready.body["checks"]["drain"]), (&"down".into(), &"down".into()));
    assert_eq!(api.get("/api/slow").await.body, "done");
    drained.await.unwrap();
    running.await.unwrap().unwrap();
    assert!(api.try_get("/api/things").await.is_none());
}

#[actix_web::test]
async fn a_service_whose_background_task_dies_drains_and_returns_an_error() {
    let dies = Service::bind("a-service", HttpConfig::for_tests())
        .unwrap()
        .task("relay", async |_| panic!("a mistake"));
    let lives = dies.task("timers", |stop| async move { stop.requested().await });
    let ended = lives.build().unwrap().run().await;
    assert!(ended.unwrap_err().to_string().contains("relay"));
}

#[actix_web::test]
async fn a_port_in_use_is_named() {
    let first = server(HttpConfig::for_tests()).await;
    let http = HttpConfig { port: first.address().port(), ..HttpConfig::for_tests() };
    let error = Service::bind("a-service", http).err().unwrap().to_string();
    assert!(error.contains(&first.address().to_string()), "{error}");
}

#[actix_web::test]
async fn a_served_request_is_exported_as_a_span_and_its_lines_have_its_ids() {
    shared::telemetry::init("a-service").unwrap();
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel::<Value>();
    let collector = Service::bind("collector", HttpConfig::for_tests()).unwrap().configure(move |app| {
        type Decode = fn(&[u8]) -> Value;
        let decoders: [(&str, Decode); 2] = [
            ("/v1/traces", decode::<ExportTraceServiceRequest>),
            ("/v1/logs", decode::<ExportLogsServiceRequest>),
        ];
        for (path, decode) in decoders {
            let sender = sender.clone();
            let collect = move |body: web::Bytes| {
                sender.send(decode(&body)).unwrap();
                async { HttpResponse::Ok().finish() }
            };
            app.service(web::resource(path).guard(is_protobuf()).route(web::post().to(collect)));
        }
    });
    let endpoint = run(collector.build().unwrap()).0.base.parse().unwrap();
    let otlp = Some(OtlpConfig { endpoint, ratio: 1.0, logs: true });
    let (api, _server) = run(server(HttpConfig { otlp, ..HttpConfig::for_tests() }).await);

    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traced = |flags: &str| {
        let api = api.with("traceparent", format!("00-{trace}-{parent}-{flags}"));
        api.with("tracestate", "vendor=value").with("x-request-id", format!("an-id-{flags}"))
    };
    traced("00").get("/api/things").await.expect(200);
    traced("01").get("/api/things").await.expect(200);
    let (mut spans, mut lines, mut resource) = (Vec::new(), Vec::new(), Value::Null);
    let both = async {
        while spans.is_empty() || lines.len() < 2 {
            let sent = received.recv().await.unwrap();
            let of_trace = |records: &Value| {
                let records = records.as_array().cloned().unwrap_or_default();
                records.into_iter().filter(|record| record["traceId"] == trace).collect::<Vec<_>>()
            };
            spans.extend(of_trace(&sent["resourceSpans"][0]["scopeSpans"][0]["spans"]));
            lines.extend(of_trace(&sent["resourceLogs"][0]["scopeLogs"][0]["logRecords"]));
            if !sent["resourceSpans"].is_null() {
                resource = sent["resourceSpans"][0]["resource"]["attributes"].clone();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    let [span] = &spans[..] else { panic!("one trace is sampled: {spans:?}") };
    assert_eq!((&span["name"], &span["parentSpanId"]), (&"GET /api/things".into(), &parent.into()));
    assert_eq!((&span["kind"], &span["traceState"]), (&2.into(), &"vendor=value".into()));
    assert_eq!(attribute(&resource, "service.name"), "a-service");
    assert!(attribute(&resource, "service.instance.id").starts_with("test-"));
    for (key, value) in
        [("http.request.method", "GET"), ("http.route", "/api/things"), ("http.response.status_code", "200")]
    {
        assert_eq!(attribute(&span["attributes"], key), value, "{span}");
    }
    let time = |name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time("startTimeUnixNano") < time("endTimeUnixNano"), "{span}");

    for line in &lines {
        let is_sampled = line["spanId"] == span["spanId"];
        let id = if is_sampled { "an-id-01" } else { "an-id-00" };
        assert_eq!(attribute(&line["attributes"], "request_id"), id, "{line}");
        assert_eq!(line["severityText"], "INFO");
    }
}

fn is_protobuf() -> impl Guard {
    guard::Header("content-type", "application/x-protobuf")
}

/// A request to the collector, as OTLP has it in JSON.
fn decode<T: prost::Message + Default + Serialize>(body: &[u8]) -> Value {
    serde_json::to_value(T::decode(body).unwrap()).unwrap()
}

/// The value of an attribute, as text.
fn attribute(attributes: &Value, key: &str) -> String {
    let mut all = attributes.as_array().into_iter().flatten();
    let found = all.find(|one| one["key"] == key).unwrap_or_else(|| panic!("no {key}: {attributes}"));
    let values = found["value"].as_object().unwrap();
    values.values().next().unwrap().as_str().unwrap().to_owned()
}
