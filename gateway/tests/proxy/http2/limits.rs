//! What a client may cost with HTTP/2, however many connections and streams it has. The server is a service with TLS
//! towards clients: the limits are those of the chassis.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use futures_util::future::{Either, join, join_all, pending, select};
use futures_util::stream;
use h2::Reason;
use shared::service::{HttpConfig, Listener, ServerHandle, Service};
use shared::testing::run;
use shared::tls::{CertificateFiles, Certificates, ClientTls};
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::frames::{END_STREAM, Frames, GO_AWAY, HEADERS, RESET, SETTINGS, WINDOW_UPDATE};
use super::{ask, connect, get};
use crate::site::{Site, until};

/// Bytes of each part of `/endless`.
const PART: usize = 16 * 1024;
const STREAMS: u32 = 100;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Counts what its handlers do.
#[derive(Default)]
struct Work {
    /// Requests of `/pending` that run.
    running: AtomicUsize,
    /// Bodies of `/endless` that exist.
    bodies: AtomicUsize,
    /// Bytes of them.
    sent: AtomicUsize,
}

/// Adds one to a count while it exists.
struct Counted<F: Fn(&Work) -> &AtomicUsize>(Arc<Work>, F);

impl<F: Fn(&Work) -> &AtomicUsize> Counted<F> {
    fn new(work: &Arc<Work>, count: F) -> Self {
        count(work).fetch_add(1, Ordering::SeqCst);
        Self(work.clone(), count)
    }
}

impl<F: Fn(&Work) -> &AtomicUsize> Drop for Counted<F> {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

fn config() -> HttpConfig {
    let mut config = HttpConfig::for_tests();
    config.limits.grace = Duration::from_millis(300);
    config
}

/// A service for `a.example`, with `/a`, `/pending` and `/endless`, and where it is. The responses of `/endless` begin when
/// there are a hundred.
fn serve(
    config: &HttpConfig,
    with: impl FnOnce(Service) -> Service,
) -> (Site, SocketAddr, ServerHandle, Arc<Work>) {
    let (site, work) = (Site::new(), Arc::new(Work::default()));
    site.certify("a", &["a.example"]);
    let files = CertificateFiles {
        names: vec!["a.example".to_owned()],
        certificate: site.path("a.pem"),
        key: site.path("a.key"),
    };
    let tls = ClientTls::new(Certificates::read(&[files]).unwrap()).unwrap();
    let listener = Listener::bind("a-service", config.clone()).unwrap();
    let (counted, together) = (work.clone(), Arc::new(Barrier::new(STREAMS as usize)));
    let service = Service::bind("a-service", config.clone()).unwrap().configure(move |app| {
        let (pends, sends, together) = (counted.clone(), counted.clone(), together.clone());
        let waiting = move || {
            let running = Counted::new(&pends, |work| &work.running);
            async move {
                pending::<()>().await;
                drop(running);
                HttpResponse::Ok().finish()
            }
        };
        let endless = move || {
            let body = Counted::new(&sends, |work| &work.bodies);
            let parts = stream::repeat_with(move || {
                body.0.sent.fetch_add(PART, Ordering::SeqCst);
                Ok::<_, actix_web::Error>(Bytes::from_static(&[b'x'; PART]))
            });
            let together = together.clone();
            async move {
                // When the socket takes nothing more, no further request is read.
                together.wait().await;
                HttpResponse::Ok().streaming(parts)
            }
        };
        let flood = async || {
            HttpResponse::Ok().streaming(stream::repeat_with(|| {
                Ok::<_, actix_web::Error>(Bytes::from_static(&[b'x'; PART]))
            }))
        };
        app.route("/a", web::get().to(async || "hello"))
            .route("/flood", web::get().to(flood))
            .route("/pending", web::get().to(waiting))
            .route("/endless", web::get().to(endless));
    });
    let server = with(service.client_tls(tls, listener)).build().unwrap();
    let (address, handle) = (server.secure_address().unwrap(), server.handle());
    run(server);
    (site, address, handle, work)
}

fn head(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "a.example")]
}

