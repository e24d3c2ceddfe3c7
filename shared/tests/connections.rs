//! The limits of a client connection, and where one request on it ends and the next begins. With raw sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::SizedStream;
use actix_web::{HttpResponse, web};
use futures_util::{StreamExt as _, stream};
use shared::service::{HttpConfig, Service};
use shared::testing::{eventually, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// The size of a body that no kernel buffers whole.
const LARGE: usize = 64 * 1024 * 1024;

/// The size of a body that the kernel buffers in part.
const MEDIUM: usize = 512 * 1024;

fn config() -> HttpConfig {
    let mut config = HttpConfig::for_tests();
    config.limits.head_timeout = Duration::from_millis(300);
    config.limits.grace = Duration::from_millis(300);
    config
}

fn service(config: HttpConfig) -> Service {
    Service::bind("a-service", config).unwrap().configure(|app| {
        app.route("/text", web::get().to(text))
            .route("/text", web::head().to(text))
            .route("/large", web::get().to(async || HttpResponse::Ok().body(vec![b'x'; LARGE])))
            .route("/large-chunks", web::get().to(async || HttpResponse::Ok().streaming(chunks())))
            .route("/medium", web::get().to(async || HttpResponse::Ok().body(vec![b'x'; MEDIUM])))
            .route("/refused", web::post().to(async || HttpResponse::Unauthorized().body("no")))
            .route("/answer-first", web::post().to(answer_first))
            .route("/body", web::post().to(async |body: web::Bytes| body));
    })
}

/// A handler that is not ready at once, so that the server may read the next request before this one is answered.
async fn text() -> &'static str {
    tokio::time::sleep(Duration::from_millis(5)).await;
    "hello"
}

/// [`LARGE`] bytes.
fn chunks() -> impl stream::Stream<Item = Result<web::Bytes, std::io::Error>> {
    stream::iter((0..LARGE / MEDIUM).map(|_| Ok(vec![b'x'; MEDIUM].into())))
}

/// Answers before it has read the request.
async fn answer_first(mut payload: web::Payload) -> HttpResponse {
    let body = stream::once(async move {
        while let Some(part) = payload.next().await {
            part.unwrap();
        }
        Ok::<_, std::io::Error>(vec![b'x'; MEDIUM].into())
    });
    HttpResponse::Ok().body(SizedStream::new(MEDIUM as u64, Box::pin(body)))
}

fn start(service: Service) -> SocketAddr {
    let server = service.build().unwrap();
    let address = server.address();
    run(server);
    address
}

/// Sends `request` and reads until the server closes; at most for ten seconds.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    rest(&mut client).await
}

async fn rest(client: &mut TcpStream) -> String {
    let mut answered = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answered)).await;
    // A reset is an end, too.
    let _ = read.expect("the server does not close the connection");
    String::from_utf8_lossy(&answered).into_owned()
}

async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut answered = Vec::new();
    while !String::from_utf8_lossy(&answered).contains(end) {
        let byte = tokio::time::timeout(Duration::from_secs(10), client.read_u8()).await;
        answered.push(byte.expect("an answer").expect("a byte"));
    }
    String::from_utf8(answered).unwrap()
}

#[actix_web::test]
async fn every_head_of_a_connection_has_a_deadline_and_not_the_first_alone() {
    let address = start(service(config()));
    for first in ["", "GET /text HTTP/1.1\r\nhost: h\r\n\r\n"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(first.as_bytes()).await.unwrap();
        if !first.is_empty() {
            read_until(&mut client, "hello").await;
        }
        client
            .write_all(format!("GET /text HTTP/1.1\r\nx-a: {}", "a".repeat(20_000)).as_bytes())
            .await
            .unwrap();
        let answered = rest(&mut client).await;
        assert!(answered.starts_with("HTTP/1.1 408") && answered.contains("request_timeout"), "{answered}");
    }
}

#[actix_web::test]
async fn a_head_of_more_than_32_kib_is_refused_even_as_the_second_of_a_connection() {
    let address = start(service(config()));
    let large = format!("GET /text HTTP/1.1\r\nhost: h\r\nx-a: {}\r\n\r\n", "a".repeat(32 * 1024));
    let small = "GET /text HTTP/1.1\r\nhost: h\r\n\r\n".to_owned();
    for request in [large.clone(), small + &large] {
        let answered = exchange(address, &request).await;
        assert!(answered.contains("HTTP/1.1 431") && answered.contains("headers_too_large"), "{answered}");
    }
}

