//! The service template, over real connections.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::Stream;
use serde_json::Value;
use shared::body::{Body, Fields, FromBody};
use shared::db::testing::{postgres_url, urls};
use shared::db::{Db, DbConfig, Migrations, query};
use shared::problem::Problem;
use shared::service::{HttpConfig, Server, ServerHandle, Service, resource};
use shared::testing::Gate;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug)]
struct Thing(u8);

impl FromBody for Thing {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
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

/// A running server: its base URL and its end.
async fn run() -> (String, ServerHandle) {
    let server = server(HttpConfig::for_tests()).await;
    let (url, handle) = (format!("http://{}", server.address()), server.handle());
    actix_web::rt::spawn(server.run());
    (url, handle)
}

async fn problem<S>(mut response: awc::ClientResponse<S>) -> Value
where
    S: Stream<Item = Result<web::Bytes, awc::error::PayloadError>> + Unpin,
{
    assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
    response.json().await.unwrap()
}

#[actix_web::test]
async fn every_error_is_a_problem_document_with_the_request_id() {
    let (url, _server) = run().await;
    let client = awc::Client::default();
    let json = |body: &'static str| {
        client.post(format!("{url}/api/things")).content_type("application/json").send_body(body)
    };
    let cases = [
        (client.get(format!("{url}/nowhere")).send().await, 404, "not_found"),
        (client.delete(format!("{url}/api/things")).send().await, 405, "method_not_allowed"),
        (
            client.get(format!("{url}/api/things")).insert_header(("accept", "text/html")).send().await,
            406,
            "not_acceptable",
        ),
        (json("{").await, 400, "malformed_json"),
        (json(r#"{"size":-1,"colour":"red"}"#).await, 422, "validation_failed"),
        (
            client.post(format!("{url}/api/things")).content_type("text/plain").send_body("x").await,
            415,
            "unsupported_media_type",
        ),
        (
            client
                .post(format!("{url}/api/things"))
                .content_type("application/json")
                .send_body(" ".repeat(300_000))
                .await,
            413,
            "body_too_large",
        ),
        (client.get(format!("{url}/api/broken")).send().await, 500, "internal"),
    ];
    for (response, status, code) in cases {
        let response = response.unwrap();
        assert_eq!(response.status().as_u16(), status, "{code}");
        let request_id = response.headers().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        let problem = problem(response).await;
        assert_eq!(problem["code"], code);
        assert_eq!(problem["service"], "a-service");
        assert_eq!(problem["request_id"], *request_id);
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
}

#[actix_web::test]
async fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
    let (url, _server) = run().await;
    let client = awc::Client::default();
    for (sent, kept) in [("my-id.1", true), ("my id", false), ("", false)] {
        let response = client
            .get(format!("{url}/api/things"))
            .insert_header(("x-request-id", sent))
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers().get("x-request-id").unwrap() == sent, kept, "{sent:?}");
    }
}

#[actix_web::test]
async fn head_works_where_get_does_and_options_names_the_methods() {
    let (url, _server) = run().await;
    let client = awc::Client::default();
    let mut head = client.head(format!("{url}/api/things")).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.body().await.unwrap().is_empty());
    let options = client.options(format!("{url}/api/things")).send().await.unwrap();
    assert_eq!(options.status(), StatusCode::NO_CONTENT);
    assert_eq!(options.headers().get("allow").unwrap(), "OPTIONS, HEAD, GET, POST");
}

#[actix_web::test]
async fn nobody_works_past_the_callers_deadline() {
    let (url, _server) = run().await;
    let deadline = (OffsetDateTime::now_utc() + Duration::from_millis(50)).format(&Rfc3339).unwrap();
    let response = awc::Client::default()
        .get(format!("{url}/api/slow"))
        .insert_header(("x-request-deadline", deadline))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(problem(response).await["code"], "upstream_timeout");
}

