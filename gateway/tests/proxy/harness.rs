//! A gateway with raw clients, and raw services behind it.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::app;
use gateway::config::{CALLS, Config};
use serde_json::Value;
use shared::service::{HttpConfig, ServerHandle, Service};
use shared::testing::{Api, Keys, eventually, publish_keys};
use tokio::net::TcpSocket;

/// A gateway whose route `/a` leads to the service `a`.
pub(crate) struct Gateway {
    address: SocketAddr,
    secure: Option<SocketAddr>,
    handle: ServerHandle,
    file: PathBuf,
    /// The file goes with the gateway.
    is_temporary: bool,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.is_temporary {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}

/// Where the admin port leads.
pub(crate) const CONSOLE: &str = "http://127.0.0.1:3051/";

impl Gateway {
    pub(crate) async fn start(upstreams: &[&Upstream]) -> Self {
        Self::start_at([0, 0], upstreams).await.unwrap()
    }

    /// `policies` are lines of gateway.toml above the routes.
    pub(crate) async fn with(policies: &str, upstreams: &[&Upstream]) -> Self {
        Self::start_with(policies, [0, 0], upstreams).await.unwrap()
    }

    /// `public` and `admin` are ports.
    pub(crate) async fn start_at(ports: [u16; 2], upstreams: &[&Upstream]) -> anyhow::Result<Self> {
        Self::start_with("", ports, upstreams).await
    }

    /// The same, with tokens of these keys' users.
    pub(crate) async fn with_users(policies: &str, upstreams: &[&Upstream]) -> (Self, Keys) {
        let (keys, services) = users(upstreams);
        (Self::start_in(&keys, &services, policies, [0, 0]).await.unwrap(), keys)
    }

    /// The same, with a whole `gateway.toml`.
    pub(crate) async fn in_file(text: &str, upstreams: &[&Upstream]) -> Self {
        let keys = Keys::new("an-issuer");
        Self::with_text(&keys, &listed(upstreams), text, [0, 0]).await.unwrap()
    }

    /// The same, with tokens of these keys' users.
    pub(crate) async fn in_file_with_users(
        text: &str,
        ports: [u16; 2],
        upstreams: &[&Upstream],
    ) -> (Self, Keys) {
        let (keys, services) = users(upstreams);
        (Self::with_text(&keys, &services, text, ports).await.unwrap(), keys)
    }

    pub(crate) async fn start_with(
        policies: &str,
        ports: [u16; 2],
        upstreams: &[&Upstream],
    ) -> anyhow::Result<Self> {
        Self::start_in(&Keys::new("an-issuer"), &listed(upstreams), policies, ports).await
    }

    async fn start_in(keys: &Keys, services: &str, policies: &str, ports: [u16; 2]) -> anyhow::Result<Self> {
        Self::with_text(keys, services, &configuration(policies), ports).await
    }

    async fn with_text(
        keys: &Keys,
        services: &str,
        text: &str,
        [public, admin]: [u16; 2],
    ) -> anyhow::Result<Self> {
        let file = std::env::temp_dir().join(format!("gateway-{}.toml", uuid::Uuid::now_v7()));
        std::fs::write(&file, text).unwrap();
        let gateway = Self::start_from(&file, keys, services, [public, admin]).await;
        gateway.map(|mut gateway| {
            gateway.is_temporary = true;
            gateway
        })
    }

    /// Starts a gateway with the `file`, which stays.
    pub(crate) async fn start_from(
        file: &Path,
        keys: &Keys,
        services: &str,
        [public, admin]: [u16; 2],
    ) -> anyhow::Result<Self> {
        let config = Config {
            http: HttpConfig { port: public, ..HttpConfig::for_tests() },
            admin: HttpConfig { port: admin, ..HttpConfig::for_tests() },
            platform: keys.platform(app::SERVICE, CALLS, &format!("static://{services}")),
            config_file: file.to_owned(),
            state_file: None,
            console: Some(CONSOLE.parse().unwrap()),
            rate_limits: true,
        };
        let server = app::build(config).await?;
        let (address, secure, handle) = (server.address(), server.secure_address(), server.handle());
        actix_web::rt::spawn(server.run());
        Ok(Self { address, secure, handle, file: file.to_owned(), is_temporary: false })
    }

