//! Tests of the proxy: a real gateway between raw connections.

#![allow(clippy::unwrap_used, reason = "a test")]

mod access_log;
mod cache;
mod configuration;
mod edge;
mod expect;
mod harness;
mod http2;
mod in_flight;
mod limits;
mod oidc;
mod policies;
mod random;
mod site;
mod tls;
mod trailers;
mod under_load;
mod versions;
mod websocket;

use std::io::Write as _;
use std::sync::mpsc::channel;
use std::time::Duration;

use harness::{Gateway, Upstream, answer, head_of, raw, read_until};
use shared::service::{HttpConfig, Service};
use shared::testing::{Api, eventually, run};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[actix_web::test]
async fn hop_by_hop_headers_are_dropped_and_proxy_headers_are_set() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nx-end: 1\r\nx-served-by: me\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, "GET /a/b?q=1 HTTP/1.1\r\nhost: shop\r\nconnection: x-private, close\r\nx-private: 1\r\nte: trailers\r\nx-forwarded-for: 6.6.6.6\r\nx-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nx-request-deadline: 1999-01-01T00:00:00.000Z\r\nx-request-timeout-ms: 0\r\nx-retry-attempt: 7\r\nx-kept: 1\r\nx-request-id: mine\r\nx-request-id: <b>\r\n\r\n").await;
    let lower = answered.to_lowercase();
    assert!(answered.starts_with("HTTP/1.1 200 OK"), "{answered}");
    assert!(
        lower.contains("x-end: 1") && lower.contains(&format!("x-served-by: a/{}", upstream.authority())),
        "{answered}"
    );
    for gone in ["x-hop", "keep-alive: 5", "x-served-by: me"] {
        assert!(!lower.contains(gone), "{gone}: {answered}");
    }
    let seen = upstream.seen().remove(0).to_lowercase();
    assert!(seen.starts_with("get /a/b?q=1 http/1.1\r\n"), "{seen}");
    for there in [
        "x-kept: 1",
        "x-forwarded-for: 127.0.0.1\r",
        "x-real-ip: 127.0.0.1\r",
        "x-forwarded-host: shop",
        "via: 1.1 gateway",
        "x-retry-attempt: 0",
        "x-request-timeout-ms: 1",
        "x-request-id: mine\r",
        "traceparent: 00-",
    ] {
        assert!(seen.contains(there), "{there}: {seen}");
    }
    for gone in [
        "x-private",
        "te: trailers",
        "6.6.6.6",
        "1999-01-01",
        "-ms: 77",
        "x-retry-attempt: 7",
        "<b>",
        "connection:",
    ] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
}

#[actix_web::test]
async fn a_clients_trace_goes_on_but_it_cannot_demand_that_it_is_sampled() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let head = format!("GET /a HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ntraceparent: 00-{trace}");
    for state in ["vendor=value", "no pair"] {
        let request = format!("{head}-b7ad6b7169203331-01\r\ntracestate: {state}\r\n\r\n");
        assert!(raw(&gateway, &request).await.starts_with("HTTP/1.1 200 OK"));
        let seen = upstream.seen().into_iter().rfind(|request| request.starts_with("GET /a ")).unwrap();
        assert_eq!(seen.matches("traceparent: ").count(), 1, "{seen}");
        assert!(seen.contains(&format!("traceparent: 00-{trace}-b7ad6b7169203331-00\r")), "{seen}");
        assert_eq!(seen.contains("tracestate: vendor=value\r"), state == "vendor=value", "{seen}");
    }
}

