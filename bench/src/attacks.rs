//! What hostile clients do to a gateway, for `scripts/siege`.
//!
//! The attackers are a process of their own (`bin/attackers.rs`), so that their processor time is not the
//! customer's. They use addresses of 127.0.0.0/8. In docker compose, all clients of the host share one address;
//! there, the attackers run in the gateway's network namespace.

mod http2;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use e2e::Api;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use xtask::stack::CLIENT_TLS_PORT;

use crate::customer::{Customer, Request};
use crate::environment::Environment;

/// An attack by several clients at once. A client whose connection ends connects again.
pub struct Attack {
    pub name: &'static str,
    pub clients: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SlowHeads,
    SlowBodies,
    DrippingBodies,
    SlowReaders,
    IdleConnections,
    Streams,
    UnknownKeys,
    WrongPasswords,
    AllConnections,
    Http2(http2::Kind),
}

impl Attack {
    /// Whether it needs the port with TLS.
    pub fn is_http2(&self) -> bool {
        matches!(self.kind, Kind::Http2(_))
    }
}

/// All attacks, in the order of the siege.
pub static ATTACKS: [Attack; 14] = [
    Attack { name: "heads without an end, as second requests", clients: 400, kind: Kind::SlowHeads },
    Attack { name: "bodies without an end", clients: 400, kind: Kind::SlowBodies },
    Attack { name: "bodies just above the minimum rate", clients: 400, kind: Kind::DrippingBodies },
    Attack { name: "answers that are not read", clients: 400, kind: Kind::SlowReaders },
    Attack { name: "idle connections", clients: 1000, kind: Kind::IdleConnections },
    Attack { name: "event streams of one person", clients: 600, kind: Kind::Streams },
    Attack { name: "tokens with unknown keys", clients: 64, kind: Kind::UnknownKeys },
    Attack { name: "wrong passwords from many addresses", clients: 64, kind: Kind::WrongPasswords },
    Attack { name: "HTTP/2: 100 requests at a time", clients: 100, kind: Kind::Http2(http2::Kind::Streams) },
    Attack {
        name: "HTTP/2: requests that are taken back",
        clients: 100,
        kind: Kind::Http2(http2::Kind::Resets),
    },
    Attack {
        name: "HTTP/2: bodies without an end",
        clients: 100,
        kind: Kind::Http2(http2::Kind::SlowBodies),
    },
    Attack {
        name: "HTTP/2: answers that are not read",
        clients: 100,
        kind: Kind::Http2(http2::Kind::SlowReaders),
    },
    Attack { name: "HTTP/2: heads without an end", clients: 400, kind: Kind::Http2(http2::Kind::Heads) },
    Attack { name: "connections until none is left", clients: 6000, kind: Kind::AllConnections },
];

/// Counts of the attempts of attackers.
#[derive(Default)]
pub struct Attempts {
    /// Connections that they tried to make.
    pub tried: Cell<u32>,
    /// Attempts with success: the gateway kept an unfinished request or an idle connection for a second, or it
    /// responded with another status than 429 and 503.
    pub through: Cell<u32>,
}

impl Attempts {
    fn got_through(&self, is_through: bool) {
        self.through.set(self.through.get() + u32::from(is_through));
    }

    /// Both counts as one line of text.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.tried.get(), self.through.get())
    }

    fn from_line(line: &str) -> Option<Self> {
        let (tried, through) = line.split_once(' ')?;
        Some(Self { tried: Cell::new(tried.parse().ok()?), through: Cell::new(through.parse().ok()?) })
    }
}

/// The attackers' process.
pub struct Attackers {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Attackers {
    /// Ends the attackers. An error if they have ended before, or failed.
    pub async fn end(mut self) -> Result<Attempts, String> {
        drop(self.child.stdin.take());
        let line = self.output.next_line().await.ok().flatten();
        let status = self.child.wait().await.map_err(|why| why.to_string())?;
        let attempts = line.as_deref().and_then(Attempts::from_line).filter(|_| status.success());
        attempts.ok_or_else(|| format!("The attackers failed: {status}."))
    }
}

/// A person with a confirmed order, who attacks.
pub struct Besieger {
    pub token: String,
    pub order: String,
}

/// How long the gateway must keep a connection that is of no use to it for the attack to count.
const HELD: Duration = Duration::from_secs(1);
/// How long a response is left unread at most, before the attacker disconnects and comes again.
const UNREAD: Duration = Duration::from_secs(5);
const REFUSALS: [u16; 2] = [429, 503];
/// Real attackers use their own machines. Here they get only the processor time that the stack leaves.
const NICE: [&str; 3] = ["nice", "-n", "19"];

impl Besieger {
    /// `None` if the order is not confirmed.
    pub async fn register(gateway: &Api, product: &str) -> Option<Self> {
        let person = Customer::register(gateway).await?;
        let lines =
            json!({ "lines": [{ "product_id": product, "quantity": 1 }], "payment_token": "tok_visa" });
        let ordered = person.send(&Request::post("/api/orders", Some(lines)).waiting(10)).await.reply?;
        (ordered.body["status"] == "confirmed").then_some(())?;
        Some(Self { token: person.token(), order: ordered.body["id"].as_str()?.to_owned() })
    }