    /// Drains it and waits until it has stopped.
    pub(crate) async fn stop(self) {
        self.handle.clone().stop().await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks TLS.
    pub(crate) fn secure(&self) -> SocketAddr {
        self.secure.unwrap()
    }

    /// The path of its `gateway.toml`.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

/// The keys of users, and the services: one that publishes the keys, and `a` with these replicas.
fn users(upstreams: &[&Upstream]) -> (Keys, String) {
    let keys = Keys::new("user-service");
    let users = Service::bind("user-service", HttpConfig::for_tests()).unwrap();
    let signing = keys.signing.clone();
    let users = users.configure(move |app| publish_keys(app, &signing)).build().unwrap();
    let services = format!("{};user-service=http://{}", listed(upstreams), users.address());
    actix_web::rt::spawn(users.run());
    (keys, services)
}

/// The service `a` with these replicas.
pub(crate) fn listed(upstreams: &[&Upstream]) -> String {
    let url = |upstream: &&Upstream| match upstream.version {
        "" => format!("http://{}", upstream.authority()),
        version => format!("http://{}#{version}", upstream.authority()),
    };
    let urls: Vec<_> = upstreams.iter().map(url).collect();
    format!("a={}", urls.join(","))
}

/// A `gateway.toml` with these lines above its routes.
pub(crate) fn configuration(policies: &str) -> String {
    format!("{policies}\n[[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\nhead_timeout_s = 1\n")
}

/// Waits until the gateway with this admin port knows that all replicas are healthy.
pub(crate) async fn all_healthy(admin: &Api) {
    eventually("all replicas are healthy", Duration::from_secs(10), async || {
        let seen = admin.get("/registry/services/a").await.body;
        let instances = seen["instances"].as_array()?;
        let is_healthy = |instance: &Value| instance["health"] == "healthy";
        (!instances.is_empty() && instances.iter().all(is_healthy)).then_some(())
    })
    .await;
}

/// Two ports that were free a moment ago.
pub(crate) fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A service with a fixed response.
pub(crate) struct Upstream {
    address: SocketAddr,
    version: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
    /// Reserves the port of a dead service.
    _reserved: Option<TcpSocket>,
}

impl Upstream {
    /// Answers every request on persistent connections.
    pub(crate) fn answering(said: &'static str) -> Self {
        Self::start(move |_| said, usize::MAX)
    }

    /// Answers every request by its text, on persistent connections.
    pub(crate) fn replying(reply: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Self {
        Self::start(reply, usize::MAX)
    }

    /// Answers one request on each connection and closes it.
    pub(crate) fn answering_once(said: &'static str) -> Self {
        Self::start(move |_| said, 1)
    }

    /// Answers every request with what `decide` says, health checks too.
    pub(crate) fn deciding(decide: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        let (seen, decide) = (upstream.seen.clone(), Arc::new(decide));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, decide, mut stream) = (seen.clone(), decide.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    while let Some(request) = read_request(&mut stream) {
                        let said = decide(&request);
                        seen.lock().unwrap().push(request);
                        stream.write_all(said.as_bytes()).unwrap_or_default();
                    }
                });
            }
        });
        upstream
    }

    /// Answers the first request on each connection, and closes it at the second.
    pub(crate) fn hanging_up_later(said: &'static str) -> Self {
        Self::serving(move |stream| {
            read_request(stream);
            stream.write_all(said.as_bytes()).unwrap_or_default();
            read_request(stream);
        })
    }

    /// Answers the first request on each connection. After the second, it says `last_words` and closes the connection, as a
    /// program that crashes a moment later.
    pub(crate) fn crashing_later(said: &'static str, last_words: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        let seen = upstream.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, mut stream) = (seen.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    answer_next(&mut stream, said, &seen)?;
                    read_request(&mut stream)?;
                    stream.write_all(last_words.as_bytes()).unwrap_or_default();
                    std::thread::sleep(Duration::from_millis(50));
                    Some(())
                });
            }
        });
        upstream
    }

    /// Passes one health check. Then the test gets its listener: when that is dropped, it refuses connections.
    pub(crate) fn leaving() -> (Self, Receiver<TcpListener>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        let (give, given) = channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            let healthy = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(healthy).unwrap_or_default();
            give.send(listener).unwrap_or_default();
        });
        (upstream, given)
    }

    /// Refuses connections.
    pub(crate) fn dead() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        Self { _reserved: Some(socket), ..Self::running_at(address) }
    }

    /// A server that runs already.
    pub(crate) fn running_at(address: SocketAddr) -> Self {
        Self { address, version: "", seen: Arc::default(), _reserved: None }
    }

    /// Passes its health checks, and never answers anything else.
    pub(crate) fn hanging() -> Self {
        Self::start(|_| "", usize::MAX)
    }

    /// Calls `serve` with each connection.
    pub(crate) fn serving(serve: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut first = [0; 4];
                // Health checks always pass, on their own connections.
                if stream.peek(&mut first).is_ok() && &first == b"GET " {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .unwrap();
                } else {
                    serve(&mut stream);
                }
            }
        });
        upstream
    }

    fn at(listener: &TcpListener) -> Self {
        Self::running_at(listener.local_addr().unwrap())
    }

    fn start(reply: impl Fn(&str) -> &'static str + Send + Sync + 'static, times: usize) -> Self {
        let reply = Arc::new(reply);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        let seen = upstream.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, reply) = (seen.clone(), reply.clone());
                std::thread::spawn(move || answer_all(stream.unwrap(), &*reply, times, &seen));
            }
        });
        upstream
    }

    /// The same, with this version in its metadata.
    pub(crate) fn of_version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The requests of clients so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer_all(
    mut stream: TcpStream,
    reply: &dyn Fn(&str) -> &'static str,
    times: usize,
    seen: &Mutex<Vec<String>>,
) {
    for _ in 0..times {
        let Some(request) = read_request(&mut stream) else { return };
        if answers_the_gateway(&request, &mut stream) {
            continue;
        }
        let said = reply(&request);
        seen.lock().unwrap().push(request);
        stream.write_all(said.as_bytes()).unwrap_or_default();
    }
}

