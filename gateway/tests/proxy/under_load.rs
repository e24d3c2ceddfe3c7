//! Reload and drain while clients of all kinds are served. The gateways are processes, which get signals.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_codec::Framed;
use actix_http::ws::{CloseCode, Codec, Frame, Message};
use actix_web::rt::spawn;
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::Request;
use rustix::process::{Pid, Signal, kill_process};
use shared::service::{HttpConfig, ServerHandle, Service};
use shared::testing::{Api, Keys, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Upstream, free_ports};
use crate::http2::{ask, connect, text};
use crate::site::{Site, shown, until};
use crate::websocket::Echo;

type Tls = TlsStream<TcpStream>;

/// A body that is too large to be kept for a retry.
const LARGE: usize = 100 * 1024;
/// The time of a slow request: longer than the grace time of a drain.
const SLOW: Duration = Duration::from_secs(2);
const GRACE: &str = "1s";
/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);

/// A program, until it is dropped.
struct Process(Child);

impl Process {
    fn start(site: &Site, ports: [u16; 2], registry: &str) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_gateway"));
        program.env_clear().env("CONFIG_FILE", site.path("gateway.toml")).env("RUST_LOG", "warn");
        program.env("PORT", ports[0].to_string()).env("ADMIN_PORT", ports[1].to_string());
        program.env("SERVICE_TOKEN_KEY_FILE", site.path("keys/service.key"));
        program.env("SERVICE_TOKEN_PUBLIC_KEYS", site.path("keys")).env("DRAIN_GRACE", GRACE);
        Self(program.env("REGISTRY_URL", registry).stdin(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ends_well(&mut self) {
        until("it ends", async || self.0.try_wait().unwrap().is_some()).await;
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A service that counts its requests: small and large bodies, a slow answer, and events.
fn service() -> (Upstream, Arc<AtomicUsize>, ServerHandle) {
    let counted = Arc::new(AtomicUsize::new(0));
    let counter = counted.clone();
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap();
    let service = service.configure(move |app| {
        let counter = counter.clone();
        let events = async || {
            let event = |number: u64| async move {
                tokio::time::sleep(PAUSE * 4).await;
                let event = format!("id: {number}\ndata: {number}\n\n");
                Some((Ok::<_, std::io::Error>(Bytes::from(event)), number + 1))
            };
            HttpResponse::Ok().content_type("text/event-stream").streaming(Box::pin(stream::unfold(1, event)))
        };
        let answer = move |request: HttpRequest, body: Bytes| {
            // The gateway's own requests for documents do not count.
            counter.fetch_add(usize::from(request.path() != "/openapi.json"), Ordering::Relaxed);
            async move {
                if request.path().ends_with("slow") {
                    tokio::time::sleep(SLOW).await;
                }
                HttpResponse::Ok().body(body.len().to_string())
            }
        };
        app.route("/a/events", web::get().to(events));
        app.default_service(web::to(answer));
    });
    let (api, handle) = run(service.build().unwrap());
    let address = api.base.trim_start_matches("http://").parse().unwrap();
    (Upstream::running_at(address), counted, handle)
}

/// What the clients of one kind have seen.
#[derive(Default)]
struct Seen {
    served: Cell<usize>,
    /// Connections or streams that the gateway has ended as their protocol wants it.
    ends: Cell<usize>,
    failures: RefCell<Vec<String>>,
}

impl Seen {
    fn serve(&self) {
        self.served.set(self.served.get() + 1);
    }

    fn end(&self) {
        self.ends.set(self.ends.get() + 1);
    }

    fn fail(&self, why: impl Display) {
        self.failures.borrow_mut().push(why.to_string());
    }
}

/// The clients.
struct Load {
    site: Site,
    address: SocketAddr,
    is_over: Cell<bool>,
    http1: Seen,
    slow: Seen,
    http2: Seen,
    sockets: Seen,
    events: Seen,
    events2: Seen,
    /// The codes with which the gateway has closed WebSockets.
    codes: RefCell<BTreeSet<u16>>,
}

impl Load {
    fn kinds(&self) -> [(&str, &Seen); 6] {
        [
            ("requests over HTTP/1.1", &self.http1),
            ("slow requests over HTTP/1.1", &self.slow),
            ("requests over HTTP/2", &self.http2),
            ("messages of WebSockets", &self.sockets),
            ("events over HTTP/1.1", &self.events),
            ("events over HTTP/2", &self.events2),
        ]
    }

    fn served(&self) -> [usize; 6] {
        self.kinds().map(|(_, seen)| seen.served.get())
    }

    /// Waits until each kind of client was served again.
    async fn goes_on(&self) {
        let before = self.served();
        until("all are served", async || {
            let enough = [50, 1, 50, 50, 50, 50];
            let now = self.served();
            before.iter().zip(now).zip(enough).all(|((before, now), enough)| now >= before + enough)
        })
        .await;
    }

    fn has_no_failure(&self) {
        for (kind, seen) in self.kinds() {
            assert_eq!(*seen.failures.borrow(), Vec::<String>::new(), "{kind}");
        }
    }

    async fn connect(&self) -> std::io::Result<Tls> {
        self.site.connect(self.address, "a.example", &["http/1.1"]).await
    }
}

/// Reads a head.
async fn head(stream: &mut Tls) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await?));
    }
    Ok(head.to_lowercase())
}

