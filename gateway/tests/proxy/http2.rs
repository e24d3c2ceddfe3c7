//! HTTP/2 towards clients.

mod frames;
mod limits;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use serde_json::Value;
use shared::service::{HttpConfig, Service};

use self::frames::{DATA, END_STREAM, Frames, GO_AWAY, HEADERS, RESET};
use crate::OK;
use crate::harness::{Gateway, Upstream, read_until};
use crate::site::{Site, until};

/// A gateway for `a.example`, and a client that speaks HTTP/2 with it.
async fn started(upstreams: &[&Upstream]) -> (Site, Gateway) {
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.configure("", &[("a", &["a.example"])]);
    let gateway = site.start([0, 0], upstreams).await.unwrap();
    (site, gateway)
}

pub(crate) async fn connect(site: &Site, address: SocketAddr) -> SendRequest<Bytes> {
    let stream = site.connect(address, "a.example", &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    actix_web::rt::spawn(async move { connection.await.map(drop).unwrap_or_default() });
    client
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://a.example{path}")).body(()).unwrap()
}

/// Sends a request, with a body if there is one.
pub(crate) async fn ask(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<&'static str>,
) -> Result<Response<RecvStream>, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut stream) = client.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body.as_bytes()), true)?;
    }
    response.await
}

pub(crate) async fn text(response: Response<RecvStream>) -> Result<String, h2::Error> {
    let (mut body, mut text) = (response.into_body(), Vec::new());
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        text.extend_from_slice(&part);
    }
    Ok(String::from_utf8(text).unwrap())
}

/// Answers the head and a first part, and then nothing.
fn endless(kind: &'static str) -> Upstream {
    Upstream::serving(move |stream| {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            read_until(&mut stream, "\r\n\r\n");
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
            write!(stream, "{head}5\r\nfirst\r\n").unwrap_or_default();
            // Until the gateway closes the connection.
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        });
    })
}

/// A POST: the endless upstream takes each GET for a health check.
fn post() -> Request<()> {
    Request::post("https://a.example/a").body(()).unwrap()
}

#[actix_web::test]
async fn a_request_reaches_a_service_as_with_http_1_1() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nx-end: 1\r\ncontent-length: 2\r\n\r\nok",
    );
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let request = Request::get("https://a.example/a/b?q=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-user-id", "1")
        .header("x-kept", "1");
    let response = ask(&client, request.body(()).unwrap(), None).await.unwrap();
    let headers = response.headers();
    assert_eq!(response.status(), 200);
    assert_eq!(headers["x-end"], "1");
    assert_eq!(headers["content-length"], "2");
    assert!(headers.contains_key("date") && headers.contains_key("x-request-id"), "{headers:?}");
    assert!(!headers.contains_key("x-hop") && !headers.contains_key("keep-alive"), "{headers:?}");
    assert_eq!(text(response).await.unwrap(), "ok");
    let seen = upstream.seen().remove(0).to_lowercase();
    assert!(seen.starts_with("get /a/b?q=1 http/1.1\r\n"), "{seen}");
    for there in [
        "\r\nhost: a.example\r\n",
        "\r\ncookie: a=1; b=2\r\n",
        "\r\nx-kept: 1\r\n",
        "\r\nx-forwarded-for: 127.0.0.1\r\n",
        "\r\nx-forwarded-proto: https\r\n",
        "\r\nx-forwarded-host: a.example\r\n",
        "\r\nvia: 2 gateway\r\n",
    ] {
        assert!(seen.contains(there), "{there}: {seen}");
    }
    for gone in ["6.6.6.6", "\r\nte:", "x-user-id", "transfer-encoding", "connection:"] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
}