/// A setting with this number (RFC 9113 §6.5.2).
fn setting(number: u16, value: u32) -> Vec<u8> {
    [&number.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

const INITIAL_WINDOW_SIZE: u16 = 4;

#[actix_web::test]
async fn a_client_has_a_limited_number_of_requests_on_all_its_connections_together() {
    let of_client = serve(&config(), |service| service.limit_clients(3, |_| false));
    let of_all = serve(&HttpConfig { max_connections: 3, ..config() }, |service| service);
    for ((site, address, _handle, work), status) in [(of_client, 429), (of_all, 503)] {
        let (first, second) = (connect(&site, address).await, connect(&site, address).await);
        let mut waiting = Vec::new();
        for client in [&first, &first, &second] {
            let client = client.clone();
            waiting.push(actix_web::rt::spawn(async move { ask(&client, get("/pending"), None).await }));
        }
        until("three requests run", async || work.running.load(Ordering::SeqCst) == 3).await;
        for client in [&first, &second] {
            let response = ask(client, get("/a"), None).await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["retry-after"], "1");
        }
        waiting.remove(0).abort();
        until("there is room", async || ask(&second, get("/a"), None).await.unwrap().status() == 200).await;
    }
}

#[actix_web::test]
async fn the_responses_that_a_client_does_not_take_hold_little_memory_whatever_its_windows() {
    let mut config = config();
    config.limits.grace = Duration::from_secs(1);
    let (site, address, _handle, work) = serve(&config, |service| service);
    let mut client = Frames::open(&site, address).await;
    let window = i32::MAX as u32;
    client.send(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, window)).await.unwrap();
    client.send(WINDOW_UPDATE, 0, 0, &(window - 65_535).to_be_bytes()).await.unwrap();
    for stream in 0..STREAMS {
        client.head(2 * stream + 1, END_STREAM, &head("/endless")).await.unwrap();
    }
    // It reads nothing: it is disconnected.
    let count = || work.bodies.load(Ordering::SeqCst);
    until("all requests run", async || count() == STREAMS as usize).await;
    until("it is disconnected", async || count() == 0).await;
    let sent = work.sent.load(Ordering::SeqCst);
    // A part of each stream, and what waits for the socket: here, and in the kernel.
    assert!(sent < STREAMS as usize * PART + 3 * 1024 * 1024, "{sent}");
}

#[actix_web::test]
async fn a_client_with_a_slow_link_is_not_taken_for_one_that_resets_its_streams() {
    let (site, address, _handle, _work) = serve(&config(), |service| service);
    let mut client = Frames::open(&site, address).await;
    client.send(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, 0)).await.unwrap();
    for round in 0..3 {
        for stream in 0..STREAMS {
            client.head(2 * (round * STREAMS + stream) + 1, END_STREAM, &head("/endless")).await.unwrap();
        }
        for _ in 0..STREAMS {
            let reset = client.until(RESET).await.expect("it is disconnected");
            assert_eq!(reset.reason(), u32::from(Reason::CANCEL));
        }
    }
}

#[actix_web::test]
async fn a_client_that_sends_one_malformed_request_after_the_other_is_disconnected() {
    let (site, address, _handle, _work) = serve(&config(), |service| service);
    let mut client = Frames::open(&site, address).await;
    let malformed = [(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "a@b")];
    // Room for all responses.
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).await.unwrap();
    let mut refused = 0;
    'requests: for stream in 0..1000 {
        if client.head(2 * stream + 1, END_STREAM, &malformed).await.is_err() {
            break;
        }
        loop {
            match client.next().await {
                Some(answered) if answered.kind == HEADERS => break,
                Some(answered) if answered.kind == GO_AWAY => {
                    assert_eq!(answered.number(4), u32::from(Reason::ENHANCE_YOUR_CALM));
                    break 'requests;
                }
                Some(_) => {}
                None => break 'requests,
            }
        }
        refused += 1;
    }
    assert!((100..1000).contains(&refused), "{refused}");
}

#[actix_web::test]
async fn a_client_that_ignores_the_end_of_its_connection_does_not_keep_it() {
    let config = HttpConfig { drain_limit: Duration::from_secs(30), ..config() };
    let (site, address, handle, _work) = serve(&config, |service| service);
    let mut client = Frames::open(&site, address).await;
    client.get(1, &[]).await.unwrap();
    client.until(HEADERS).await.unwrap();
    let stopping = actix_web::rt::spawn(async move { handle.stop().await });
    // It reads nothing more, so it confirms nothing.
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(100)));
    for stream in 1.. {
        ticks.tick().await;
        if client.get(2 * stream + 1, &[]).await.is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the connection stays");
    }
    stopping.await.unwrap();
}

#[actix_web::test]
async fn downloads_that_never_pause_do_not_keep_other_requests_of_their_connection_waiting() {
    let (site, address, handle, _work) = serve(&config(), |service| service);
    let client = connect(&site, address).await;
    let downloads = (0..8).map(async |_| {
        let mut body = ask(&client, get("/flood"), None).await.unwrap().into_body();
        while let Some(Ok(part)) = body.data().await {
            body.flow_control().release_capacity(part.len()).unwrap();
        }
    });
    let others = async {
        for _ in 0..20 {
            assert_eq!(ask(&client, get("/a"), None).await.unwrap().status(), 200);
        }
    };
    let (downloads, others) = (pin!(join_all(downloads)), pin!(others));
    let first = timeout(TIMEOUT, select(downloads, others)).await.expect("a request waits");
    assert!(matches!(first, Either::Right(_)));
    handle.stop().await;
}

#[actix_web::test]
async fn a_client_that_always_has_requests_running_is_told_of_the_drain() {
    let config = HttpConfig { drain_limit: Duration::from_secs(60), ..config() };
    let (site, address, handle, _work) = serve(&config, |service| service);
    let client = connect(&site, address).await;
    ask(&client, get("/a"), None).await.unwrap();
    let busy = (0..STREAMS).map(async |_| while ask(&client, get("/a"), None).await.is_ok() {});
    timeout(TIMEOUT, join(join_all(busy), handle.stop()))
        .await
        .expect("the client gets GOAWAY, and the server stops");
}
