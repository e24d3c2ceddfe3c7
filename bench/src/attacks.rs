//! What hostile clients do to a gateway, for `scripts/siege`.
//!
//! The attackers are a process of their own (`bin/attackers.rs`), so that their processor time is not the
//! customer's. They use addresses of 127.0.0.0/8. In docker compose, all clients of the host share one address;
//! there, the attackers run in the gateway's network namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use e2e::Api;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

use crate::customer::{Customer, Request};
use crate::environment::Environment;

/// Its name, and how many clients do it at once. A client whose connection ends comes again.
pub struct Attack {
    pub name: &'static str,
    pub clients: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
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
}

/// In the order in which the siege does them.
pub static ATTACKS: [Attack; 9] = [
    Attack { name: "heads without an end, as second requests", clients: 400, kind: Kind::SlowHeads },
    Attack { name: "bodies without an end", clients: 400, kind: Kind::SlowBodies },
    Attack { name: "bodies just above the minimum rate", clients: 400, kind: Kind::DrippingBodies },
    Attack { name: "answers that are not read", clients: 400, kind: Kind::SlowReaders },
    Attack { name: "idle connections", clients: 1000, kind: Kind::IdleConnections },
    Attack { name: "event streams of one person", clients: 600, kind: Kind::Streams },
    Attack { name: "tokens with unknown keys", clients: 64, kind: Kind::UnknownKeys },
    Attack { name: "wrong passwords from many addresses", clients: 64, kind: Kind::WrongPasswords },
    Attack { name: "connections until none is left", clients: 6000, kind: Kind::AllConnections },
];

/// A person with a confirmed order, who attacks.
pub struct Besieger {
    pub token: String,
    pub order: String,
}

/// Attackers have processors of their own elsewhere. Here they get what the stack leaves.
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
    pub async fn start(&self, environment: Environment, attack: usize) -> Result<Child, String> {
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
                command.args(["--network", &format!("container:{}", gateway.name)]);
                command.args(["--entrypoint", "chroot", &image, "/host"]).args(NICE).arg(&attackers);
                command
            }
        };
        command.args(["--attack", &attack.to_string(), "--port", &xtask::gateway().port.to_string()]);
        command.env("TOKEN", &self.token).env("ORDER", &self.order);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut child = child.map_err(|why| format!("The attackers do not start: {why}"))?;
        let begun = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        match begun.ok_or("no output")?.next_line().await {
            Ok(Some(_)) => Ok(child),
            _ => Err("The attackers did not begin.".to_owned()),
        }
    }

    /// Never ends.
    pub async fn attack(&self, attack: &Attack, gateway: SocketAddr) {
        join_all((0..attack.clients).map(|number| self.attack_for_ever(attack.kind, number, gateway))).await;
    }

    async fn attack_for_ever(&self, kind: Kind, number: usize, gateway: SocketAddr) {
        let pause = Duration::from_millis(if kind == Kind::AllConnections { 1000 } else { 100 });
        loop {
            // Refused, reset, or answered: the attacker comes again.
            let _ = self.attack_once(kind, number, gateway).await;
            tokio::time::sleep(pause).await;
        }
    }

    async fn attack_once(&self, kind: Kind, number: usize, gateway: SocketAddr) -> std::io::Result<()> {
        let mut stream = connect(address(kind, number), gateway).await?;
        let (host, json_type) = ("Host: shop\r\n", "Content-Type: application/json\r\n");
        match kind {
            Kind::SlowHeads => {
                stream.write_all(format!("GET /health/live HTTP/1.1\r\n{host}\r\n").as_bytes()).await?;
                stream.read_u8().await?;
                stream.write_all(format!("GET / HTTP/1.1\r\nX-A: {}", "a".repeat(30_000)).as_bytes()).await?;
            }
            Kind::SlowBodies | Kind::DrippingBodies => {
                let head =
                    format!("POST /api/users HTTP/1.1\r\n{host}{json_type}Content-Length: 65536\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                if kind == Kind::SlowBodies {
                    stream.write_all(&[b' '; 65_000]).await?;
                } else {
                    drip(&mut stream).await?;
                }
            }
            Kind::SlowReaders => {
                let get = format!("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\n{host}\r\n");
                stream.write_all(get.repeat(4).as_bytes()).await?;
                return std::future::pending().await;
            }
            Kind::IdleConnections | Kind::AllConnections => {}
            Kind::Streams => {
                let Self { token, order } = self;
                let authorization = format!("Authorization: Bearer {token}\r\n");
                let get = format!("GET /api/orders/{order}/events HTTP/1.1\r\n{host}{authorization}\r\n");
                stream.write_all(get.as_bytes()).await?;
            }
            Kind::UnknownKeys => {
                // {"alg":"EdDSA","kid":"unknown"}, {"sub":"x"}
                let token = "eyJhbGciOiJFZERTQSIsImtpZCI6InVua25vd24ifQ.eyJzdWIiOiJ4In0.AAAA";
                let get = format!("GET /api/orders HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n");
                stream.write_all(get.repeat(20).as_bytes()).await?;
            }
            Kind::WrongPasswords => {
                let body =
                    json!({ "email": format!("{number}@example.com"), "password": "a wrong password" });
                let (body, path) = (body.to_string(), "/api/sessions");
                let length = format!("Content-Length: {}\r\n", body.len());
                let post = format!("POST {path} HTTP/1.1\r\n{host}{json_type}{length}\r\n{body}");
                stream.write_all(post.as_bytes()).await?;
                stream.read_u8().await?;
                return Ok(());
            }
        }
        read_to_end(&mut stream).await
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

/// Sends spaces, 1.5 KB a second, until the connection closes.
async fn drip(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        stream.write_all(&[b' '; 1500]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn read_to_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut part = [0; 4096];
    while stream.read(&mut part).await? > 0 {}
    Ok(())
}
