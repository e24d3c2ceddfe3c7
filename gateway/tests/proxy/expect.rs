//! `Expect: 100-continue`: the gateway or the service can refuse a request before the client has sent its body.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use http::Request;
use shared::service::{HttpConfig, Service};
use shared::testing::run;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::OK;
use crate::harness::{Gateway, Upstream, configuration, raw, raw_at, read_until};
use crate::http2::connect;
use crate::site::Site;

/// Too large to be kept for a retry.
const LARGE: usize = 100 * 1024;
/// The end of every body of this file, chunked or not.
const END: &str = "0\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn head(path: &str, framing: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n{framing}\r\n\r\n")
}

fn sized(length: usize) -> String {
    format!("content-length: {length}")
}

/// A service that answers each head with `said`. After a 100, it reads the body, and answers with 200.
fn deciding(said: &'static str) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let upstream = Upstream::serving(move |stream| {
        let head = read_until(stream, "\r\n\r\n").to_lowercase();
        seen.lock().unwrap().push(head);
        stream.write_all(said.as_bytes()).unwrap();
        if said == CONTINUE || said.is_empty() {
            read_until(stream, END);
            let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            stream.write_all(ok.as_bytes()).unwrap();
        } else {
            // Until the gateway closes the connection.
            let _ = stream.read(&mut [0]);
        }
    });
    (upstream, heads)
}

async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(end) {
            text.push(char::from(stream.read_u8().await.unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap_or_else(|_| panic!("no {end:?}"));
    text
}

/// Waits for a 100, and sends the body. Returns the time that the 100 took, and what follows it.
async fn sends_body(address: SocketAddr, head: &str, body: &str) -> (Duration, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let began = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_to(&mut stream, "\r\n\r\n").await, CONTINUE);
    let took = began.elapsed();
    stream.write_all(body.as_bytes()).await.unwrap();
    let answered = read_to(&mut stream, "ok").await;
    // The connection stays open.
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    (took, answered)
}

/// A body with a length.
fn body() -> String {
    "x".repeat(LARGE - END.len()) + END
}

#[actix_web::test]
async fn a_client_that_waits_for_a_100_gets_a_refusal_of_the_gateway_without_one() {
    let upstream = Upstream::answering(OK);
    let routes = "\
        [[routes]]\nid = \"user\"\nprefix = \"/user\"\nservice = \"a\"\naccess = \"user\"\n\
        [[routes]]\nid = \"small\"\nprefix = \"/small\"\nservice = \"a\"\nbody_limit_kib = 1\n\
        [[routes]]\nid = \"seldom\"\nprefix = \"/seldom\"\nservice = \"a\"\npost_rate_per_second = 1\n";
    let gateway = Gateway::in_file(&(configuration("") + routes), &[&upstream]).await;
    for (path, status) in
        [("/nowhere", "404"), ("/a/../b", "400"), ("/user", "401"), ("/small", "413"), ("/seldom", "429")]
    {
        for framing in [&sized(LARGE), "transfer-encoding: chunked"] {
            if path == "/small" && framing.contains("chunked") {
                continue;
            }
            if path == "/seldom" {
                raw(&gateway, "POST /seldom HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
            }
            let answered = raw(&gateway, &head(path, framing)).await;
            assert!(answered.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answered}");
            assert_eq!(answered.matches("HTTP/1.1").count(), 1, "{path}: {answered}");
            assert!(answered.to_lowercase().contains("\r\nconnection: close\r\n"), "{path}: {answered}");
        }
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|request| request.starts_with("POST /seldom ")), "{seen:?}");
}

#[actix_web::test]
async fn after_a_refused_body_no_request_is_served_on_the_connection() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    for framing in [&sized(5), "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(head("/nowhere", framing).as_bytes()).await.unwrap();
        assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        let next = format!("{END}GET /a HTTP/1.1\r\nhost: h\r\n\r\n");
        // The gateway may have closed the connection.
        let _ = stream.write_all(next.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(upstream.seen(), [""; 0], "{}", String::from_utf8_lossy(&rest));
    }
}

#[actix_web::test]
async fn a_service_that_answers_before_it_reads_the_body_gets_the_body() {
    let upstream = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n").unwrap();
        read_until(stream, END);
        stream.write_all(b"ok").unwrap();
    });
    let gateway = Gateway::start(&[&upstream]).await;
    let request = head("/a", &sized(LARGE)) + &body();
    assert!(raw(&gateway, &request.replace("host: h", "host: h\r\nconnection: close")).await.ends_with("ok"));
}

