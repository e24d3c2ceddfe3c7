//! What a route may ask for: CORS, compression, limits, and who may use it. And the gateway's own pages.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use shared::testing::{Api, eventually};
use uuid::Uuid;

use crate::OK;
use crate::harness::{Gateway, Upstream, answer, free_ports, head_of, raw};

/// A route `/b` with these keys.
fn route(keys: &str) -> String {
    format!("[[routes]]\nid = \"b\"\nprefix = \"/b\"\nservice = \"a\"\nhead_timeout_s = 5\n{keys}\n")
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
}

/// The values of a header, in lower case, one after the other.
fn header(said: &str, name: &str) -> Vec<String> {
    let (head, _) = said.split_once("\r\n\r\n").unwrap_or((said, ""));
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_lowercase())
        .collect()
}

const SHOP: &str = "origin: https://shop.example\r\n";
const PREFLIGHT: &str = "access-control-request-method: PUT\r\naccess-control-request-headers: if-match\r\n";

#[actix_web::test]
async fn a_preflight_is_answered_by_the_gateway_and_allows_only_what_the_route_says() {
    let upstream = Upstream::answering(OK);
    let policies = route("[routes.cors]\norigins = [\"https://shop.example\"]\ncredentials = true");
    let gateway = Gateway::with(&policies, &[&upstream]).await;
    let said = raw(&gateway, &request("OPTIONS", "/b/1", &format!("{SHOP}{PREFLIGHT}"))).await;
    assert_eq!(head_of(&said), 204, "{said}");
    assert_eq!(header(&said, "access-control-allow-origin"), ["https://shop.example"]);
    assert_eq!(header(&said, "access-control-allow-methods"), ["get, head, post, put, patch, delete"]);
    assert_eq!(header(&said, "access-control-allow-credentials"), ["true"]);
    assert_eq!(header(&said, "access-control-max-age"), ["600"]);
    assert!(header(&said, "access-control-allow-headers")[0].contains("if-match"), "{said}");
    for varies in ["origin", "access-control-request-method", "access-control-request-headers"] {
        assert!(header(&said, "vary").contains(&varies.to_owned()), "{said}");
    }
    for (headers, why) in [
        (format!("origin: https://evil.example\r\n{PREFLIGHT}"), "another origin"),
        (format!("origin: null\r\n{PREFLIGHT}"), "no origin"),
        (format!("{SHOP}access-control-request-method: TRACE\r\n"), "another method"),
    ] {
        let said = raw(&gateway, &request("OPTIONS", "/b/1", &headers)).await;
        assert_eq!(head_of(&said), 204, "{why}: {said}");
        assert!(!said.to_lowercase().contains("access-control-allow"), "{why}: {said}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    // Without the header of a preflight, OPTIONS is the service's.
    raw(&gateway, &request("OPTIONS", "/b", SHOP)).await;
    assert_eq!(upstream.seen().len(), 1);
}

#[actix_web::test]
async fn every_answer_of_a_route_says_which_page_may_read_it_and_varies_by_origin() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nvary: prefer\r\ncontent-length: 2\r\n\r\nok",
    );
    let policies = format!(
        "rate_burst = 5\nrate_per_second = 1\n{}",
        route("[routes.cors]\norigins = [\"https://shop.example\"]")
    );
    let gateway = Gateway::with(&policies, &[&upstream]).await;
    let said = raw(&gateway, &request("GET", "/b", SHOP)).await;
    assert_eq!(header(&said, "access-control-allow-origin"), ["https://shop.example"]);
    assert!(header(&said, "access-control-expose-headers")[0].contains("etag"), "{said}");
    assert_eq!(header(&said, "access-control-allow-credentials"), [""; 0]);
    assert_eq!(header(&said, "vary"), ["prefer", "origin"]);
    for headers in ["origin: https://evil.example\r\n", ""] {
        let said = raw(&gateway, &request("GET", "/b", headers)).await;
        assert_eq!(head_of(&said), 200);
        assert_eq!(header(&said, "access-control-allow-origin"), [""; 0], "{said}");
        assert!(header(&said, "vary").contains(&"origin".to_owned()), "{said}");
    }
    // The page may read why it is refused.
    let mut refused = Vec::new();
    for _ in 0..5 {
        refused.push(raw(&gateway, &request("GET", "/b", SHOP)).await);
    }
    let refused = refused.iter().find(|said| head_of(said) == 429).unwrap();
    assert_eq!(header(refused, "access-control-allow-origin"), ["https://shop.example"]);
    // A route without CORS passes on what the service says.
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with(&policies, &[&upstream]).await;
    let said = raw(&gateway, &request("GET", "/a", SHOP)).await;
    assert!(!said.to_lowercase().contains("access-control") && header(&said, "vary").is_empty(), "{said}");
}