#[actix_web::test]
async fn health_tells_who_answers_and_metrics_count_by_route() {
    let (url, _server) = run().await;
    let client = awc::Client::default();
    let mut health = client.get(format!("{url}/health")).send().await.unwrap();
    let report: Value = health.json().await.unwrap();
    assert_eq!((&report["status"], &report["service"]), (&"ok".into(), &"a-service".into()));
    client.get(format!("{url}/api/things")).send().await.unwrap();
    let metrics = client.get(format!("{url}/metrics")).send().await.unwrap().body().await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains(r#"http_route="/api/things""#), "{metrics}");
}

#[actix_web::test]
async fn a_failing_check_makes_the_service_not_ready_but_it_stays_alive() {
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap();
    let server = service.check("database", || async { Err("away".to_owned()) }).build().unwrap();
    let url = format!("http://{}", server.address());
    actix_web::rt::spawn(server.run());
    let client = awc::Client::default();
    let mut ready = client.get(format!("{url}/health/ready")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let report: Value = ready.json().await.unwrap();
    assert_eq!((&report["status"], &report["checks"]["database"]), (&"down".into(), &"down".into()));
    assert_eq!(client.get(format!("{url}/health/live")).send().await.unwrap().status(), StatusCode::OK);
}

/// A service that asks its database, with little patience.
async fn on_database(url: &str) -> String {
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
    let server = service.build().unwrap();
    let url = format!("http://{}", server.address());
    actix_web::rt::spawn(server.run());
    url
}

#[actix_web::test]
async fn while_its_database_is_away_a_service_is_not_ready_and_tells_when_to_come_back() {
    let Some(database) = postgres_url().await else { return };
    let mut gate = Gate::before(&database).await;
    let url = on_database(&gate.url(&database)).await;
    let client = awc::Client::default();
    let status = async |path: &str| client.get(format!("{url}{path}")).send().await.unwrap().status();
    for stalls in [false, true] {
        assert_eq!(status("/health/ready").await, StatusCode::OK);
        assert_eq!(status("/api/things").await, StatusCode::OK);
        match stalls {
            true => gate.stall(),
            false => gate.shut().await,
        }
        let refused = client.get(format!("{url}/api/things")).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{stalls}");
        assert_eq!(refused.headers().get("retry-after").unwrap(), "1");
        assert_eq!(problem(refused).await["code"], "unavailable");
        assert_eq!(status("/health/ready").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status("/health/live").await, StatusCode::OK);

        gate.open().await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while status("/api/things").await != StatusCode::OK {
            assert!(tokio::time::Instant::now() < deadline, "it does not come back");
        }
    }
}

#[actix_web::test]
async fn the_connections_to_its_database_are_told() {
    for database in urls().await {
        let url = on_database(&database).await;
        let client = awc::Client::default();
        client.get(format!("{url}/api/things")).send().await.unwrap();
        let metrics = client.get(format!("{url}/metrics")).send().await.unwrap().body().await.unwrap();
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
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
async fn a_draining_server_is_not_ready_still_answers_and_finishes_what_runs() {
    let http = HttpConfig { drain_grace: Duration::from_millis(500), ..HttpConfig::for_tests() };
    let server = server(http).await;
    let (url, handle) = (format!("http://{}", server.address()), server.handle());
    let running = actix_web::rt::spawn(server.run());
    let client = awc::Client::default();
    client.get(format!("{url}/api/things")).send().await.unwrap();

    let drained = actix_web::rt::spawn(async move { handle.stop().await });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let mut ready = client.get(format!("{url}/health/ready")).send().await.unwrap();
        if ready.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(ready.headers().get("connection").unwrap(), "close");
            let body = ready.json::<Value>().await.unwrap();
            assert_eq!((&body["status"], &body["checks"]["drain"]), (&"down".into(), &"down".into()));
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the drain does not begin");
    }
    let mut slow = client.get(format!("{url}/api/slow")).send().await.unwrap();
    assert_eq!(slow.json::<String>().await.unwrap(), "done");
    drained.await.unwrap();
    running.await.unwrap().unwrap();
    assert!(client.get(format!("{url}/api/things")).send().await.is_err());
}

#[actix_web::test]
async fn a_service_whose_background_task_dies_drains_and_says_so() {
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
async fn a_served_request_is_a_span_that_the_collector_gets() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel::<Value>();
    let collector = Service::bind("collector", HttpConfig::for_tests()).unwrap().configure(move |app| {
        let sender = sender.clone();
        let collect = move |body: web::Json<Value>| {
            sender.send(body.into_inner()).unwrap();
            async { HttpResponse::Ok().finish() }
        };
        app.service(web::resource("/v1/traces").route(web::post().to(collect)));
    });
    let collector = collector.build().unwrap();
    let traces = format!("http://{}", collector.address()).parse().ok();
    actix_web::rt::spawn(collector.run());
    let server = server(HttpConfig { traces, ..HttpConfig::for_tests() }).await;
    let url = format!("http://{}/api/things", server.address());
    actix_web::rt::spawn(server.run());

    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request =
        awc::Client::default().get(url).insert_header(("traceparent", format!("00-{trace}-{parent}-01")));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let ours = async {
        loop {
            let sent = received.recv().await.unwrap();
            let spans = sent["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
            if let Some(span) = spans.iter().find(|span| span["traceId"] == trace) {
                return (span.clone(), sent["resourceSpans"][0]["resource"]["attributes"][0].clone());
            }
        }
    };
    let (span, resource) = tokio::time::timeout(Duration::from_secs(10), ours).await.unwrap();
    assert_eq!(resource["value"]["stringValue"], "a-service");
    assert_eq!((&span["name"], &span["parentSpanId"]), (&"GET /api/things".into(), &parent.into()));
    let time = |name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time("startTimeUnixNano") < time("endTimeUnixNano"), "{span}");
}