#[actix_web::test]
async fn pipelined_requests_get_their_own_responses_in_order() {
    let address = start(service(config()));
    let request = |method: &str, last: &str| format!("{method} /text HTTP/1.1\r\nhost: h\r\n{last}\r\n");
    let close = "connection: close\r\n";
    for _ in 0..15 {
        let answered = exchange(address, &(request("HEAD", "") + &request("GET", close))).await;
        let (head, get) = answered.split_once("\r\n\r\n").expect("two responses");
        assert!(head.contains("200 OK") && head.contains("content-length: 5"), "{answered}");
        assert!(get.starts_with("HTTP/1.1 200 OK") && get.ends_with("\r\n\r\nhello"), "{answered}");

        let answered = exchange(address, &(request("GET", "") + &request("HEAD", close))).await;
        let (get, head) = answered.split_once("hello").expect("the body of the first response");
        assert!(get.starts_with("HTTP/1.1 200 OK") && get.ends_with("\r\n\r\n"), "{answered}");
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{answered}");
    }
    let posts = "POST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\none\
                 POST /body HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
    let answered = exchange(address, &format!("{posts}{}", request("GET", close))).await;
    let at = |text: &str| answered.find(text).unwrap_or_else(|| panic!("{answered}"));
    assert!(at("\r\n\r\none") < at("\r\n\r\ntwo") && at("\r\n\r\ntwo") < at("hello"), "{answered}");
}

#[actix_web::test]
async fn nothing_is_processed_after_a_request_that_closes_the_connection() {
    let address = start(service(config()));
    for close in ["HTTP/1.1\r\nhost: h\r\nconnection: close", "HTTP/1.0"] {
        let first = format!("GET /text {close}\r\n\r\n");
        let answered = exchange(address, &(first + "GET /text HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        assert_eq!(answered.matches(" 200 OK").count(), 1, "{answered}");
    }
}

#[actix_web::test]
async fn a_request_that_cannot_be_read_in_one_way_gets_a_problem_document_and_the_connection_closes() {
    let address = start(service(config()));
    for request in [
        "GET  /text HTTP/1.1\r\nhost: h\r\n\r\n",
        "GET /te xt HTTP/1.1\r\nhost: h\r\n\r\n",
        "GET /text HTTP/2.0\r\nhost: h\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
        "GET /text HTTP/1.1\r\n\r\n",
        "GET /text HTTP/1.1\r\nhost: \r\n\r\n",
        "GET /text HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET /text HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET /text HTTP/1.1\r\nhost: [::1\r\n\r\n",
        "GET /text HTTP/1.1\r\nhost: a:99999\r\n\r\n",
        "GET /text HTTP/1.1\r\nhost: h\r\nx: a\u{1}b\r\n\r\n",
        "POST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        // Nothing of the second request is served.
        let answered = exchange(address, &format!("{request}GET /text HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        let (head, body) =
            answered.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:?}: {answered}"));
        assert!(head.starts_with("HTTP/1.1 400 Bad Request"), "{request:?}: {answered}");
        assert!(head.contains("content-type: application/problem+json"), "{request:?}: {answered}");
        assert!(head.contains("x-request-id: ") && head.contains("connection: close"), "{answered}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["code"], "malformed_request", "{request:?}");
    }
}

#[actix_web::test]
async fn a_body_that_comes_too_slowly_gets_408() {
    let address = start(service(config()));
    let answered =
        exchange(address, "POST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 70000\r\n\r\nabc").await;
    assert!(answered.starts_with("HTTP/1.1 408") && answered.contains("request_timeout"), "{answered}");
}

#[actix_web::test]
async fn a_client_that_does_not_read_its_response_is_disconnected_and_costs_the_kernel_little() {
    let address = start(service(config()));
    let mut clients = Vec::new();
    // The connection writes a body of known length itself, and actix one in chunks.
    for path in ["/large", "/large-chunks"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
        clients.push(client);
    }
    // Only what the kernel buffers arrives.
    let began = Instant::now();
    let mut other = TcpStream::connect(address).await.unwrap();
    while began.elapsed() < Duration::from_secs(2) {
        other.write_all(b"GET /text HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        read_until(&mut other, "hello").await;
        tokio::task::yield_now().await;
    }
    for mut client in clients {
        let buffered = rest(&mut client).await.len();
        assert!(buffered < 1024 * 1024, "{buffered}");
    }
}

#[actix_web::test]
async fn a_client_that_reads_gets_a_large_response_whole() {
    let address = start(service(config()));
    let answered = exchange(address, "GET /large HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(answered.len() > LARGE, "{}", answered.len());
}

#[actix_web::test]
async fn a_client_that_sends_more_than_its_last_request_gets_its_response_whole() {
    let address = start(service(config()));
    let last = "GET /medium HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    // It takes little at a time, so the end of the response waits in the server's kernel.
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let mut client = client.connect(address).await.unwrap();
    client.write_all([last, &"x".repeat(100_000)].concat().as_bytes()).await.unwrap();
    let mut answered = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answered)).await;
    read.expect("the server does not close the connection").expect("no reset");
    assert!(answered.len() > MEDIUM, "{}", answered.len());
}

#[actix_web::test]
async fn a_connection_is_closed_soon_after_its_last_response_whatever_its_client_sends() {
    let address = start(service(config()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /text HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    while client.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "the server still reads");
        ticks.tick().await;
    }
}

#[actix_web::test]
async fn idle_connections_are_closed_when_there_are_too_many() {
    let address = start(service(HttpConfig { max_connections: 20, ..config() }));
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /text HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        read_until(&mut client, "hello").await;
        clients.push(client);
    }
    assert_eq!(rest(&mut clients[0]).await, "");
}

#[actix_web::test]
async fn a_client_has_a_limited_number_of_connections_and_proxies_have_not() {
    let limited = start(service(config()).limit_clients(3, |_| false));
    let exempt = start(service(config()).limit_clients(3, |client| client.is_loopback()));
    for (address, served) in [(limited, 3), (exempt, 8)] {
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let _ = client.write_all(b"GET /text HTTP/1.1\r\nhost: h\r\n\r\n").await;
            let mut first = [0; 1];
            let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut first)).await.unwrap();
            clients.push((client, matches!(read, Ok(1))));
        }
        assert_eq!(clients.iter().filter(|(_, was_served)| *was_served).count(), served);
    }
}

