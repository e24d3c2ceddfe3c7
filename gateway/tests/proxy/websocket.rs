//! WebSockets: both ways through the gateway, their limits, and their ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_codec::Framed;
use actix_http::ws::{CloseCode, Codec, Frame, Message, hash_key};
use awc::BoxedSocket;
use futures_util::{SinkExt as _, StreamExt as _};
use shared::testing::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::access_log::{line, record};
use crate::harness::{Gateway, Upstream, configuration, raw};
use crate::site::Site;

const ON: &str = "[routes.websocket]\n";

/// A server that sends back what it gets. A text `half` makes it send a frame in two halves, two seconds apart.
pub(crate) struct Echo {
    pub(crate) upstream: Upstream,
    /// The codes of the Close frames that it got.
    closes: Arc<Mutex<Vec<u16>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream::running_at(listener.local_addr().unwrap());
        let (closes, heads) = <(Arc<Mutex<Vec<u16>>>, Arc<Mutex<Vec<String>>>)>::default();
        let echo = Self { upstream, closes: closes.clone(), heads: heads.clone() };
        actix_web::rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                actix_web::rt::spawn(serve(stream, closes.clone(), heads.clone()));
            }
        });
        echo
    }

    async fn closed_with(&self, code: u16) {
        eventually(&format!("the service gets {code}"), Duration::from_secs(5), async || {
            self.closes.lock().unwrap().contains(&code).then_some(())
        })
        .await;
    }
}

async fn serve(mut stream: TcpStream, closes: Arc<Mutex<Vec<u16>>>, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(char::from(byte));
    }
    let lower = head.to_lowercase();
    let key = lower.find("sec-websocket-key: ").map(|at| head[at + 19..].split('\r').next().unwrap());
    let (Some(key), true) = (key, lower.contains("\r\nupgrade: websocket\r\n")) else {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        return stream.write_all(ok.as_bytes()).await.unwrap_or_default();
    };
    let accept = String::from_utf8(hash_key(key.as_bytes()).to_vec()).unwrap();
    let switched = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    heads.lock().unwrap().push(head.clone());
    stream.write_all(switched.as_bytes()).await.unwrap();
    let mut framed = Framed::new(stream, Codec::new().max_size(4 << 20));
    while let Some(Ok(frame)) = framed.next().await {
        let answer = match frame {
            Frame::Text(text) if text == "half" => {
                let stream = framed.io_mut();
                stream.write_all(b"\x81\x04ha").await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(b"lf").await.unwrap();
                continue;
            }
            Frame::Text(text) => Message::Text(std::str::from_utf8(&text).unwrap().into()),
            Frame::Binary(bytes) => Message::Binary(bytes),
            Frame::Ping(bytes) => Message::Pong(bytes),
            Frame::Close(reason) => {
                closes.lock().unwrap().push(reason.as_ref().map_or(1005, |reason| reason.code.into()));
                let _ = framed.send(Message::Close(reason)).await;
                return;
            }
            _ => continue,
        };
        framed.send(answer).await.unwrap();
    }
}

type Socket = Framed<BoxedSocket, Codec>;

async fn open_at(address: SocketAddr, path: &str) -> Socket {
    let client = awc::Client::new();
    let (response, socket) =
        client.ws(format!("http://{address}{path}")).max_frame_size(4 << 20).connect().await.unwrap();
    assert_eq!(response.status(), 101);
    assert!(response.headers().contains_key("x-served-by"));
    socket
}

async fn open(gateway: &Gateway) -> Socket {
    open_at(gateway.address(), "/a").await
}

async fn next(socket: &mut Socket) -> Option<Frame> {
    let frame = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("in time");
    frame.map(|frame| frame.unwrap())
}

/// What the gateway closes the socket with. Answers it, as a client must.
async fn code(socket: &mut Socket) -> u16 {
    let Some(Frame::Close(Some(reason))) = next(socket).await else { panic!("no Close frame") };
    let code = reason.code.into();
    socket.send(Message::Close(Some(reason))).await.unwrap();
    code
}

async fn gateway(echo: &Echo, keys: &str) -> Gateway {
    Gateway::in_file(&(configuration("") + ON + keys), &[&echo.upstream]).await
}

