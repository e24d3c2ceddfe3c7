//! The edge: odd and hostile clients, broken answers, and the hand-over to a new gateway.

use std::io::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::OK;
use crate::harness::{self, Gateway, Upstream, answer, raw, read_until};

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
}

#[actix_web::test]
async fn an_early_hint_and_the_answer_that_comes_with_it_reach_the_client() {
    let upstream = Upstream::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\nx-hop: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, &get("/a", "")).await;
    assert!(
        answered.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\nHTTP/1.1 200 OK"),
        "{answered}"
    );
    let answered = raw(&gateway, "GET /a HTTP/1.0\r\nhost: h\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.0 200 OK") && answered.ends_with("ok"), "{answered}");
}

#[actix_web::test]
async fn an_http_1_0_client_gets_no_chunks_and_needs_no_host() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, "GET /a HTTP/1.0\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.0 200 OK"), "{answered}");
    assert!(!answered.to_lowercase().contains("transfer-encoding"), "{answered}");
    assert!(answered.ends_with("\r\n\r\nok"), "{answered}");
    assert!(upstream.seen()[0].to_lowercase().contains("\r\nhost: "), "{:?}", upstream.seen());
}

#[actix_web::test]
async fn a_client_gets_what_came_of_an_answer_that_breaks_off_and_a_broken_end() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let sized = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
    for said in [chunked, sized] {
        let upstream = Upstream::answering_once(said);
        let gateway = Gateway::start(&[&upstream]).await;
        for _ in 0..5 {
            let answered = raw(&gateway, &get("/a", "")).await;
            assert!(answered.starts_with("HTTP/1.1 200 OK") && answered.contains("hello"), "{answered:?}");
            assert!(!answered.ends_with("0\r\n\r\n"), "{answered:?}");
        }
    }
}

#[actix_web::test]
async fn a_head_of_a_stream_has_no_length() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, "HEAD /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 200 OK"), "{answered}");
    assert!(!answered.to_lowercase().contains("content-length"), "{answered}");
}

#[actix_web::test]
async fn an_upgrade_to_http_2_is_ignored_and_the_request_is_served() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let h2c = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n";
    for request in [
        format!("GET /a HTTP/1.1\r\nhost: h\r\n{h2c}\r\n"),
        format!("POST /a HTTP/1.1\r\nhost: h\r\n{h2c}content-length: 2\r\n\r\nhi"),
    ] {
        let answered = raw(&gateway, &request).await;
        assert!(answered.starts_with("HTTP/1.1 200 OK"), "{answered}");
        let is_told = answered.to_lowercase().contains("connection: close\r\n");
        assert!(is_told, "the client must know that the connection ends: {answered}");
        let seen = upstream.seen().pop().unwrap().to_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
    }
    // Also without being named by Connection.
    raw(&gateway, &get("/a", "http2-settings: AAMAAABk\r\n")).await;
    assert!(!upstream.seen().pop().unwrap().to_lowercase().contains("http2-settings"));
}

#[actix_web::test]
async fn a_connection_ends_after_a_request_that_says_so_beside_bytes_that_are_not_ascii() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close, \u{e9}\r\n\r\n").await;
    assert!(answered.to_lowercase().contains("\r\nconnection: close\r\n"), "{answered}");
}