#[actix_web::test]
async fn every_origin_may_read_only_what_needs_no_credentials() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with(&route("[routes.cors]\norigins = [\"*\"]"), &[&upstream]).await;
    let said = raw(&gateway, &request("GET", "/b", SHOP)).await;
    assert_eq!(header(&said, "access-control-allow-origin"), ["*"]);
    assert!(header(&said, "access-control-allow-credentials").is_empty(), "{said}");
    let both = route("[routes.cors]\norigins = [\"*\"]\ncredentials = true");
    let refused = gateway::routing::GatewayConfig::parse(&both).unwrap_err();
    assert!(refused.starts_with("line 8, column 1: routes.0.cors.credentials: "), "{refused}");
}

/// An answer of 4,000 bytes that shrink.
fn long(headers: &str) -> &'static str {
    let body = "0123456789".repeat(400);
    let said = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
    Box::leak(said.into_boxed_str())
}

const JSON: &str = "content-type: application/json\r\n";

#[actix_web::test]
async fn a_long_answer_is_compressed_as_the_client_likes_it_and_is_then_another_representation() {
    let upstream = Upstream::replying(|_| long("content-type: application/json\r\netag: \"7\"\r\n"));
    let gateway = Gateway::with(&route("compress = true"), &[&upstream]).await;
    for (accepted, expected) in [("gzip, br, zstd", "br"), ("br;q=0.1, zstd", "zstd"), ("gzip", "gzip")] {
        let said = raw(&gateway, &request("GET", "/b", &format!("accept-encoding: {accepted}\r\n"))).await;
        assert_eq!(header(&said, "content-encoding"), [expected], "{said}");
        assert_eq!(header(&said, "vary"), ["accept-encoding"]);
        assert_eq!(header(&said, "etag"), ["w/\"7\""]);
        assert!(said.len() < 1000, "{accepted}: {} bytes", said.len());
    }
    for accepted in ["", "accept-encoding: identity\r\n", "accept-encoding: gzip;q=0\r\n"] {
        let said = raw(&gateway, &request("GET", "/b", accepted)).await;
        assert!(said.ends_with("0123456789") && header(&said, "etag") == ["\"7\""], "{said}");
        assert_eq!(header(&said, "vary"), ["accept-encoding"], "another client gets another answer");
    }
    let said = raw(&gateway, &request("GET", "/a", "accept-encoding: gzip\r\n")).await;
    assert!(said.ends_with("0123456789") && header(&said, "vary").is_empty(), "off by default: {said}");
}

/// What a client with its own inflate reads.
#[actix_web::test]
async fn a_compressed_answer_is_the_services_answer() {
    let upstream = Upstream::replying(|_| long(JSON));
    let gateway = Gateway::with(&route("compress = true"), &[&upstream]).await;
    for encoding in ["gzip", "br", "zstd"] {
        let api = Api::at(format!("http://{}", gateway.address())).with("accept-encoding", encoding);
        let reply = api.get("/b").await;
        assert_eq!((reply.status, reply.header("content-encoding")), (200, encoding));
        let decoded = decode(encoding, reply.bytes).await;
        assert_eq!(decoded, "0123456789".repeat(400).as_bytes());
    }
}