#[actix_web::test]
async fn an_ambiguous_request_never_reaches_a_service() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let body = "\r\n\r\n0\r\n\r\nGET /a/smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    for head in [
        "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
        "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6",
        "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: +5",
        "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5, 5",
        "POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked",
        "POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding : chunked",
        "GET /a HTTP/1.1\r\nhost: h\r\nx-a: 1\r\n folded",
        "GET /a HTTP/1.1\r\nhost: h\r\nhost: i",
        "GET http://other/a HTTP/1.1\r\nhost: h",
        "GET /a/../b HTTP/1.1\r\nhost: h",
        "GET /a/%2e%2e/b HTTP/1.1\r\nhost: h",
        "GET /a%2fb HTTP/1.1\r\nhost: h",
        "GET //a HTTP/1.1\r\nhost: h",
        "GET /a\\b HTTP/1.1\r\nhost: h",
        "POST /a HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\ncontent-length: 5",
        "CONNECT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 0",
    ] {
        let answered = raw(&gateway, &format!("{head}{body}")).await;
        let status = answered.split(' ').nth(1).unwrap_or("closed");
        assert!(["400", "closed"].contains(&status), "{head:?}: {answered}");
    }
    // The answer to a tunnel has no end that a proxy could find.
    let answered = raw(&gateway, "CONNECT /a HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 400"), "{answered}");
    for lines in [
        "connection: host",
        "connection: authorization",
        "connection: x-a, Idempotency-Key",
        "connection: host, \u{80}",
        "upgrade: websocket\r\ntransfer-encoding: chunked",
    ] {
        let answered = raw(&gateway, &format!("POST /a HTTP/1.1\r\nhost: h\r\n{lines}\r\n\r\n")).await;
        assert!(answered.starts_with("HTTP/1.1 400"), "{lines}: {answered}");
    }
    assert_eq!(upstream.seen(), Vec::<String>::new());
}