#[actix_web::test]
async fn a_service_decides_about_a_large_body_before_it_is_sent() {
    let refusal = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n";
    let (upstream, heads) = deciding(refusal);
    let gateway = Gateway::start(&[&upstream]).await;
    for framing in [&sized(LARGE), "transfer-encoding: chunked"] {
        let answered = raw(&gateway, &head("/a", framing)).await;
        assert!(answered.starts_with("HTTP/1.1 413 "), "{answered}");
        assert_eq!(answered.matches("HTTP/1.1").count(), 1, "{answered}");
        let seen = heads.lock().unwrap().pop().unwrap();
        assert!(seen.contains("\r\nexpect: 100-continue\r\n") && seen.contains(framing), "{seen}");
    }
    let (upstream, heads) = deciding(CONTINUE);
    let gateway = Gateway::start(&[&upstream]).await;
    let chunked = format!("{LARGE:x}\r\n{}\r\n{END}", "x".repeat(LARGE));
    for (framing, body) in [(&*sized(LARGE), body()), ("transfer-encoding: chunked", chunked)] {
        let (took, answered) = sends_body(gateway.address(), &head("/a", framing), &body).await;
        assert!(took < Duration::from_millis(900), "{took:?}");
        assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
        assert!(heads.lock().unwrap().pop().unwrap().contains("\r\nexpect: 100-continue\r\n"));
    }
}

#[actix_web::test]
async fn a_service_that_knows_nothing_of_expect_gets_the_body_after_a_second() {
    let (upstream, _heads) = deciding("");
    let gateway = Gateway::start(&[&upstream]).await;
    let (took, answered) = sends_body(gateway.address(), &head("/a", &sized(LARGE)), &body()).await;
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
}

#[actix_web::test]
async fn the_gateway_asks_for_a_small_body_itself() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let (_, answered) = sends_body(gateway.address(), &head("/a", &sized(2)), "hi").await;
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
    // Nobody waits for a body that is not there.
    let answered = raw(&gateway, &head("/a", "connection: close")).await;
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
    for seen in upstream.seen() {
        assert!(!seen.to_lowercase().contains("expect"), "{seen}");
    }
}

#[actix_web::test]
async fn a_client_with_http_2_gets_a_100_only_if_the_body_is_wanted() {
    let (upstream, _heads) = deciding(CONTINUE);
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.configure("", &[("a", &["a.example"])]);
    let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
    let client = connect(&site, gateway.secure()).await;
    for (path, continues, status) in [("/nowhere", false, 404), ("/a", true, 200)] {
        let request = Request::post(format!("https://a.example{path}"))
            .header("expect", "100-continue")
            .header("content-length", LARGE);
        let mut client = client.clone().ready().await.unwrap();
        let (mut response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let informed = poll_fn(|cx| response.poll_informational(cx)).await;
        let informed = informed.map(|informed| informed.unwrap().status().as_u16());
        assert_eq!(informed, continues.then_some(100), "{path}");
        if continues {
            stream.send_data(body().into(), true).unwrap();
        }
        assert_eq!(response.await.unwrap().status(), status, "{path}");
    }
}

#[actix_web::test]
async fn a_service_answers_without_a_100_if_its_handler_reads_no_body() {
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap().configure(|app| {
        app.route("/refused", web::post().to(HttpResponse::Forbidden));
        app.route("/read", web::post().to(async |body: String| HttpResponse::Ok().body(body)));
    });
    let (api, _handle) = run(service.build().unwrap());
    let address = api.base.trim_start_matches("http://").parse().unwrap();
    let answered = raw_at(address, &head("/refused", &sized(LARGE))).await;
    assert!(answered.starts_with("HTTP/1.1 403 "), "{answered}");
    assert!(answered.to_lowercase().contains("\r\nconnection: close\r\n"), "{answered}");
    let (_, answered) = sends_body(address, &head("/read", &sized(2)), "ok").await;
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
}