    /// Starts the attackers; they end with their standard input. Returns when they have begun.
    pub async fn start(&self, environment: Environment, attack: usize) -> Result<Attackers, String> {
        let attackers = std::env::current_exe().map_err(|why| why.to_string())?.with_file_name("attackers");
        let mut command = match environment {
            Environment::Embedded => {
                let mut command = Command::new(NICE[0]);
                command.args(&NICE[1..]).arg(&attackers);
                command
            }
            Environment::Compose => {
                let replicas = environment.replicas().await;
                let gateway = replicas.into_iter().find(|replica| replica.service == "gateway");
                let gateway = gateway.ok_or("The gateway does not run.")?;
                let image = crate::environment::image(&gateway).await.ok_or("The gateway has no image.")?;
                let mut command = Command::new("docker");
                // The program is this machine's, and so are the libraries that it needs.
                command.args(["run", "--rm", "--interactive", "--user", "0", "--volume", "/:/host:ro"]);
                command.args(["--ulimit", "nofile=20000", "--env", "TOKEN", "--env", "ORDER"]);
                // What `nice` is between processes of one container.
                command.args(["--cpu-shares", "2"]);
                command.args(["--network", &format!("container:{}", gateway.name)]);
                command.args(["--entrypoint", "chroot", &image, "/host"]).args(NICE).arg(&attackers);
                command
            }
        };
        let port = if ATTACKS[attack].is_http2() { CLIENT_TLS_PORT } else { xtask::gateway().port };
        command.args(["--attack", &attack.to_string(), "--port", &port.to_string()]);
        command.env("TOKEN", &self.token).env("ORDER", &self.order);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut child = child.map_err(|why| format!("The attackers do not start: {why}"))?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        match output.next_line().await {
            Ok(Some(_)) => Ok(Attackers { child, output }),
            _ => Err("The attackers did not begin.".to_owned()),
        }
    }

    /// Never ends.
    pub async fn attack(&self, attack: &Attack, gateway: SocketAddr, attempts: &Attempts) {
        let each =
            (0..attack.clients).map(|number| self.attack_again(attack.kind, number, gateway, attempts));
        join_all(each).await;
    }

    async fn attack_again(&self, kind: Kind, number: usize, gateway: SocketAddr, attempts: &Attempts) {
        let pause = match kind {
            // Each attempt ends soon.
            Kind::Streams | Kind::UnknownKeys | Kind::AllConnections => 1000,
            _ => 100,
        };
        loop {
            attempts.tried.set(attempts.tried.get() + 1);
            // Refused, reset, or answered: the attacker comes again.
            let _ = self.attack_once(kind, number, gateway, attempts).await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn attack_once(
        &self,
        kind: Kind,
        number: usize,
        gateway: SocketAddr,
        attempts: &Attempts,
    ) -> std::io::Result<()> {
        let mut stream = connect(address(kind, number), gateway).await?;
        if let Kind::Http2(kind) = kind {
            return http2::attack(kind, stream, attempts).await;
        }
        let is_through = self.send(kind, number, &mut stream).await?;
        attempts.got_through(is_through);
        match kind {
            Kind::SlowReaders if is_through => {
                // The clients reconnect at different times, so that there are always new connections.
                tokio::time::sleep(UNREAD * u32::try_from(1 + number % 5).unwrap_or(1) / 5).await;
                Ok(())
            }
            Kind::DrippingBodies if is_through => drip(&mut stream).await,
            Kind::SlowReaders | Kind::Streams if !is_through => Ok(()),
            Kind::WrongPasswords => Ok(()),
            _ => read_to_end(&mut stream).await,
        }
    }

    /// Returns whether the gateway did what was asked.
    async fn send(&self, kind: Kind, number: usize, stream: &mut TcpStream) -> std::io::Result<bool> {
        let (host, json_type) = ("Host: shop\r\n", "Content-Type: application/json\r\n");
        match kind {
            Kind::SlowHeads => {
                stream.write_all(format!("GET /health/live HTTP/1.1\r\n{host}\r\n").as_bytes()).await?;
                let is_served = status(stream).await? == 200;
                stream.write_all(format!("GET / HTTP/1.1\r\nX-A: {}", "a".repeat(30_000)).as_bytes()).await?;
                Ok(is_served && stays_open(stream).await)
            }
            Kind::SlowBodies | Kind::DrippingBodies => {
                let head =
                    format!("POST /api/users HTTP/1.1\r\n{host}{json_type}Content-Length: 65536\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                let part = if kind == Kind::SlowBodies { 65_000 } else { PER_SECOND };
                stream.write_all(&vec![b' '; part]).await?;
                // A refusal is an answer.
                Ok(timeout(HELD, stream.peek(&mut [0])).await.is_err())
            }
            Kind::SlowReaders => {
                let get = format!("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\n{host}\r\n");
                stream.write_all(get.repeat(4).as_bytes()).await?;
                Ok(status(stream).await? == 200)
            }
            Kind::IdleConnections | Kind::AllConnections => Ok(stays_open(stream).await),
            Kind::Streams => {
                let Self { token, order } = self;
                let authorization = format!("Authorization: Bearer {token}\r\n");
                let get = format!("GET /api/orders/{order}/events HTTP/1.1\r\n{host}{authorization}\r\n");
                stream.write_all(get.as_bytes()).await?;
                Ok(status(stream).await? == 200)
            }
            Kind::UnknownKeys => {
                // {"alg":"EdDSA","kid":"unknown"}, {"sub":"x"}
                let token = "eyJhbGciOiJFZERTQSIsImtpZCI6InVua25vd24ifQ.eyJzdWIiOiJ4In0.AAAA";
                let get = format!("GET /api/orders HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n");
                let gets = format!("{}{get}Connection: close\r\n\r\n", format!("{get}\r\n").repeat(19));
                stream.write_all(gets.as_bytes()).await?;
                Ok(!REFUSALS.contains(&status(stream).await?))
            }
            Kind::WrongPasswords => {
                let body =
                    json!({ "email": format!("{number}@example.com"), "password": "a wrong password" });
                let (body, path) = (body.to_string(), "/api/sessions");
                let length = format!("Content-Length: {}\r\n", body.len());
                let post = format!("POST {path} HTTP/1.1\r\n{host}{json_type}{length}\r\n{body}");
                stream.write_all(post.as_bytes()).await?;
                Ok(!REFUSALS.contains(&status(stream).await?))
            }
            Kind::Http2(_) => Ok(false),
        }
    }
}

/// The customer has 127.0.0.1. Two hundred attackers share an address, or each has its own.
fn address(kind: Kind, number: usize) -> Ipv4Addr {
    let number = match kind {
        Kind::WrongPasswords | Kind::UnknownKeys => number,
        _ => number / 200,
    };
    let part = |number: usize| u8::try_from(1 + number % 250).unwrap_or(255);
    Ipv4Addr::new(127, 0, part(number / 250), part(number))
}

async fn connect(from: Ipv4Addr, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(from), 0).into())?;
    socket.connect(gateway).await
}

/// The first status on a connection.
async fn status(stream: &mut TcpStream) -> std::io::Result<u16> {
    let mut line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut line).await?;
    let status = line.get(9..).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| std::io::Error::other("no HTTP"))
}