#[actix_web::test]
async fn a_websocket_passes_on_messages_both_ways_and_the_close_of_the_client() {
    record();
    let echo = Echo::start().await;
    let gateway = gateway(&echo, "").await;
    let path = format!("/a/{}", Uuid::now_v7());
    let mut socket = open_at(gateway.address(), &path).await;
    let big = vec![7_u8; 1 << 20];
    socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Frame::Text("hello".into())));
    socket.send(Message::Binary(big.clone().into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Frame::Binary(big.into())));
    socket.send(Message::Ping("?".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Frame::Pong("?".into())));
    socket.send(Message::Close(Some(CloseCode::Normal.into()))).await.unwrap();
    assert!(
        matches!(next(&mut socket).await, Some(Frame::Close(Some(reason))) if reason.code == CloseCode::Normal)
    );
    assert!(next(&mut socket).await.is_none(), "the connection ends");
    echo.closed_with(1000).await;
    let line = line(&path).await;
    let bytes = |field: &str| line[field].parse::<usize>().unwrap();
    assert!(bytes("bytes_in") > 1 << 20 && bytes("bytes_out") > 1 << 20, "{line:?}");
    assert_eq!((line["status"].as_str(), line.get("flag")), ("101", None));
    let head = echo.heads.lock().unwrap()[0].to_lowercase();
    assert!(head.contains("x-forwarded-for: ") && head.contains("connection: upgrade\r\n"), "{head}");
}

#[actix_web::test]
async fn a_draining_gateway_closes_websockets_with_1012_and_the_service_gets_the_answer() {
    record();
    let echo = Echo::start().await;
    let gateway = gateway(&echo, "").await;
    let path = format!("/a/{}", Uuid::now_v7());
    let mut socket = open_at(gateway.address(), &path).await;
    let stopping = actix_web::rt::spawn(gateway.stop());
    assert_eq!(code(&mut socket).await, 1012);
    assert!(next(&mut socket).await.is_none(), "the connection ends");
    echo.closed_with(1012).await;
    tokio::time::timeout(Duration::from_secs(4), stopping).await.expect("it stops soon").unwrap();
    assert_eq!(line(&path).await["flag"], "DR");
}

#[actix_web::test]
async fn the_close_of_the_gateway_comes_between_two_frames() {
    let echo = Echo::start().await;
    let gateway = gateway(&echo, "").await;
    let mut socket = open(&gateway).await;
    socket.send(Message::Text("half".into())).await.unwrap();
    // The first half has come through when its first byte has.
    eventually("the first half", Duration::from_secs(5), async || {
        let polled = tokio::time::timeout(Duration::from_millis(50), socket.next()).await;
        assert!(polled.is_err(), "{polled:?}");
        (!socket.is_read_buf_empty()).then_some(())
    })
    .await;
    let stopping = actix_web::rt::spawn(gateway.stop());
    assert_eq!(next(&mut socket).await, Some(Frame::Text("half".into())));
    assert_eq!(code(&mut socket).await, 1012);
    stopping.await.unwrap();
}

#[actix_web::test]
async fn a_reload_closes_websockets_only_if_their_route_has_none_any_more() {
    let echo = Echo::start().await;
    let gateway = gateway(&echo, "").await;
    let mut socket = open(&gateway).await;
    let reloaded = async |text: String| {
        let before = std::fs::read_to_string(gateway.file()).unwrap();
        assert_ne!(before, text);
        std::fs::write(gateway.file(), text).unwrap();
    };
    // A header that the old table passes on shows which one is in force.
    reloaded(format!("strip_headers = [\"x-old\"]\n{}{ON}", configuration(""))).await;
    eventually("the new table is in force", Duration::from_secs(10), async || {
        let _ = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\nx-old: 1\r\n\r\n").await;
        let heads = echo.heads.lock().unwrap();
        (!heads.last().unwrap().contains("x-old")).then_some(())
    })
    .await;
    socket.send(Message::Text("still".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Frame::Text("still".into())));
    reloaded(configuration("")).await;
    assert_eq!(code(&mut socket).await, 1012);
}

#[actix_web::test]
async fn a_websocket_ends_with_1001_when_it_is_silent_too_long_or_too_old() {
    record();
    for (keys, flag) in [("idle_s = 1", "SI"), ("total_s = 1", "DT")] {
        let echo = Echo::start().await;
        let gateway = gateway(&echo, keys).await;
        let path = format!("/a/{}", Uuid::now_v7());
        let mut socket = open_at(gateway.address(), &path).await;
        assert_eq!(code(&mut socket).await, 1001);
        echo.closed_with(1001).await;
        assert_eq!(line(&path).await["flag"], flag);
    }
}

#[actix_web::test]
async fn a_message_makes_the_time_of_silence_begin_anew() {
    let echo = Echo::start().await;
    let gateway = gateway(&echo, "idle_s = 2").await;
    let mut socket = open(&gateway).await;
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        socket.send(Message::Text("hello".into())).await.unwrap();
        assert_eq!(next(&mut socket).await, Some(Frame::Text("hello".into())));
        let quiet = tokio::time::timeout(Duration::from_millis(500), socket.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
    assert_eq!(code(&mut socket).await, 1001);
}

#[actix_web::test]
async fn websockets_count_among_the_streams_of_an_address_and_take_no_slots_of_plain_requests() {
    let echo = Echo::start().await;
    let limits = "streams_per_client = 3\n";
    let text = limits.to_owned() + &configuration("") + "max_in_flight = 1\n" + ON;
    let gateway = Gateway::in_file(&text, &[&echo.upstream]).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(open(&gateway).await);
    }
    let more = raw(&gateway, &handshake("")).await;
    assert!(more.starts_with("HTTP/1.1 429"), "{more}");
    let plain = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 200"), "{plain}");
    sockets.pop();
    eventually("a closed one makes room", Duration::from_secs(5), async || {
        awc::Client::new().ws(format!("http://{}/a", gateway.address())).connect().await.ok()
    })
    .await;
}