async fn decode(encoding: &str, bytes: actix_web::web::Bytes) -> actix_web::web::Bytes {
    let encoding = encoding.parse().unwrap();
    let whole = futures_util::stream::once(async { Ok::<_, actix_web::error::PayloadError>(bytes) });
    let mut parts = actix_http::encoding::Decoder::new(Box::pin(whole), encoding);
    let mut decoded = actix_web::web::BytesMut::new();
    while let Some(part) = futures_util::StreamExt::next(&mut parts).await {
        decoded.extend_from_slice(&part.unwrap());
    }
    decoded.freeze()
}

#[actix_web::test]
async fn events_pictures_and_what_is_short_encoded_or_not_to_be_transformed_stay_as_they_are() {
    const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 2\r\n\r\nok";
    let kinds = [
        ("/b/events", EVENTS),
        ("/b/short", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok"),
        ("/b/long-events", long("content-type: text/event-stream\r\n")),
        ("/b/picture", long("content-type: image/png\r\n")),
        ("/b/encoded", long("content-type: application/json\r\ncontent-encoding: x\r\n")),
        ("/b/fixed", long("content-type: application/json\r\ncache-control: private, no-transform\r\n")),
        ("/b/unknown", long("")),
    ];
    let upstream = Upstream::replying(move |request| {
        kinds.iter().find(|(path, _)| request.contains(&format!(" {path} "))).unwrap().1
    });
    let gateway = Gateway::with(&route("compress = true"), &[&upstream]).await;
    for (path, sent) in kinds {
        let said = raw(&gateway, &request("GET", path, "accept-encoding: gzip\r\n")).await;
        let body = |text: &str| text.split_once("\r\n\r\n").unwrap().1.to_owned();
        assert_eq!(body(&said), body(sent), "{path}");
    }
}

#[actix_web::test]
async fn a_304_keeps_its_strong_tag_unless_the_client_has_the_weak_one_of_a_compressed_body() {
    let upstream = Upstream::answering("HTTP/1.1 304 Not Modified\r\netag: \"7\"\r\n\r\n");
    let gateway = Gateway::with(&route("compress = true"), &[&upstream]).await;
    for (known, tag) in [
        ("\"7\"", "\"7\""),
        ("W/\"7\"", "w/\"7\""),
        ("\"1\", W/\"7\"", "w/\"7\""),
        ("W/\"1\", \"7\"", "\"7\""),
        ("*", "\"7\""),
    ] {
        let headers = format!("accept-encoding: gzip\r\nif-none-match: {known}\r\n");
        let said = raw(&gateway, &request("GET", "/b", &headers)).await;
        assert_eq!((head_of(&said), header(&said, "etag")), (304, vec![tag.to_owned()]), "{known}: {said}");
        assert_eq!(header(&said, "vary"), ["accept-encoding"], "{said}");
    }
}

#[actix_web::test]
async fn a_head_says_what_a_get_would_say_and_no_length_if_that_is_compressed() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"7\"\r\naccept-ranges: bytes\r\ncontent-length: 4000\r\n\r\n",
    );
    let gateway = Gateway::with(&route("compress = true"), &[&upstream]).await;
    let said = raw(&gateway, &request("HEAD", "/b", "accept-encoding: gzip\r\n")).await;
    assert_eq!((head_of(&said), header(&said, "content-encoding")), (200, vec!["gzip".to_owned()]), "{said}");
    assert_eq!(
        (header(&said, "etag"), header(&said, "vary")),
        (vec!["w/\"7\"".to_owned()], vec!["accept-encoding".to_owned()])
    );
    for absent in ["content-length", "transfer-encoding", "accept-ranges"] {
        assert!(header(&said, absent).is_empty(), "{absent}: {said}");
    }
    assert!(said.ends_with("\r\n\r\n"), "{said}");
    let said = raw(&gateway, &request("HEAD", "/b", "")).await;
    assert_eq!(
        (header(&said, "content-length"), header(&said, "etag")),
        (vec!["4000".to_owned()], vec!["\"7\"".to_owned()])
    );
    assert_eq!(header(&said, "accept-ranges"), ["bytes"]);
}

