//! Tests of the service client over real connections.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use shared::balancer::{Health, Pool, Settings};
use shared::client::{ATTEMPT_HEADER, ClientError, Context, ServiceClient, TokenSource};
use shared::registry::{Directory, Instance, Instances, Registry, RegistryError};
use shared::resilience::Deadline;
use shared::testing::{Keys, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use uuid::Uuid;

/// A replica with a fixed response that records the headers of requests.
struct Replica {
    url: String,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Replica {
    async fn new<F>(answer: impl Fn() -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = HttpResponse> + 'static,
    {
        let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
        let paths: Arc<Mutex<Vec<String>>> = Arc::default();
        let memory = (seen.clone(), paths.clone());
        let app = move || {
            let ((seen, paths), answer) = (memory.clone(), answer.clone());
            App::new().default_service(web::to(move |request: HttpRequest| {
                seen.lock().unwrap().push(request.headers().clone());
                paths.lock().unwrap().push(request.path().to_owned());
                answer()
            }))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self { url, seen, paths }
    }

    async fn good() -> Self {
        Self::new(async || HttpResponse::Ok().json("good")).await
    }

    async fn of_status(status: u16) -> Self {
        match status {
            503 => Self::new(async || HttpResponse::ServiceUnavailable().finish()).await,
            502 => Self::new(async || HttpResponse::BadGateway().finish()).await,
            504 => Self::new(async || HttpResponse::GatewayTimeout().finish()).await,
            _ => Self::new(async || HttpResponse::InternalServerError().finish()).await,
        }
    }

    async fn hanging() -> Self {
        Self::new(std::future::pending::<HttpResponse>).await
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }

    fn times(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// A TCP server that calls `serve` with each connection and its number, from 0.
async fn raw<F>(serve: impl Fn(usize, TcpStream) -> F + 'static) -> (String, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections: Arc<AtomicUsize> = Arc::default();
    let counted = connections.clone();
    actix_web::rt::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            actix_web::rt::spawn(serve(counted.fetch_add(1, Ordering::Relaxed), stream));
        }
    });
    (url, connections)
}

/// Reads a request without a body.
async fn read(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
}

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// A URL that refuses connections, and the socket that reserves its port.
fn dead() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (format!("http://{}", socket.local_addr().unwrap()), socket)
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::new("an-issuer"));

fn instances(urls: &[&str]) -> Vec<Instance> {
    urls.iter().map(|url| Instance::new(url, url)).collect()
}

fn client_of(pool: &Arc<Pool>) -> ServiceClient {
    ServiceClient::new(pool.clone(), TokenSource::new("a-service", KEYS.service("a-service", &[])))
}

/// A client of the replicas at `urls`, and its pool.
fn client(urls: &[&str]) -> (ServiceClient, Arc<Pool>) {
    let pool = Pool::new("b-service", Settings::default());
    pool.update(&instances(urls), Instant::now());
    (client_of(&pool), pool)
}

fn context(headers: &[(&'static str, &str)]) -> Context {
    let pairs = headers.iter();
    Context::from_headers(
        &pairs
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect(),
    )
}

#[actix_web::test]
async fn a_call_carries_the_request_id_the_trace_the_deadline_and_a_token_for_the_callee() {
    let replica = Replica::good().await;
    let (trace, person) = ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Uuid::now_v7());
    let context =
        context(&[("x-request-id", "an-id"), ("traceparent", trace), ("x-request-timeout-ms", "2000")]);
    let (client, _) = client(&[&replica.url]);
    let call = client.post("/things").context(&context).person(person).json(&["a"]).header("x-more", "more");
    let answer = call.send().await.unwrap();
    assert_eq!((answer.status, answer.json::<String>().unwrap().as_str()), (StatusCode::OK, "good"));

    let seen = replica.seen.lock().unwrap()[0].clone();
    let text = |name: &str| seen.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((text("x-request-id"), text("x-more")), ("an-id".to_owned(), "more".to_owned()));
    assert_eq!((text("content-type"), text(ATTEMPT_HEADER)), ("application/json".to_owned(), "0".to_owned()));
    assert_eq!(text("traceparent"), trace, "the callee's span is a child of the caller's");
    let left = Deadline::from_headers(&seen).unwrap().remaining();
    assert!(left > Duration::ZERO && left <= Duration::from_secs(2), "{left:?}");
    let authorization = text("authorization");
    let token = authorization.strip_prefix("Bearer ").unwrap();
    let claims = KEYS.service("b-service", &["a-service"]).verify(token, "b-service").unwrap();
    assert_eq!((claims.iss.as_str(), claims.sub), ("a-service", Some(person)));
}

#[actix_web::test]
async fn calls_are_shared_among_the_replicas() {
    let (one, two) = (Replica::good().await, Replica::good().await);
    let (client, _) = client(&[&one.url, &two.url]);
    for _ in 0..10 {
        client.get("/").send().await.unwrap();
    }
    assert_eq!((one.times(), two.times()), (5, 5));
}

#[actix_web::test]
async fn a_refused_connection_fails_no_call_of_any_method() {
    let (alive, (dead, _kept)) = (Replica::good().await, dead());
    let (client, pool) = client(&[&dead, &alive.url]);
    for _ in 0..10 {
        assert_eq!(client.post("/").send().await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(alive.times(), 10);
    assert_eq!(pool.snapshot(Instant::now())[0].health, Health::Ejected);
}

#[actix_web::test]
async fn without_a_reachable_replica_the_service_is_unavailable() {
    let ((one, _one), (two, _two)) = (dead(), dead());
    let (client, _) = client(&[&one, &two]);
    let unavailable = client.get("/").send().await;
    assert!(matches!(unavailable, Err(ClientError::Unavailable(service)) if service == "b-service"));
}

#[actix_web::test]
async fn a_transient_failure_is_retried_on_another_replica_if_the_request_is_idempotent() {
    for status in [502, 503, 504] {
        let (bad, good) = (Replica::of_status(status).await, Replica::good().await);
        let (client, _) = client(&[&bad.url, &good.url]);
        for _ in 0..2 {
            assert_eq!(client.get("/").send().await.unwrap().status, StatusCode::OK, "{status}");
            let keyed = client.post("/").idempotency_key("a-key").send().await.unwrap();
            assert_eq!(keyed.status, StatusCode::OK, "{status}");
        }
        assert!(bad.times() > 0, "{status}");
        let retried = good.seen.lock().unwrap().iter().any(|seen| seen.get(ATTEMPT_HEADER).unwrap() == "1");
        assert!(retried, "a retry has its number");
    }
}

#[actix_web::test]
async fn a_non_idempotent_request_and_a_500_are_not_retried() {
    let (bad, broken) = (Replica::of_status(503).await, Replica::of_status(500).await);
    let (of_bad, _) = client(&[&bad.url]);
    assert_eq!(of_bad.post("/").send().await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bad.times(), 1, "the request may have had an effect");
    let (of_broken, _) = client(&[&broken.url]);
    assert_eq!(of_broken.get("/").send().await.unwrap().status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(broken.times(), 1, "a retry would fail again");
}

#[actix_web::test]
async fn only_the_outermost_hop_retries() {
    let bad = Replica::of_status(503).await;
    let (client, _) = client(&[&bad.url]);
    client.get("/").context(&context(&[(ATTEMPT_HEADER, "0")])).send().await.unwrap();
    assert_eq!(bad.times(), 1);
    client.get("/").context(&Context::background()).send().await.unwrap();
    assert_eq!(bad.times(), 3);
}

#[actix_web::test]
async fn a_broken_connection_is_retried_even_on_the_only_replica() {
    let serve = async |connection, mut stream: TcpStream| {
        read(&mut stream).await;
        if connection > 0 {
            stream.write_all(GOOD).await.unwrap();
        }
    };
    let (url, connections) = raw(serve).await;
    let (of_get, _) = client(&[&url]);
    assert_eq!(of_get.get("/").send().await.unwrap().status, StatusCode::OK);
    assert_eq!(connections.load(Ordering::Relaxed), 2);

    let (url, connections) = raw(serve).await;
    let (of_post, _) = client(&[&url]);
    assert!(matches!(of_post.post("/").send().await, Err(ClientError::Broken(_))));
    assert_eq!(connections.load(Ordering::Relaxed), 1, "the request may have had an effect");
}

#[actix_web::test]
async fn a_closed_idle_connection_is_no_failure() {
    let (url, connections) = raw(async |_, mut stream| {
        read(&mut stream).await;
        stream.write_all(GOOD).await.unwrap();
    })
    .await;
    let (client, pool) = client(&[&url]);
    for call in 0..20 {
        assert_eq!(client.get("/").send().await.unwrap().status, StatusCode::OK, "{call}");
    }
    assert!(connections.load(Ordering::Relaxed) >= 20);
    assert_eq!(pool.snapshot(Instant::now())[0].health, Health::Healthy);
}

#[actix_web::test]
async fn connections_are_reused() {
    let (url, connections) = raw(async |_, mut stream| {
        loop {
            read(&mut stream).await;
            if stream.write_all(GOOD).await.is_err() {
                break;
            }
        }
    })
    .await;
    let (client, _) = client(&[&url]);
    for _ in 0..10 {
        client.get("/").send().await.unwrap();
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[actix_web::test]
async fn a_hanging_replica_is_ejected_but_not_for_missing_a_short_deadline() {
    let (good, hanging) = (Replica::good().await, Replica::hanging().await);
    let (client, pool) = client(&[&good.url, &hanging.url]);
    let calls = |timeout: Duration| {
        futures_util::future::join_all((0..12).map(move |_| {
            let client = client.clone();
            async move { client.get("/").timeout(timeout).send().await }
        }))
    };
    let health = || pool.snapshot(Instant::now())[1].health;
    let missed = |answers: &[Result<_, ClientError>]| {
        answers.iter().filter(|answer| matches!(answer, Err(ClientError::TimedOut(_)))).count()
    };
    let answers = calls.clone()(Duration::from_millis(250)).await;
    assert_eq!((missed(&answers), health()), (6, Health::Healthy));
    let answers = calls(Duration::from_secs(1)).await;
    assert_eq!((missed(&answers), health()), (6, Health::Ejected));
}

#[actix_web::test]
async fn a_replica_that_answers_504_to_a_short_deadline_is_not_ejected() {
    let (good, late) = (Replica::good().await, Replica::of_status(504).await);
    let (client, pool) = client(&[&good.url, &late.url]);
    let health = || pool.snapshot(Instant::now())[1].health;
    let calls = async |timeout: Duration| {
        for _ in 0..20 {
            client.post("/").timeout(timeout).send().await.unwrap();
        }
    };
    calls(Duration::from_millis(400)).await;
    assert_eq!(health(), Health::Healthy);
    calls(Duration::from_secs(5)).await;
    assert_eq!(health(), Health::Ejected);
}

#[actix_web::test]
async fn a_replica_whose_name_is_not_found_is_not_ejected() {
    let good = Replica::good().await;
    let (client, pool) = client(&["http://no-such-host.invalid:80", &good.url]);
    for _ in 0..10 {
        client.get("/").send().await.unwrap();
    }
    assert_eq!(pool.snapshot(Instant::now())[0].health, Health::Healthy);
}

#[actix_web::test]
async fn the_probe_of_an_ejected_replica_is_an_idempotent_request_or_a_health_check() {
    let (good, bad) = (Replica::good().await, Replica::of_status(500).await);
    let (client, pool) = client(&[&good.url, &bad.url]);
    let is_ejected = || pool.snapshot(Instant::now())[1].health == Health::Ejected;
    while !is_ejected() {
        client.post("/").send().await.unwrap();
    }
    let before = bad.times();
    eventually("it is probed", Duration::from_secs(10), async || {
        client.post("/").send().await.unwrap();
        (bad.times() > before).then_some(())
    })
    .await;
    assert_eq!(bad.paths()[before], "/health/ready");
    assert!(bad.paths()[..before].iter().all(|path| path == "/"));
}

#[actix_web::test]
async fn a_call_ends_at_its_callers_deadline() {
    let hanging = Replica::hanging().await;
    let (client, _) = client(&[&hanging.url]);
    let call = |remaining: &'static str| {
        let client = client.clone();
        let context = context(&[("x-request-timeout-ms", remaining)]);
        async move { client.get("/").context(&context).send().await }
    };
    let began = Instant::now();
    assert!(matches!(call("200").await, Err(ClientError::TimedOut(_))));
    assert!(began.elapsed() < Duration::from_secs(2), "not the five seconds of a call without a deadline");
    assert_eq!(hanging.times(), 1);
    assert!(matches!(call("0").await, Err(ClientError::TimedOut(_))));
    assert_eq!(hanging.times(), 1, "after the deadline no request is sent");
}

#[actix_web::test]
async fn a_call_waits_a_moment_for_the_first_replica() {
    let replica = Replica::good().await;
    let pool = Pool::new("b-service", Settings::default());
    let client = client_of(&pool);
    let call = client.get("/").send();
    let appear = async { pool.update(&instances(&[&replica.url]), Instant::now()) };
    let (answer, ()) = futures_util::join!(call, appear);
    assert_eq!(answer.unwrap().status, StatusCode::OK);

    let nobody = client_of(&Pool::new("b-service", Settings::default()));
    let unavailable = nobody.get("/").timeout(Duration::from_millis(50)).send().await;
    assert!(matches!(unavailable, Err(ClientError::Unavailable(_))));
}

/// Returns `first` to its first query, and `then` to the others. It never reports a change.
struct SilentRegistry {
    first: Vec<Instance>,
    then: Vec<Instance>,
    queries: Cell<usize>,
}

#[async_trait(?Send)]
impl Registry for SilentRegistry {
    async fn instances(&self, _: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
        if seen.is_some() {
            std::future::pending::<()>().await;
        }
        let instances = if self.queries.get() == 0 { &self.first } else { &self.then };
        self.queries.set(self.queries.get() + 1);
        Ok(Instances { instances: instances.clone(), ..Instances::default() })
    }
}

/// Calls a service whose replicas are first `first`. Also returns the number of queries to the registry.
async fn call_through_registry(first: &[&str], then: &[&str]) -> (Result<StatusCode, ClientError>, usize) {
    let (first, then) = (instances(first), instances(then));
    let registry = Rc::new(SilentRegistry { first, then, queries: Cell::default() });
    let pool = Directory::new(registry.clone(), Settings::default()).watch("b-service");
    pool.wait_until_available(Duration::from_secs(10)).await;
    let answer = client_of(&pool).post("/").send().await;
    (answer.map(|answer| answer.status), registry.queries.get())
}

#[actix_web::test]
async fn if_no_known_replica_is_reachable_a_call_asks_the_registry_for_new_ones() {
    let (replica, dead) = (Replica::good().await, [dead(), dead(), dead()]);
    let dead: Vec<_> = dead.iter().map(|(url, _kept)| url.as_str()).collect();
    for known in [1, 2, 3] {
        let (answer, queries) = call_through_registry(&dead[..known], &[&replica.url]).await;
        assert_eq!((answer.unwrap(), queries), (StatusCode::OK, 2), "{known}");
    }
    let began = Instant::now();
    let (answer, queries) = call_through_registry(&dead[..1], &dead[..1]).await;
    assert!(matches!(answer, Err(ClientError::Unavailable(_))) && queries == 2);
    assert!(began.elapsed() < Duration::from_secs(1), "it waits although the registry has answered");
}

#[actix_web::test]
async fn a_replica_at_its_concurrency_limit_is_busy() {
    let hanging = Replica::hanging().await;
    let pool = Pool::new("b-service", Settings { max_in_flight: 1, ..Settings::default() });
    pool.update(&instances(&[&hanging.url]), Instant::now());
    let client = client_of(&pool);
    let running = client.get("/").timeout(Duration::from_millis(200)).send();
    let (running, busy) = futures_util::join!(running, client.get("/").send());
    assert!(matches!(running, Err(ClientError::TimedOut(_))));
    assert!(matches!(busy, Err(ClientError::Busy(_))));
}

#[actix_web::test]
async fn redirects_are_not_followed_and_a_large_response_is_an_error() {
    let away = Replica::new(async || {
        HttpResponse::Found().insert_header(("location", "http://127.0.0.1:1/")).finish()
    })
    .await;
    let (of_away, _) = client(&[&away.url]);
    assert_eq!(of_away.get("/").send().await.unwrap().status, StatusCode::FOUND);
    let huge = Replica::new(async || HttpResponse::Ok().body(vec![b'x'; 3 * 1024 * 1024])).await;
    let (of_huge, pool) = client(&[&huge.url]);
    assert!(matches!(of_huge.get("/").send().await, Err(ClientError::Malformed(..))));
    assert_eq!(pool.snapshot(Instant::now())[0].active_requests, 0);
}

#[actix_web::test]
async fn a_malformed_request_is_not_the_fault_of_a_replica() {
    let replica = Replica::good().await;
    let (client, pool) = client(&[&replica.url]);
    for _ in 0..10 {
        let malformed = client.post("/").idempotency_key("two\nlines").send().await;
        assert!(matches!(malformed, Err(ClientError::Malformed(..))));
    }
    assert_eq!((replica.times(), pool.snapshot(Instant::now())[0].health), (0, Health::Healthy));
}

#[test]
fn a_client_is_send_and_sync() {
    fn goes<T: Clone + Send + Sync>() {}
    goes::<ServiceClient>();
}