/// A handshake.
fn handshake(headers: &str) -> String {
    format!(
        "GET /a HTTP/1.1\r\nhost: shop.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n{headers}\r\n"
    )
}

#[actix_web::test]
async fn only_pages_of_its_own_origin_and_of_those_in_cors_open_websockets() {
    let echo = Echo::start().await;
    let text = configuration("") + ON + "[routes.cors]\norigins = [\"https://other.example\"]\n";
    let gateway = Gateway::in_file(&text, &[&echo.upstream]).await;
    for (origin, status) in [
        ("", "101"),
        ("origin: http://shop.example\r\n", "101"),
        ("origin: https://shop.example\r\n", "101"),
        ("origin: https://other.example\r\n", "101"),
        ("origin: https://evil.example\r\n", "403"),
        ("origin: https://shop.example.evil\r\n", "403"),
        ("origin: null\r\n", "403"),
    ] {
        let answered = raw(&gateway, &handshake(origin)).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {answered}");
    }
}

#[actix_web::test]
async fn a_page_of_plain_http_opens_no_websocket_with_tls() {
    let echo = Echo::start().await;
    let site = Site::new();
    site.certify("a", &["shop.example"]);
    site.configure("", &[("a", &["shop.example"])]);
    let text = std::fs::read_to_string(site.path("gateway.toml")).unwrap();
    site.write("gateway.toml", &(text + ON));
    let gateway = site.start([0, 0], &[&echo.upstream]).await.unwrap();
    for (origin, status) in [("https", "101"), ("http", "403")] {
        let mut stream = site.connect(gateway.secure(), "shop.example", &[]).await.unwrap();
        let asked = handshake(&format!("origin: {origin}://shop.example\r\n"));
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answered = [0; 12];
        stream.read_exact(&mut answered).await.unwrap();
        assert_eq!(str::from_utf8(&answered).unwrap(), format!("HTTP/1.1 {status}"), "{origin}");
    }
    // The same behind a proxy that has the connection with TLS.
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\n".to_owned() + &configuration("") + ON;
    let gateway = Gateway::in_file(&trusted, &[&echo.upstream]).await;
    for (origin, status) in [("https", "101"), ("http", "403")] {
        let headers = format!("origin: {origin}://shop.example\r\nx-forwarded-proto: https\r\n");
        let answered = raw(&gateway, &handshake(&headers)).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {answered}");
    }
}

#[actix_web::test]
async fn what_follows_a_handshake_reaches_nobody_unless_the_answer_is_101() {
    let smuggled = "GET /a/smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    for policies in [ON, ""] {
        let upstream = Upstream::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        let gateway = Gateway::in_file(&(configuration("") + policies), &[&upstream]).await;
        let answered = raw(&gateway, &(handshake("") + smuggled)).await;
        assert!(answered.starts_with("HTTP/1.1 403"), "{answered}");
        assert_eq!(answered.matches("HTTP/1.1").count(), 1, "{answered}");
        assert_eq!(upstream.seen().len(), 1, "{:?}", upstream.seen());
        assert_eq!(upstream.seen()[0].contains("upgrade: websocket"), !policies.is_empty());
    }
}

#[actix_web::test]
async fn a_101_that_nobody_asked_for_is_a_bad_answer() {
    let upstream = Upstream::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n");
    let gateway = Gateway::start(&[&upstream]).await;
    let answered = raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 502"), "{answered}");
}

#[actix_web::test]
async fn a_websocket_ends_with_1001_when_the_token_expires_with_which_it_was_opened() {
    record();
    let echo = Echo::start().await;
    let text = configuration("") + ON;
    let (gateway, keys) = Gateway::in_file_with_users(&text, [0, 0], &[&echo.upstream]).await;
    let bearer = |token: String| format!("Bearer {token}");
    let plain = bearer(keys.user_token(Uuid::now_v7(), &[]));
    let plain = format!("GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: {plain}\r\n\r\n");
    eventually("the keys are known", Duration::from_secs(10), async || {
        raw(&gateway, &plain).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let path = format!("/a/{}", Uuid::now_v7());
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3;
    let token = bearer(keys.user_token_until(expires, Uuid::now_v7(), &[]));
    let client = awc::Client::new();
    let asking = client.ws(format!("http://{}{path}", gateway.address())).set_header("authorization", token);
    let (_, mut socket) = asking.connect().await.unwrap();
    assert_eq!(code(&mut socket).await, 1001);
    assert_eq!(line(&path).await["flag"], "DT");
}