#[actix_web::test]
async fn a_part_of_a_body_and_what_the_client_wants_as_it_is_are_not_compressed() {
    let part = long("content-type: application/json\r\netag: \"7\"\r\ncontent-range: bytes 0-3999/9000\r\n");
    let part: &str = Box::leak(part.replace("200 OK", "206 Partial Content").into_boxed_str());
    let upstream = Upstream::replying(move |request| match request.contains("range: ") {
        true => part,
        false => long("content-type: application/json\r\netag: \"7\"\r\n"),
    });
    let gateway = Gateway::with(&route("compress = true"), &[&upstream]).await;
    for (wanted, status) in [("range: bytes=0-3999\r\n", 206), ("cache-control: x, no-transform\r\n", 200)] {
        let said = raw(&gateway, &request("GET", "/b", &format!("accept-encoding: gzip\r\n{wanted}"))).await;
        assert_eq!((head_of(&said), header(&said, "etag")), (status, vec!["\"7\"".to_owned()]), "{said}");
        assert!(header(&said, "content-encoding").is_empty() && said.ends_with("0123456789"), "{said}");
    }
}

#[actix_web::test]
async fn a_page_may_read_that_its_body_was_too_slow_or_that_its_accept_cannot_be_met() {
    let upstream = Upstream::answering(OK);
    let cors = route("[routes.cors]\norigins = [\"https://shop.example\"]");
    // The connection refuses the body before the engine does.
    let cors = cors.replace("\"/b\"", "\"/api/b\"").replace("head_timeout_s = 5", "head_timeout_s = 60");
    let gateway = Gateway::with(&cors, &[&upstream]).await;
    let slow = request("POST", "/api/b", &format!("{SHOP}content-length: 70000\r\n")) + "x";
    let picky = request("GET", "/api/b", &format!("{SHOP}accept: text/html\r\n"));
    for (asked, status) in [(slow, 408), (picky, 406)] {
        let mut client = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, asked.as_bytes()).await.unwrap();
        let mut said = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut client, &mut said).await.unwrap();
        assert_eq!(head_of(&said), status, "{said}");
        assert_eq!(header(&said, "access-control-allow-origin"), ["https://shop.example"], "{said}");
        assert_eq!(header(&said, "vary"), ["origin"], "{said}");
        assert_eq!(header(&said, "ratelimit").len(), 1, "a refusal counts: {said}");
    }
}

#[actix_web::test]
async fn a_body_above_the_limit_of_its_route_gets_413_whether_it_says_its_length_or_not() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::with(&route("body_limit_kib = 1"), &[&upstream]).await;
    let sized = |path: &str, length: usize| {
        let headers = format!("content-length: {length}\r\n");
        format!("{}{}", request("POST", path, &headers), "x".repeat(length))
    };
    let chunked = |length: usize| {
        let body = format!("{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length));
        format!("{}{body}", request("POST", "/b", "transfer-encoding: chunked\r\n"))
    };
    for too_long in [sized("/b", 1025), chunked(1025)] {
        let said = raw(&gateway, &too_long).await;
        let (head, body) = answer(&said);
        assert_eq!((head_of(&head), body["code"].as_str()), (413, Some("body_too_large")), "{said}");
    }
    for good in [sized("/b", 1024), sized("/a", 1025)] {
        let said = raw(&gateway, &good).await;
        assert_eq!(head_of(&said), 200, "{said}");
    }
}