#[actix_web::test]
async fn a_refused_connection_fails_no_request_of_any_method() {
    let (dead, alive) = (Upstream::dead(), Upstream::answering(OK));
    let gateway = Gateway::start(&[&dead, &alive]).await;
    for _ in 0..6 {
        let answered =
            raw(&gateway, "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
                .await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
    assert!(alive.seen().iter().all(|request| request.ends_with("hi")));
}

#[actix_web::test]
async fn a_transient_failure_is_retried_once_if_the_request_is_idempotent() {
    for (request, tries) in [
        ("GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", 2),
        (
            "POST /a HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
            2,
        ),
        ("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", 1),
    ] {
        let bad = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
        let (one, two) = (Upstream::answering(bad), Upstream::answering(bad));
        let gateway = Gateway::start(&[&one, &two]).await;
        let answered = raw(&gateway, request).await;
        assert!(answered.starts_with("HTTP/1.1 502"), "{answered}");
        assert_eq!(one.seen().len() + two.seen().len(), tries, "{request}");
    }
}

#[actix_web::test]
async fn a_broken_idle_connection_is_replaced_even_to_the_only_replica() {
    let upstream = Upstream::hanging_up_later(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let request = |last: &str| {
        format!("POST /a HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\ncontent-length: 2\r\n{last}\r\nhi")
    };
    // On one connection, so that one thread of the gateway gets both.
    let answered = raw(&gateway, &(request("") + &request("connection: close\r\n"))).await;
    assert_eq!(answered.matches("HTTP/1.1 200").count(), 2, "{answered}");
}

#[actix_web::test]
async fn a_slow_client_gets_408_and_no_replica_is_blamed() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let slow = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 70000\r\n\r\nx";
    // Five bad answers would eject it.
    let said = futures_util::future::join_all((0..6).map(|_| raw(&gateway, slow))).await;
    assert!(said.iter().all(|said| said.starts_with("HTTP/1.1 408")), "{said:?}");
    let answered = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
}

#[actix_web::test]
async fn a_slow_client_gets_408_also_if_another_replica_could_not_be_reached() {
    let ((gone, listener), good) = (Upstream::leaving(), Upstream::answering(OK));
    let ports = harness::free_ports();
    // The gateway fetches no document, so that no request but those of the test reaches a replica.
    let text = harness::configuration("") + "listed = false\n";
    let (gateway, _keys) = Gateway::in_file_with_users(&text, ports, &[&gone, &good]).await;
    harness::all_healthy(&Api::local(ports[1])).await;
    drop(listener.recv().unwrap());
    let slow = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 70000\r\n\r\nx";
    let said = futures_util::future::join_all((0..6).map(|_| raw(&gateway, slow))).await;
    assert!(said.iter().all(|said| said.starts_with("HTTP/1.1 408")), "{said:?}");
}

#[actix_web::test]
async fn a_post_without_a_key_is_never_the_probe_of_an_ejected_replica() {
    const BAD: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    let checks = std::sync::atomic::AtomicUsize::new(0);
    // It passes the first check, and then none.
    let bad = Upstream::deciding(move |request| match request.starts_with("GET /health") {
        true if checks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 => OK,
        _ => BAD,
    });
    let good = Upstream::answering(OK);
    let ports = harness::free_ports();
    let gateway = Gateway::start_at(ports, &[&bad, &good]).await.unwrap();
    let admin = Api::local(ports[1]);
    let post = async || {
        let post = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        raw(&gateway, post).await
    };
    eventually("it is ejected", Duration::from_secs(10), async || {
        post().await;
        let seen = admin.get("/registry/services/a").await.body;
        let mut instances = seen["instances"].as_array().unwrap().iter();
        instances.any(|instance| instance["health"] == "ejected").then_some(())
    })
    .await;
    let count = |start: &str| bad.seen().iter().filter(|request| request.starts_with(start)).count();
    let (posts, checks) = (count("POST"), count("GET /health/ready"));
    eventually("it is probed twice", Duration::from_secs(10), async || {
        assert!(post().await.starts_with("HTTP/1.1 200"));
        (count("GET /health/ready") >= checks + 2).then_some(())
    })
    .await;
    assert_eq!(count("POST"), posts);
}

#[actix_web::test]
async fn a_new_gateway_starts_beside_the_old_one_and_takes_over() {
    let upstream = Upstream::answering(OK);
    let get = "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let ports = harness::free_ports();
    let old = Gateway::start_at(ports, &[&upstream]).await.unwrap();
    let new = Gateway::start_at(ports, &[&upstream]).await.unwrap();
    old.stop().await;
    for _ in 0..10 {
        let answered = raw(&new, get).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
}

#[actix_web::test]
async fn a_draining_replica_gets_no_more_requests_even_if_the_registry_still_lists_it() {
    let http = HttpConfig { drain_grace: Duration::from_secs(600), ..HttpConfig::for_tests() };
    let server = Service::bind("a", http).unwrap().build().unwrap();
    let (leaving, staying) = (Upstream::running_at(server.address()), Upstream::answering(OK));
    let (_, handle) = run(server);
    let ports = harness::free_ports();
    let gateway = Gateway::start_at(ports, &[&leaving, &staying]).await.unwrap();
    actix_web::rt::spawn(async move { handle.stop().await });

    let admin = Api::local(ports[1]);
    eventually("the drain is seen", Duration::from_secs(30), async || {
        let seen = admin.get("/registry/services/a").await.body;
        let mut instances = seen["instances"].as_array().unwrap().iter();
        instances.any(|instance| instance["health"] == "draining").then_some(())
    })
    .await;
    for _ in 0..10 {
        let answered = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        assert!(answered.ends_with("ok"), "{answered}");
    }
}

#[actix_web::test]
async fn a_client_with_a_bad_token_is_rate_limited() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let request = |last: &str| format!("GET /a HTTP/1.1\r\nhost: h\r\nauthorization: Bearer x\r\n{last}\r\n");
    let many = request("").repeat(1000) + &request("connection: close\r\n");
    let answered = raw(&gateway, &many).await;
    let limited = answered.matches("HTTP/1.1 429").count();
    assert!(limited > 0 && answered.matches("HTTP/1.1 401").count() + limited == 1001, "{limited}");
}

#[actix_web::test]
async fn a_truncated_body_does_not_look_complete() {
    let upstream =
        Upstream::answering_once("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(!answered.ends_with("0\r\n\r\n"), "{answered:?}");
}

#[actix_web::test]
async fn answers_without_a_body_have_none_and_head_shows_the_length() {
    for (method, said, wanted) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", "content-length: 7"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content"),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n", "etag: \"1\""),
    ] {
        let upstream = Upstream::answering(said);
        let gateway = Gateway::start(&[&upstream]).await;
        for _ in 0..2 {
            let answered =
                raw(&gateway, &format!("{method} /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")).await;
            assert!(answered.contains(wanted) && answered.ends_with("\r\n\r\n"), "{answered:?}");
        }
    }
}