/// Whether the gateway keeps the connection for so long, whatever it sends.
async fn stays_open(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    timeout(HELD, read_to_end(stream)).await.is_err()
}

/// Bytes of a body just above the minimum rate.
const PER_SECOND: usize = 1500;

/// Sends spaces until the connection closes.
async fn drip(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        stream.write_all(&[b' '; PER_SECOND]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut part = [0; 4096];
    while stream.read(&mut part).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// A server that answers each packet with this, or closes the connection at once, or after a refusal.
    async fn server(answer: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        actix_web::rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    actix_web::rt::spawn(serve(stream, answer));
                }
            }
        });
        address
    }

    async fn serve(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
        let mut part = [0; 64 * 1024];
        loop {
            let read = stream.read(&mut part).await?;
            stream.write_all(answer.as_bytes()).await?;
            let is_last = String::from_utf8_lossy(&part[..read]).contains("Connection: close");
            if read == 0 || is_last || answer.contains("503") {
                return Ok(());
            }
        }
    }

    /// Attacks until `is_enough`, for 30 s at most.
    async fn attempts(
        attack: &Attack,
        gateway: SocketAddr,
        is_enough: impl Fn(&Attempts) -> bool,
    ) -> Attempts {
        let (attempts, begun) = (Attempts::default(), Instant::now());
        let besieger = Besieger { token: "t".to_owned(), order: "o".to_owned() };
        let watch = async {
            while !is_enough(&attempts) && begun.elapsed() < Duration::from_secs(30) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = besieger.attack(attack, gateway, &attempts) => {}
            () = watch => {}
        }
        attempts
    }

    #[actix_web::test]
    async fn an_attack_whose_requests_are_answered_goes_on() {
        let gateway = server(Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
        for kind in [Kind::SlowReaders, Kind::UnknownKeys, Kind::WrongPasswords] {
            let attack = Attack { name: "", clients: 2, kind };
            let attempts = attempts(&attack, gateway, |attempts| attempts.through.get() >= 6).await;
            assert!(attempts.through.get() >= 6, "{kind:?}: {}", attempts.to_line());
        }
    }

    #[actix_web::test]
    async fn what_is_refused_or_disconnected_did_not_get_through() {
        let busy = server(Some("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")).await;
        let closing = server(None).await;
        for attack in &ATTACKS {
            let attack = Attack { clients: 2, ..*attack };
            let is_idle = [Kind::IdleConnections, Kind::AllConnections].contains(&attack.kind);
            for gateway in [busy, closing].into_iter().skip(usize::from(is_idle)) {
                let attempts = attempts(&attack, gateway, |attempts| attempts.tried.get() >= 4).await;
                assert_eq!(attempts.through.get(), 0, "{}: {}", attack.name, attempts.to_line());
            }
        }
    }
}