#[actix_web::test]
async fn an_ambiguous_request_never_reaches_a_service_and_the_connection_stays() {
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    for path in ["/a/../b", "/a%2fb", "//a", "/a/%2e%2e/b"] {
        let response = ask(&client, get(path), None).await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let problem: Value = serde_json::from_str(&text(response).await.unwrap()).unwrap();
        assert_eq!(problem["code"], "malformed_request", "{path}");
    }
    for (name, value) in [("host", "other"), ("x_user_id", "1")] {
        let mut request = get("/a");
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(ask(&client, request, None).await.unwrap().status(), 400, "{name}");
    }
    let mut many = get("/a");
    for number in 0..97 {
        many.headers_mut().append("x-many", number.into());
    }
    assert_eq!(ask(&client, many, None).await.unwrap().status(), 431);
    assert_eq!(upstream.seen(), Vec::<String>::new());
    assert_eq!(ask(&client, get("/a"), None).await.unwrap().status(), 200);

    // What libraries do not send.
    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "https"), (":path", "/a")];
    let host = (":authority", "a.example");
    for more in [
        &[host, ("connection", "close")][..],
        &[host, ("transfer-encoding", "chunked")],
        &[host, ("te", "gzip")],
        &[host, ("content-length", "5")],
        &[host, ("X-Upper", "1")],
        &[host, ("x-line", "1\r\nx-smuggled: 1")],
        &[host, (":path", "/b")],
        &[(":authority", "a.example@b")],
        &[],
    ] {
        let mut client = Frames::open(&site, gateway.secure()).await;
        client.head(1, END_STREAM, &[&GET, more].concat()).await.unwrap();
        let answered = client.next().await.unwrap();
        let is_refused = match answered.kind {
            RESET | GO_AWAY => true,
            // 400 is the static entry 12 (RFC 7541).
            HEADERS => answered.payload[0] == 0x80 | 12,
            _ => false,
        };
        assert!(is_refused, "{more:?}: {answered:?}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

/// A service that sends back the body that it gets, as it comes.
async fn echo() -> (Upstream, shared::service::ServerHandle) {
    let echo = |payload: web::Payload, request: actix_web::HttpRequest| async move {
        let length =
            request.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
        let mut response = HttpResponse::Ok();
        response.insert_header(("x-length", length.unwrap_or("none".to_owned()))).streaming(payload)
    };
    let service = Service::bind("a", HttpConfig::for_tests()).unwrap();
    let server = service.configure(move |app| {
        app.default_service(web::to(echo));
    });
    let server = server.build().unwrap();
    let (upstream, handle) = (Upstream::running_at(server.address()), server.handle());
    actix_web::rt::spawn(server.run());
    (upstream, handle)
}

#[actix_web::test]
async fn bodies_stream_both_ways_with_and_without_a_length() {
    const PART: usize = 64 * 1024;
    let (upstream, _handle) = echo().await;
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    for length in [None, Some(64 * PART)] {
        let mut request = post();
        if let Some(length) = length {
            request.headers_mut().insert("content-length", length.into());
        }
        let (response, mut stream) =
            client.clone().ready().await.unwrap().send_request(request, false).unwrap();
        let sending = actix_web::rt::spawn(async move {
            for number in 0..64u8 {
                let mut part = Bytes::from(vec![number; PART]);
                while !part.is_empty() {
                    stream.reserve_capacity(part.len());
                    let capacity =
                        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                    stream.send_data(part.split_to(capacity.min(part.len())), false).unwrap();
                }
            }
            stream.send_data(Bytes::new(), true).unwrap();
        });
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let told = length.map_or("none".to_owned(), |length| length.to_string());
        assert_eq!(response.headers()["x-length"], told.as_str());
        let (mut body, mut received) = (response.into_body(), 0);
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            for (at, byte) in part.iter().enumerate() {
                assert_eq!(usize::from(*byte), (received + at) / PART);
            }
            received += part.len();
            body.flow_control().release_capacity(part.len()).unwrap();
        }
        assert_eq!(received, 64 * PART, "{length:?}");
        sending.await.unwrap();
    }
    // A small one is kept, and can be sent again.
    let mut request = post();
    request.headers_mut().insert("content-length", 2.into());
    assert_eq!(text(ask(&client, request, Some("hi")).await.unwrap()).await.unwrap(), "hi");
}

#[actix_web::test]
async fn a_response_to_head_has_a_length_and_no_body() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let request = Request::head("https://a.example/a").body(()).unwrap();
    let response = ask(&client, request, None).await.unwrap();
    assert_eq!(response.headers()["content-length"], "9");
    assert!(response.body().is_end_stream());
}

#[actix_web::test]
async fn events_pass_one_by_one() {
    let upstream = endless("text/event-stream");
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let response = ask(&client, post(), None).await.unwrap();
    let mut body = response.into_body();
    let first = tokio::time::timeout(Duration::from_secs(5), body.data()).await;
    assert_eq!(first.expect("it is held back").unwrap().unwrap(), "first");
}

#[actix_web::test]
async fn a_client_gets_what_came_of_an_answer_that_breaks_off_and_a_reset() {
    let upstream =
        Upstream::answering_once("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    for _ in 0..5 {
        let response = ask(&client, get("/a"), None).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        assert!(body.data().await.unwrap().unwrap_err().is_reset());
    }
}

#[actix_web::test]
async fn a_connection_has_a_hundred_requests_at_a_time_and_more_are_refused() {
    let upstream = endless("text/plain");
    let (site, gateway) = started(&[&upstream]).await;
    let mut client = Frames::open(&site, gateway.secure()).await;
    const POST: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "https"), (":path", "/a"), (":authority", "a.example")];
    for stream in 0..110 {
        client.head(2 * stream + 1, END_STREAM, &POST).await.unwrap();
    }
    for refused in 100..110 {
        let reset = client.until(RESET).await.unwrap();
        assert_eq!((reset.stream, reset.reason()), (2 * refused + 1, u32::from(Reason::REFUSED_STREAM)));
    }
    // The end of one makes room for another.
    client.send(RESET, 0, 1, &u32::from(Reason::CANCEL).to_be_bytes()).await.unwrap();
    client.head(221, END_STREAM, &POST).await.unwrap();
    while client.until(HEADERS).await.unwrap().stream != 221 {}
}