/// Tells when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[actix_web::test]
async fn an_event_stream_ends_when_its_client_leaves() {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = ended.clone();
    let service = Service::bind("a-service", config()).unwrap().configure(move |app| {
        let ended = ended.clone();
        let events = move || {
            // One event, then silence.
            let events =
                futures_util::stream::unfold((Guard(ended.clone()), false), async |(guard, sent)| {
                    if sent {
                        std::future::pending::<()>().await;
                    }
                    Some((Ok::<_, actix_web::Error>(web::Bytes::from("data: 1\n\n")), (guard, true)))
                });
            let response = HttpResponse::Ok().content_type("text/event-stream").streaming(events);
            std::future::ready(response)
        };
        app.route("/events", web::get().to(events));
    });
    let address = start(service);
    // No body; one that nobody reads; and one that is not whole.
    for body in ["\r\n", "content-length: 5\r\n\r\nhello", "content-length: 100\r\n\r\nhello"] {
        seen.store(false, Ordering::Relaxed);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("GET /events HTTP/1.1\r\nhost: h\r\n{body}").as_bytes()).await.unwrap();
        read_until(&mut client, "data: 1").await;
        assert!(!seen.load(Ordering::Relaxed));
        drop(client);
        let is_over = async || seen.load(Ordering::Relaxed).then_some(());
        eventually(&format!("the stream is over: {body}"), Duration::from_secs(10), is_over).await;
    }
}

#[actix_web::test]
async fn a_body_over_http_1_0_arrives_and_so_does_the_request_after_a_body_that_nobody_reads() {
    let address = start(service(config()));
    let old = "POST /body HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello";
    let answered = exchange(address, old).await;
    assert!(answered.contains("200 OK") && answered.ends_with("\r\n\r\nhello"), "{answered}");

    let last = "POST /body HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlast";
    for body in
        ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let request = format!("POST /refused HTTP/1.1\r\nhost: h\r\n{body}");
        let answered = exchange(address, &(request.clone() + last)).await;
        assert!(answered.contains("missing_token") && answered.ends_with("last"), "{answered}");

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut client, "missing_token").await;
        client.write_all(last.as_bytes()).await.unwrap();
        let answered = rest(&mut client).await;
        assert!(answered.ends_with("last"), "{answered}");
    }
}

#[actix_web::test]
async fn a_draining_server_serves_the_connections_that_wait_in_the_queue() {
    let server = service(config()).build().unwrap();
    let (address, handle) = (server.address(), server.handle());
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /text HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    let stopping = actix_web::rt::spawn(async move { handle.stop().await });
    tokio::task::yield_now().await;
    actix_web::rt::spawn(server.run());
    for mut client in clients {
        let answered = rest(&mut client).await;
        assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("hello"), "{answered:?}");
    }
    stopping.await.unwrap();
}

#[actix_web::test]
async fn an_early_response_to_an_upload_arrives_whole() {
    let address = start(service(config()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"POST /refused HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    // The server has answered; the client has not noticed, and goes on. Many clients lose the response when that fails.
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..20 {
        client.write_all(&[b'x'; 50_000]).await.unwrap();
        ticks.tick().await;
    }
    let answered = rest(&mut client).await;
    assert!(answered.contains("missing_token"), "{answered:?}");
}

#[actix_web::test]
async fn an_upload_goes_on_while_its_response_is_sent() {
    let address = start(service(config()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"POST /answer-first HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n")
        .await
        .unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    client.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
    let mut body = vec![0; MEDIUM];
    client.read_exact(&mut body).await.unwrap();
}

#[actix_web::test]
async fn a_body_does_not_go_on_for_ever_after_its_response() {
    let address = start(service(config()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"POST /refused HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    // Faster than the minimum rate, for as long as the server reads.
    while client.write_all(format!("64\r\n{}\r\n", "x".repeat(100)).as_bytes()).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "the server still reads");
        ticks.tick().await;
    }
}

#[actix_web::test]
async fn empty_lines_between_requests_are_ignored() {
    let address = start(service(config()));
    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        client.write_all(b"\r\nGET /text HTTP/1.1\r\nhost: h\r\n\r\n\r\n").await.unwrap();
        assert!(read_until(&mut client, "hello").await.starts_with("HTTP/1.1 200"));
        // The client waits longer than a head may take: the empty line was not the beginning of one.
        tokio::time::sleep(2 * config().limits.head_timeout).await;
    }
}