#[actix_web::test]
async fn a_closed_idle_connection_is_no_failure() {
    // Closes the connection after every response, without `Connection: close`.
    let upstream = Upstream::answering_once(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    for _ in 0..5 {
        let answered =
            raw(&gateway, "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
                .await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
}

#[actix_web::test]
async fn bodies_stream_both_ways_and_are_never_buffered() {
    let (got_first_part, wait_for_first_part) = channel();
    let (client_got_part, wait_for_client) = channel::<()>();
    let upstream = Upstream::serving(move |stream| {
        // The first part of the request is here before the client has sent the last.
        let seen = read_until(stream, "first");
        got_first_part.send(seen.contains("transfer-encoding: chunked")).unwrap();
        let seen = read_until(stream, "0\r\n\r\n");
        assert!(seen.contains("last"), "{seen}");
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").unwrap();
        // The client has the first part of the answer before the last is written.
        wait_for_client.recv_timeout(Duration::from_secs(5)).unwrap();
        write!(stream, "3\r\ntwo\r\n0\r\n\r\n").unwrap();
    });
    let gateway = Gateway::start(&[&upstream]).await;
    let address = gateway.address();
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "POST /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
        assert!(wait_for_first_part.recv_timeout(Duration::from_secs(5)).unwrap());
        write!(stream, "4\r\nlast\r\n0\r\n\r\n").unwrap();
        read_until(&mut stream, "one");
        client_got_part.send(()).unwrap();
        read_until(&mut stream, "0\r\n\r\n");
    });
    client.await.unwrap();
}

#[actix_web::test]
async fn an_answer_may_come_before_the_request_is_complete() {
    let upstream = Upstream::serving(|stream| {
        read_until(stream, "first");
        write!(stream, "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
    });
    let gateway = Gateway::start(&[&upstream]).await;
    let address = gateway.address();
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nfirst").unwrap();
        assert!(read_until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 413"));
    });
    client.await.unwrap();
}

#[actix_web::test]
async fn answers_show_the_remaining_rate_limit_and_errors_name_the_failing_program() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::start(&[&upstream]).await;
    let answered =
        raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.to_lowercase();
    assert!(
        answered.contains("ratelimit: \"default\";r=")
            && answered.contains("ratelimit-policy: \"default\";q=200;w=1"),
        "{answered}"
    );
    let count_headers = |head: &str| head.to_lowercase().matches("\r\nratelimit: ").count();
    for (request, status, code) in [
        ("GET /aX HTTP/1.1\r\nhost: h", 404, "not_found"),
        ("GET /a HTTP/1.1\r\nhost: h\r\nauthorization: Bearer x", 401, "invalid_token"),
        ("GET /a HTTP/1.1\r\nhost: h\r\nauthorization: Basic x", 401, "invalid_token"),
    ] {
        let (head, body) = answer(&raw(&gateway, &format!("{request}\r\nconnection: close\r\n\r\n")).await);
        assert_eq!((head_of(&head), body["code"].as_str()), (status, Some(code)), "{head}");
        assert_eq!(body["service"], "gateway");
        assert_eq!(count_headers(&head), 1, "a refusal counts, too: {head}");
    }
    let dead = Gateway::start(&[&Upstream::dead()]).await;
    let (head, body) = answer(&raw(&dead, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await);
    assert_eq!((head_of(&head), body["code"].as_str()), (503, Some("unavailable")), "{head}");
    assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
    assert_eq!(count_headers(&head), 1, "{head}");
}
