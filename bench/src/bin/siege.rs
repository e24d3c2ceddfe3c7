//! Hostile clients besiege a running gateway, while an honest customer registers, logs in and orders every
//! second. Prints a row for each attack; ends with 1 if the customer failed, or waited too long, or if the
//! gateway took too much memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bench::customer::{Customer, Request};
use bench::deployment::{Deployment, DeploymentConfig};
use bench::measure;
use e2e::Api;
use futures_util::future::{Either, join_all, select};
use serde_json::json;
use shared::config::{ConfigError, Vars};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use uuid::Uuid;

struct Config {
    deployment: DeploymentConfig,
    seconds: u32,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let seconds = vars.or("SECONDS", "12", "how long each attack lasts");
        let deployment = DeploymentConfig::from_vars(&mut vars);
        vars.finish(deployment.map(|deployment| Self { deployment, seconds }))
    }
}

/// How much slower than undisturbed the customer may be served.
const SLOWER: u32 = 3;
/// In MB.
const MEMORY: u64 = 150;

/// What the attackers do; all at once, and again when a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    None,
    SlowHeads,
    SlowBodies,
    SlowReaders,
    IdleConnections,
    Streams,
    UnknownKeys,
    WrongPasswords,
    AllConnections,
}

impl Attack {
    const ALL: [(Self, &'static str, usize); 9] = [
        (Self::None, "undisturbed", 0),
        (Self::SlowHeads, "heads without an end, as second requests", 400),
        (Self::SlowBodies, "bodies of 64 KiB without an end", 400),
        (Self::SlowReaders, "answers that are not read", 400),
        (Self::IdleConnections, "idle connections", 1000),
        (Self::Streams, "event streams of one person", 600),
        (Self::UnknownKeys, "tokens with unknown keys", 64),
        (Self::WrongPasswords, "wrong passwords from many addresses", 64),
        (Self::AllConnections, "connections until there is none left", 6000),
    ];
}

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let deployment = Deployment::open(config.deployment).await?;
    let product = deployment.product(100_000).await.ok_or("No product can be made.")?;
    let time = Duration::from_secs(config.seconds.into());
    let besieger = besieger(&deployment, &product).await.ok_or("The besieger cannot order.")?;
    println!(
        "{:<44} {:>7} {:>6} {:>6} {:>7} {:>7} {:>10}",
        "attack", "clients", "orders", "failed", "p50 ms", "max ms", "gateway MB"
    );
    let (mut good, mut undisturbed) = (true, Duration::MAX);
    for (attack, name, clients) in Attack::ALL {
        let mut attackers = Box::pin(join_all((0..clients).map(|number| besieger.attack(attack, number))));
        let customer = Box::pin(serve_customer(&deployment.gateway, &product, time));
        let (mut times, failed) = match select(attackers.as_mut(), customer).await {
            Either::Right((served, _)) => served,
            Either::Left((_, customer)) => customer.await,
        };
        // While the attackers are still there.
        let usage = measure::usage(deployment.environment).await;
        let memory = usage.get("gateway").ok_or("The gateway is not found.")?.resident / 1_000_000;
        drop(attackers);
        times.sort_unstable();
        let (p50, max) = (times.get(times.len() / 2).copied(), times.last().copied());
        let shown = |time: Option<Duration>| time.map_or("-".to_owned(), |time| time.as_millis().to_string());
        println!(
            "{name:<44} {clients:>7} {:>6} {failed:>6} {:>7} {:>7} {memory:>10}",
            times.len(),
            shown(p50),
            shown(max)
        );
        let max = max.unwrap_or(Duration::MAX);
        if attack == Attack::None {
            undisturbed = max;
        }
        good &= failed == 0 && max <= undisturbed.saturating_mul(SLOWER) && memory <= MEMORY;
    }
    println!(
        "{}: the customer must never fail, nor wait over {SLOWER} times as long as undisturbed; the gateway has {MEMORY} MB.",
        if good { "Held" } else { "NOT HELD" }
    );
    Ok(good)
}

/// A customer a second: registers, logs in, orders. Returns how long each took, and how many failed.
async fn serve_customer(gateway: &Api, product: &str, time: Duration) -> (Vec<Duration>, usize) {
    let (mut ticks, end) = (tokio::time::interval(Duration::from_secs(1)), Instant::now() + time);
    let (mut times, mut failed) = (Vec::new(), 0);
    while Instant::now() < end {
        ticks.tick().await;
        let began = Instant::now();
        let ordered = tokio::time::timeout(Duration::from_secs(20), order_once(gateway, product)).await;
        match ordered {
            Ok(Some(())) => times.push(began.elapsed()),
            _ => failed += 1,
        }
    }
    (times, failed)
}