#[actix_web::test]
async fn a_route_has_so_many_requests_in_flight_and_another_route_of_the_service_has_its_own() {
    let (release, held) = channel::<()>();
    let (held, (arrived, arrives)) = (Mutex::new(held), channel::<()>());
    let arrived = Mutex::new(arrived);
    let upstream = Upstream::replying(move |request| {
        if request.contains("/b/slow") {
            arrived.lock().unwrap().send(()).unwrap();
            held.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap_or_default();
        }
        OK
    });
    let gateway = Gateway::with(&route("max_in_flight = 1\nmax_queue = 0"), &[&upstream]).await;
    let mut slow = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let slow_request = request("GET", "/b/slow", "");
    tokio::io::AsyncWriteExt::write_all(&mut slow, slow_request.as_bytes()).await.unwrap();
    let arrival = tokio::task::spawn_blocking(move || arrives.recv_timeout(Duration::from_secs(10)));
    arrival.await.unwrap().unwrap();
    let said = raw(&gateway, &request("GET", "/b", "")).await;
    assert_eq!(head_of(&said), 503, "{said}");
    assert_eq!(header(&said, "retry-after"), ["1"]);
    assert_eq!(head_of(&raw(&gateway, &request("GET", "/a", "")).await), 200);
    release.send(()).unwrap();
    eventually("there is room again", Duration::from_secs(10), async || {
        let said = raw(&gateway, &request("GET", "/b", "")).await;
        (head_of(&said) == 200).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn a_route_for_users_and_one_for_admins_let_nobody_else_through() {
    let upstream = Upstream::answering(OK);
    let admins = "[[routes]]\nid = \"c\"\nprefix = \"/b/admin\"\nservice = \"a\"\naccess = \"admin\"\n";
    let (gateway, keys) =
        Gateway::with_users(&format!("{}{admins}", route("access = \"user\"")), &[&upstream]).await;
    let token =
        |roles: &[&str]| format!("authorization: Bearer {}\r\n", keys.user_token(Uuid::now_v7(), roles));
    let (user, admin) = (token(&[]), token(&["admin"]));
    eventually("the keys are known", Duration::from_secs(10), async || {
        (head_of(&raw(&gateway, &request("GET", "/a", &user)).await) == 200).then_some(())
    })
    .await;
    for (path, token, status, code) in [
        ("/b", "", 401, "missing_token"),
        ("/b", "authorization: Bearer x\r\n", 401, "invalid_token"),
        ("/b", user.as_str(), 200, ""),
        ("/b", admin.as_str(), 200, ""),
        ("/b/admin", "", 401, "missing_token"),
        ("/b/admin/x", user.as_str(), 403, "forbidden"),
        ("/b/admin/x", admin.as_str(), 200, ""),
        ("/a", "", 200, ""),
    ] {
        let said = raw(&gateway, &request("GET", path, token)).await;
        let (head, body) = answer(&said);
        let found = (head_of(&head), body["code"].as_str().unwrap_or_default());
        assert_eq!(found, (status, code), "{path} {token}");
    }
    let said = raw(&gateway, &request("GET", "/b", "")).await;
    assert_eq!(header(&said, "www-authenticate"), ["bearer"]);
    assert_eq!(header(&said, "content-type"), ["application/problem+json"]);
}

#[actix_web::test]
async fn own_pages_run_no_foreign_script_and_are_in_no_frame() {
    let upstream = Upstream::answering(OK);
    let ports = free_ports();
    let _gateway = Gateway::start_with("", ports, &[&upstream]).await.unwrap();
    let public = Api::local(ports[0]);
    for path in ["/docs/", "/docs/swagger-initializer.js", "/openapi.json"] {
        let reply = public.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("script-src 'self';"),
            "{path}: {policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(
            (reply.header("x-content-type-options"), reply.header("referrer-policy")),
            ("nosniff", "no-referrer")
        );
        // What the policy would not run.
        let text = String::from_utf8_lossy(&reply.bytes).into_owned();
        if reply.header("content-type").starts_with("text/html") {
            let mut scripts = text.split("<script").skip(1);
            assert!(
                scripts.all(|script| script.split('>').next().unwrap().contains("src=\"")),
                "{path}: {text}"
            );
            assert!(!text.contains("onclick=") && !text.contains("onload="), "{path}");
        }
    }
}