async fn line(stream: &mut Tls) -> std::io::Result<String> {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(char::from(stream.read_u8().await?));
    }
    Ok(line)
}

/// One request, whose answer is the length of its body. Returns whether the connection closes.
async fn exchange(stream: &mut Tls, path: &str, body: &[u8]) -> std::io::Result<bool> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len().to_string();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[request.as_bytes(), body].concat()).await?;
    stream.flush().await?;
    let head = head(stream).await?;
    let mut answered = vec![0; length.len()];
    stream.read_exact(&mut answered).await?;
    match head.starts_with("http/1.1 200 ") && answered == length.as_bytes() {
        true => Ok(head.contains("\r\nconnection: close\r\n")),
        false => Err(std::io::Error::other(head)),
    }
}

/// Uses one connection until an answer says `Connection: close`.
async fn http1(load: Rc<Load>, path: &'static str, seen: impl Fn(&Load) -> &Seen) {
    let (mut open, seen) = (None, seen(&load));
    for number in 0.. {
        if load.is_over.get() {
            return;
        }
        let body = if number % 3 == 2 { vec![7; LARGE] } else { Vec::new() };
        let asked = async {
            let mut stream = match open.take() {
                Some(stream) => stream,
                None => load.connect().await?,
            };
            let closes = exchange(&mut stream, path, &body).await?;
            Ok::<_, std::io::Error>(Some(stream).filter(|_| !closes))
        };
        match asked.await {
            Ok(stream) => {
                seen.serve();
                open = stream;
                if open.is_none() {
                    seen.end();
                }
            }
            Err(why) => seen.fail(why),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Three requests at a time on one connection, until the gateway says GOAWAY. What it has not processed by then does not
/// count: RFC 9113 §6.8 lets clients send it again.
async fn http2(load: Rc<Load>) {
    let seen = &load.http2;
    let mut client = connect(&load.site, load.address).await;
    while !load.is_over.get() {
        let asked = join_all((0..3).map(|number| {
            let client = &client;
            async move {
                let url = "https://a.example/a";
                let (request, body) = match number {
                    0 => (Request::post(url), Some("hello")),
                    _ => (Request::get(url), None),
                };
                let response = ask(client, request.body(()).unwrap(), body).await?;
                let status = response.status().as_u16();
                Ok::<_, h2::Error>((status, text(response).await?, body.map_or(0, str::len)))
            }
        }));
        let mut goes_away = false;
        for answered in asked.await {
            match answered {
                Ok((200, text, sent)) if text == sent.to_string() => seen.serve(),
                Ok(answered) => seen.fail(format!("{answered:?}")),
                Err(why) if why.is_go_away() && why.reason() == Some(h2::Reason::NO_ERROR) => {
                    goes_away = true;
                }
                Err(why) => seen.fail(why),
            }
        }
        if goes_away {
            seen.end();
            client = connect(&load.site, load.address).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends messages, which come back, until the gateway closes; then opens another one.
async fn websocket(load: Rc<Load>) {
    let seen = &load.sockets;
    while !load.is_over.get() {
        match messages(&load).await {
            Ok(Some(code)) => {
                seen.end();
                load.codes.borrow_mut().insert(code);
            }
            Ok(None) => {}
            Err(why) => seen.fail(why),
        }
    }
}

/// Returns the code with which the gateway closes.
async fn messages(load: &Load) -> Result<Option<u16>, Box<dyn std::error::Error>> {
    let mut stream = load.connect().await?;
    let handshake = "GET /sockets HTTP/1.1\r\nhost: a.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await?;
    let head = head(&mut stream).await?;
    if !head.starts_with("http/1.1 101 ") {
        return Err(head.into());
    }
    let mut socket = Framed::new(stream, Codec::new().client_mode());
    while !load.is_over.get() {
        socket.send(Message::Text("hello".into())).await?;
        match socket.next().await.ok_or("the connection ends without a Close")?? {
            Frame::Text(text) if text == "hello" => load.sockets.serve(),
            Frame::Close(Some(reason)) => {
                let code = reason.code.into();
                socket.send(Message::Close(Some(reason))).await?;
                return match socket.next().await {
                    None => Ok(Some(code)),
                    Some(more) => Err(format!("after the Close: {more:?}").into()),
                };
            }
            other => return Err(format!("{other:?}").into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    socket.send(Message::Close(Some(CloseCode::Normal.into()))).await?;
    Ok(None)
}

/// Reads events until the gateway ends the stream; then opens another one.
async fn events(load: Rc<Load>) {
    let seen = &load.events;
    while !load.is_over.get() {
        match events_of_one(&load).await {
            Ok(true) => seen.end(),
            Ok(false) => {}
            Err(why) => seen.fail(why),
        }
    }
}

/// Returns whether the stream has ended, with its last chunk.
async fn events_of_one(load: &Load) -> std::io::Result<bool> {
    let mut stream = load.connect().await?;
    stream.write_all(b"GET /a/events HTTP/1.1\r\nhost: a.example\r\n\r\n").await?;
    let head = head(&mut stream).await?;
    if !head.starts_with("http/1.1 200 ") {
        return Err(std::io::Error::other(head));
    }
    while !load.is_over.get() {
        let size = line(&mut stream).await?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await?;
        if size == 0 {
            return Ok(true);
        }
        if chunk.ends_with(b"\n\n\r\n") {
            load.events.serve();
        }
    }
    Ok(false)
}

async fn events2(load: Rc<Load>) {
    let seen = &load.events2;
    while !load.is_over.get() {
        let client = connect(&load.site, load.address).await;
        let request = Request::get("https://a.example/a/events").body(()).unwrap();
        let mut body = match ask(&client, request, None).await {
            Ok(response) if response.status() == 200 => response.into_body(),
            other => {
                seen.fail(format!("{other:?}"));
                continue;
            }
        };
        while !load.is_over.get() {
            match body.data().await {
                Some(Ok(part)) => {
                    body.flow_control().release_capacity(part.len()).unwrap();
                    seen.serve();
                }
                Some(Err(why)) => {
                    seen.fail(why);
                    break;
                }
                None => {
                    seen.end();
                    break;
                }
            }
        }
    }
}

/// gateway.toml with one more route.
fn configuration(port: u16, round: usize) -> String {
    format!(
        "rate_per_second = 100000\nrate_burst = 100000\n[tls]\nport = {port}\n\
         [[tls.certificates]]\nnames = [\"a.example\"]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
         [[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\n\
         [[routes]]\nid = \"round\"\nprefix = \"/round/{round}\"\nservice = \"a\"\n\
         [[routes]]\nid = \"sockets\"\nprefix = \"/sockets\"\nservice = \"sockets\"\n[routes.websocket]\n"
    )
}

#[actix_web::test]
async fn reloads_and_a_drain_under_load_of_all_kinds_fail_nothing() {
    let (upstream, requests, _handle) = service();
    let echo = Echo::start().await;
    let registry =
        format!("static://a=http://{};sockets=http://{}", upstream.authority(), echo.upstream.authority());
    let ([public, secure], admins) = (free_ports(), free_ports());
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.write("gateway.toml", &configuration(secure, 0));
    std::fs::create_dir(site.path("keys")).unwrap();
    Keys::new("an-issuer").write(&site.path("keys"), "gateway", &["gateway"]);
    let mut first = Process::start(&site, [public, admins[0]], &registry);
    let api = Api::local(public);
    until("it is ready", async || {
        api.try_get("/health/ready").await.is_some_and(|ready| ready.status == 200)
    })
    .await;

    let load = Rc::new(Load {
        site,
        address: ([127, 0, 0, 1], secure).into(),
        is_over: Cell::new(false),
        http1: Seen::default(),
        slow: Seen::default(),
        http2: Seen::default(),
        sockets: Seen::default(),
        events: Seen::default(),
        events2: Seen::default(),
        codes: RefCell::default(),
    });
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(spawn(http1(load.clone(), "/a", |load| &load.http1)));
        clients.push(spawn(http1(load.clone(), "/a/slow", |load| &load.slow)));
        clients.push(spawn(http2(load.clone())));
        clients.push(spawn(websocket(load.clone())));
        clients.push(spawn(events(load.clone())));
        clients.push(spawn(events2(load.clone())));
    }
    load.goes_on().await;

    let mut rounds = 0;
    for round in 1..=5 {
        let certificate = load.site.certify("a", &["a.example"]);
        load.site.write("gateway.toml", &configuration(secure, round));
        if round % 2 == 0 {
            first.signal(Signal::HUP);
        }
        until("both are in force", async || {
            let is_routed = api.get(&format!("/round/{round}")).await.status == 200;
            rounds += usize::from(is_routed);
            is_routed && shown(&load.connect().await.unwrap()) == certificate
        })
        .await;
        load.goes_on().await;
    }
    load.has_no_failure();
    for (kind, seen) in load.kinds() {
        assert_eq!(seen.ends.get(), 0, "a reload has ended connections: {kind}");
    }
    let before_drain = load.served();

    let second = Process::start(&load.site, [public, admins[1]], &registry);
    let admin = Api::local(admins[1]);
    until("the second gateway has healthy replicas", async || {
        let mut healthy = 0;
        for service in ["a", "sockets"] {
            let seen = admin.try_get(&format!("/registry/services/{service}")).await;
            healthy += usize::from(seen.is_some_and(|seen| seen.body["instances"][0]["health"] == "healthy"));
        }
        healthy == 2
    })
    .await;
    first.signal(Signal::TERM);
    first.ends_well().await;
    let before_end = load.served();
    load.goes_on().await;
    load.is_over.set(true);
    join_all(clients).await;

    for (at, (kind, seen)) in load.kinds().into_iter().enumerate() {
        let during =
            [before_drain[at], before_end[at] - before_drain[at], seen.served.get() - before_end[at]];
        println!("{kind}: {during:?} served in 5 reloads, a drain, and after it; {} ended", seen.ends.get());
    }
    load.has_no_failure();
    for (kind, seen) in load.kinds() {
        assert!(seen.ends.get() > 0, "the drain has ended nothing: {kind}");
    }
    assert_eq!(*load.codes.borrow(), BTreeSet::from([1012]));
    // No request was sent twice.
    let served = [&load.http1, &load.slow, &load.http2].map(|seen| seen.served.get());
    assert_eq!(requests.load(Ordering::Relaxed), served.iter().sum::<usize>() + rounds);
    drop(second);
}