/// Answers the next request of a client; `None` if the connection is closed.
fn answer_next(stream: &mut TcpStream, said: &str, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut request = read_request(stream)?;
    while answers_the_gateway(&request, stream) {
        request = read_request(stream)?;
    }
    seen.lock().unwrap().push(request);
    stream.write_all(said.as_bytes()).ok()
}

/// Whether this is a request of the gateway itself. Then it is answered.
fn answers_the_gateway(request: &str, stream: &mut TcpStream) -> bool {
    let is_own = request.starts_with("GET /health") || request.starts_with("GET /openapi.json");
    if is_own {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap_or_default();
    }
    is_own
}

/// Reads a head, and a body by its `Content-Length`.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut byte = [0; 1];
    while !text.ends_with("\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(char::from(byte[0]));
    }
    let length = text
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split('\r').next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(text + &String::from_utf8_lossy(&body))
}

/// Reads until `end` was received, or the connection is closed.
pub(crate) fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !text.contains(end) {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&part[..length])),
            Err(why) => panic!("{end:?} does not come: {why}; so far: {text}"),
        }
    }
    text
}

/// Sends these bytes, and reads until the gateway closes the connection or is silent for 2 s.
pub(crate) async fn raw(gateway: &Gateway, request: &str) -> String {
    raw_at(gateway.address, request).await
}

/// The same, at another address.
pub(crate) async fn raw_at(address: SocketAddr, request: &str) -> String {
    let request = request.to_owned();
    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = Vec::new();
        // A timeout or a broken connection also ends the reading.
        stream.read_to_end(&mut said).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    });
    exchange.await.unwrap()
}

/// Splits a response into head and JSON body.
pub(crate) fn answer(text: &str) -> (String, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    (head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

/// The status in a response head.
pub(crate) fn head_of(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