#[actix_web::test]
async fn headers_that_a_service_might_believe_do_not_reach_it() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let answered =
        raw(&gateway, &get("/a", "x-user-id: 1\r\nX-User-Roles: admin\r\nx-user-email: a@b\r\n")).await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert!(!upstream.seen()[0].to_lowercase().contains("x-user"), "{:?}", upstream.seen());
    for headers in ["x_user_id: 1\r\n".to_owned(), format!("connection: {}\r\n", ["a"; 11].join(", "))] {
        let answered = raw(&gateway, &format!("GET /a HTTP/1.1\r\nhost: h\r\n{headers}\r\n")).await;
        let (head, body) = answer(&answered);
        assert!(head.starts_with("HTTP/1.1 400") && body["code"] == "malformed_request", "{answered}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[actix_web::test]
async fn what_a_client_says_of_its_address_scheme_and_url_reaches_a_service_only_from_a_trusted_proxy() {
    let said = "x-forwarded-for: 192.0.2.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n";
    let never = [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-original-url",
        "x-original-host",
        "x-rewrite-url",
    ];
    let forged: String = never.iter().map(|name| format!("{name}: forged\r\n")).collect();
    for (policies, expected) in [
        ("", ["x-forwarded-for: 127.0.0.1\r", "x-forwarded-proto: http\r", "x-forwarded-host: h\r"]),
        (
            "trusted_proxies = [\"127.0.0.0/8\"]",
            [
                "x-forwarded-for: 192.0.2.9, 127.0.0.1\r",
                "x-forwarded-proto: https\r",
                "x-forwarded-host: h\r",
            ],
        ),
    ] {
        let upstream = Upstream::answering(OK);
        let gateway = Gateway::with(policies, &[&upstream]).await;
        let answered = raw(&gateway, &get("/a", &format!("{said}{forged}"))).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        let seen = upstream.seen().remove(0).to_lowercase();
        assert!(!seen.contains("forged"), "{seen}");
        for line in expected {
            assert_eq!(seen.matches(line).count(), 1, "{line}: {seen}");
        }
    }
}

#[actix_web::test]
async fn a_body_that_there_is_no_memory_for_streams_and_is_not_retried() {
    let bad = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    let post = "POST /a HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    for (mib, tries) in [(0, 1), (1, 2)] {
        let (one, two) = (Upstream::answering(bad), Upstream::answering(bad));
        let gateway = Gateway::with(&format!("kept_bodies_mib = {mib}"), &[&one, &two]).await;
        let answered = raw(&gateway, post).await;
        assert!(answered.starts_with("HTTP/1.1 502"), "{answered}");
        let seen = [one.seen(), two.seen()].concat();
        assert_eq!(seen.len(), tries, "{seen:?}");
        assert!(seen.iter().all(|request| request.ends_with("hi")), "{seen:?}");
    }
}

#[actix_web::test]
async fn tokens_are_counted_by_address_before_they_are_verified() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with("token_rate_per_second = 1", &[&upstream]).await;
    let token = "authorization: Bearer x\r\n";
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(raw(&gateway, &get("/a", token)).await);
    }
    let count = |status: &str| answers.iter().filter(|answer| answer.starts_with(status)).count();
    assert!(count("HTTP/1.1 429") >= 3 && count("HTTP/1.1 401") >= 2, "{answers:?}");
    assert!(raw(&gateway, &get("/a", "")).await.starts_with("HTTP/1.1 200"));
}

#[actix_web::test]
async fn the_documents_count_against_the_rate_limit_and_are_cached() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with("rate_per_second = 1\nrate_burst = 4", &[&upstream]).await;
    let first = raw(&gateway, &get("/openapi.json", "")).await;
    let etag =
        first.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_else(|| panic!("{first}"));
    let again = raw(&gateway, &get("/openapi.json", &format!("if-none-match: {etag}\r\n"))).await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    let mut answers = Vec::new();
    for path in ["/docs/", "/openapi.json", "/docs/index.css", "/openapi.json"] {
        answers.push(raw(&gateway, &get(path, "")).await);
    }
    assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 429")), "{answers:?}");
}

/// Reads whatever comes, until the connection ends.
async fn served(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut client = TcpStream::connect(address).await?;
    client.write_all(get("/a", "").as_bytes()).await?;
    let mut answered = String::new();
    client.read_to_string(&mut answered).await?;
    Ok(answered)
}

#[actix_web::test]
async fn a_gateway_hands_over_with_open_streams_and_without_a_lost_connection() {
    let upstream = Upstream::answering(OK);
    let events = Upstream::serving(|stream| {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            read_until(&mut stream, "\r\n\r\n");
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            write!(stream, "{head}3\r\n:\r\n\r\n").unwrap();
            // Until the gateway closes the stream.
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        });
    });
    let ports = harness::free_ports();
    let many = "rate_burst = 2000";
    let streaming = Gateway::start_with(many, ports, &[&events]).await.unwrap();
    let old = streaming.address();
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut client = TcpStream::connect(old).await.unwrap();
        client.write_all(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        streams.push(client);
    }
    let new = Gateway::start_with(many, ports, &[&upstream]).await.unwrap();
    let stopping = actix_web::rt::spawn(streaming.stop());
    let mut failed = Vec::new();
    for _ in 0..500 {
        let answered = tokio::time::timeout(Duration::from_secs(5), served(new.address())).await;
        match answered {
            Ok(Ok(answered)) if answered.starts_with("HTTP/1.1 200") => {}
            other => failed.push(other),
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    // The streams end when the drain begins, not at its limit.
    tokio::time::timeout(Duration::from_secs(4), stopping).await.expect("it stops").unwrap();
    for mut client in streams {
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
    }
}

#[actix_web::test]
async fn a_client_that_asks_for_a_websocket_and_gets_a_body_can_read_it() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let gateway = Gateway::start(&[&upstream]).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket";
    let answered = raw(&gateway, &format!("GET /a HTTP/1.1\r\nhost: h\r\n{upgrade}\r\n\r\n")).await;
    assert!(answered.ends_with("\r\n\r\nok"), "{answered}");
    let lower = answered.to_lowercase();
    assert!(lower.contains("connection: close") && !lower.contains("transfer-encoding"), "{answered}");
}