#[actix_web::test]
async fn a_client_that_takes_back_request_after_request_is_disconnected() {
    let upstream = endless("text/plain");
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let mut answered = 0;
    let end = loop {
        match ask(&client, post(), None).await {
            // Dropping it resets the stream.
            Ok(response) => drop(response),
            Err(end) => break end,
        }
        answered += 1;
        assert!(answered < 200, "it goes on");
    };
    // The reason is lost if the client writes when the connection is closed.
    assert!(end.is_io() || end.reason() == Some(Reason::ENHANCE_YOUR_CALM), "{end}");
    assert!(answered >= 100, "{answered}");
    // Others are served, and so is it, with another connection.
    let client = connect(&site, gateway.secure()).await;
    assert_eq!(ask(&client, post(), None).await.unwrap().status(), 200);
}

#[actix_web::test]
async fn a_client_that_resets_streams_as_it_opens_them_is_disconnected() {
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    let mut client = Frames::open(&site, gateway.secure()).await;
    for stream in 0..1000 {
        // The connection may be closed meanwhile.
        let _ = client.get(2 * stream + 1, &[]).await;
        let _ = client.send(RESET, 0, 2 * stream + 1, &u32::from(Reason::CANCEL).to_be_bytes()).await;
    }
    // The reason is lost if the client has written more than the gateway has read.
    if let Some(end) = client.until(GO_AWAY).await {
        assert_eq!(end.number(4), u32::from(Reason::ENHANCE_YOUR_CALM));
    }
    assert!(upstream.seen().len() < 200, "{}", upstream.seen().len());
}

#[actix_web::test]
async fn a_head_of_more_than_32_kib_gets_431() {
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let mut request = get("/a");
    request.headers_mut().insert("x-large", "x".repeat(33 * 1024).parse().unwrap());
    assert_eq!(ask(&client, request, None).await.unwrap().status(), 431);
    assert_eq!(ask(&client, get("/a"), None).await.unwrap().status(), 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[actix_web::test]
async fn a_body_that_comes_too_slowly_gets_408() {
    let (upstream, _handle) = echo().await;
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let mut request = post();
    request.headers_mut().insert("content-length", 5.into());
    let (response, _stream) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(10), response).await;
    assert_eq!(response.expect("it waits").unwrap().status(), 408);
}

#[actix_web::test]
async fn a_client_that_does_not_read_its_response_loses_the_stream_and_stops_the_replica() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let upstream = Upstream::serving(move |stream| {
        let (mut stream, sent) = (stream.try_clone().unwrap(), counted.clone());
        std::thread::spawn(move || {
            read_until(&mut stream, "\r\n\r\n");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").unwrap();
            while stream.write_all(&[0; 4096]).is_ok() {
                sent.fetch_add(4096, Ordering::Relaxed);
            }
        });
    });
    let (site, gateway) = started(&[&upstream]).await;
    let client = connect(&site, gateway.secure()).await;
    let mut body = ask(&client, post(), None).await.unwrap().into_body();
    let mut received = 0;
    let end = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            // What is read is not released.
            match body.data().await.unwrap() {
                Ok(part) => received += part.len(),
                Err(end) => break end,
            }
        }
    });
    let end = end.await.expect("the stream stays open");
    assert!(end.is_reset() && end.reason() == Some(Reason::CANCEL), "{end}");
    assert!(received < 128 * 1024, "{received}");
    // Buffers of the kernel.
    assert!(sent.load(Ordering::Relaxed) < 16 * 1024 * 1024, "{sent:?}");
}

#[actix_web::test]
async fn a_gateway_that_drains_says_goaway_and_finishes_what_runs() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (released, arrived) = (std::sync::Mutex::new(released), Arc::new(AtomicUsize::new(0)));
    let arriving = arrived.clone();
    let upstream = Upstream::replying(move |_| {
        arriving.fetch_add(1, Ordering::Relaxed);
        released.lock().unwrap().recv().unwrap();
        OK
    });
    let (site, gateway) = started(&[&upstream]).await;
    let idle = connect(&site, gateway.secure()).await;
    let mut client = Frames::open(&site, gateway.secure()).await;
    client.get(1, &[]).await.unwrap();
    until("the request runs", async || arrived.load(Ordering::Relaxed) == 1).await;
    let stopping = actix_web::rt::spawn(gateway.stop());
    let away = client.until(GO_AWAY).await.unwrap();
    assert_eq!(away.number(4), u32::from(Reason::NO_ERROR));
    release.send(()).unwrap();
    let head = client.until(HEADERS).await.unwrap();
    // 200 is the static entry 8 (RFC 7541).
    assert_eq!((head.stream, head.payload[0]), (1, 0x80 | 8));
    let mut body = Vec::new();
    loop {
        let part = client.until(DATA).await.unwrap();
        body.extend_from_slice(&part.payload);
        if part.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(body, b"ok");
    tokio::time::timeout(Duration::from_secs(4), stopping).await.expect("it stops").unwrap();
    assert!(idle.ready().await.is_err());
}