/// Without a second try.
async fn order_once(gateway: &Api, product: &str) -> Option<()> {
    let (email, password) = (format!("{}@example.com", Uuid::now_v7()), "a long enough one");
    let person = json!({ "email": email, "name": "Somebody", "password": password });
    let login = json!({ "email": email, "password": password });
    let lines = json!({ "lines": [{ "product_id": product, "quantity": 1 }], "payment_token": "tok_visa" });
    let registered = Request::post("/api/users", Some(person)).send_once(gateway).await?;
    let tokens = Request::post("/api/sessions", Some(login)).send_once(gateway).await?;
    let gateway = gateway.with_token(tokens.body["access_token"].as_str().unwrap_or_default());
    let ordered = Request::post("/api/orders", Some(lines)).waiting(10).send_once(&gateway).await?;
    let statuses = [registered.status, tokens.status, ordered.status];
    let is_good = statuses == [201; 3] && ordered.body["status"] == "confirmed";
    if !is_good {
        eprintln!("the customer was answered {statuses:?}, {}", ordered.body["status"]);
    }
    is_good.then_some(())
}

/// Who attacks: a person with a confirmed order, and as many addresses as an attack needs.
struct Besieger {
    gateway: SocketAddr,
    token: String,
    order: String,
}

async fn besieger(deployment: &Deployment, product: &str) -> Option<Besieger> {
    let person = Customer::register(&deployment.gateway).await?;
    let lines = json!({ "lines": [{ "product_id": product, "quantity": 1 }], "payment_token": "tok_visa" });
    let ordered = person.send(&Request::post("/api/orders", Some(lines)).waiting(10)).await.reply?;
    let gateway = deployment.gateway.base.strip_prefix("http://")?.parse().ok()?;
    Some(Besieger { gateway, token: person.token(), order: ordered.body["id"].as_str()?.to_owned() })
}

impl Besieger {
    /// Never ends.
    async fn attack(&self, attack: Attack, number: usize) {
        loop {
            // Refused, reset, or answered: the attacker comes again.
            let _ = self.attack_once(attack, number).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn attack_once(&self, attack: Attack, number: usize) -> std::io::Result<()> {
        // The customer has 127.0.0.1. Two hundred attackers share an address, or each has its own.
        let address = match attack {
            Attack::WrongPasswords | Attack::UnknownKeys => number,
            _ => number / 200,
        };
        let address = Ipv4Addr::new(
            127,
            0,
            u8::try_from(1 + address / 250).unwrap_or(255),
            u8::try_from(1 + address % 250).unwrap_or(255),
        );
        let socket = TcpSocket::new_v4()?;
        socket.bind((IpAddr::V4(address), 0).into())?;
        let mut stream = socket.connect(self.gateway).await?;
        let host = "Host: shop\r\n";
        match attack {
            Attack::None => {}
            Attack::SlowHeads => {
                stream.write_all(format!("GET /health/live HTTP/1.1\r\n{host}\r\n").as_bytes()).await?;
                stream.read_u8().await?;
                stream.write_all(format!("GET / HTTP/1.1\r\nX-A: {}", "a".repeat(30_000)).as_bytes()).await?;
            }
            Attack::SlowBodies => {
                let head = format!(
                    "POST /api/users HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 65536\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&[b' '; 65_000]).await?;
            }
            Attack::SlowReaders => {
                let get = format!("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\n{host}\r\n");
                stream.write_all(get.repeat(4).as_bytes()).await?;
                return std::future::pending().await;
            }
            Attack::IdleConnections | Attack::AllConnections => {}
            Attack::Streams => {
                let Self { token, order, .. } = self;
                let get = format!(
                    "GET /api/orders/{order}/events HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n"
                );
                stream.write_all(get.as_bytes()).await?;
            }
            Attack::UnknownKeys => {
                // {"alg":"EdDSA","kid":"unknown"}, {"sub":"x"}
                let token = "eyJhbGciOiJFZERTQSIsImtpZCI6InVua25vd24ifQ.eyJzdWIiOiJ4In0.AAAA";
                let get = format!("GET /api/orders HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n");
                stream.write_all(get.repeat(20).as_bytes()).await?;
            }
            Attack::WrongPasswords => {
                let body =
                    json!({ "email": format!("{number}@example.com"), "password": "a wrong password" })
                        .to_string();
                let post = format!(
                    "POST /api/sessions HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(post.as_bytes()).await?;
                stream.read_u8().await?;
                return Ok(());
            }
        }
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut part = [0; 4096];
    while stream.read(&mut part).await? > 0 {}
    Ok(())
}
