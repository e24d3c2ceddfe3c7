//! Hostile clients besiege a running gateway, while an honest customer registers, logs in and orders every
//! second. Prints a row for each attack; ends with 1 if the customer failed, or waited too long, if the gateway took
//! too much memory, or if no attacker got through to it.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use bench::attacks::{ATTACKS, Attack, Attempts, Besieger};
use bench::customer::Request;
use bench::deployment::{Deployment, DeploymentConfig};
use bench::measure;
use e2e::Api;
use serde_json::json;
use shared::config::{ConfigError, Vars};
use tokio::net::TcpStream;
use tokio::time::Instant;
use uuid::Uuid;
use xtask::stack::CLIENT_TLS_PORT;

struct Config {
    deployment: DeploymentConfig,
    seconds: u32,
    slower: u32,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let seconds = vars.or("SECONDS", "12", "how long each attack lasts");
        let slower =
            vars.or("SLOWER", "3", "how many times slower than undisturbed the customer may be served");
        let deployment = DeploymentConfig::from_vars(&mut vars);
        vars.finish(deployment.map(|deployment| Self { deployment, seconds, slower }))
    }
}

/// An order that took longer is explained.
const SLOW: Duration = Duration::from_millis(300);
/// The upper limit of the gateway's memory, in MB.
const MEMORY: u64 = 150;

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let deployment = Deployment::open(config.deployment).await?;
    let product = deployment.product(100_000).await.ok_or("No product can be made.")?;
    let time = Duration::from_secs(config.seconds.into());
    let besieger = Besieger::register(&deployment.gateway, &product).await;
    let besieger = besieger.ok_or("The besieger cannot order.")?;
    println!(
        "{:<42} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6} {:>10}",
        "attack", "clients", "tried", "through", "orders", "failed", "p50 ms", "max ms", "gateway MB"
    );
    let undisturbed = serve(&deployment, &product, time).await?;
    undisturbed.print(None);
    let longest = undisturbed.max().saturating_mul(config.slower);
    let mut good = undisturbed.is_good(longest);
    let has_tls = TcpStream::connect((Ipv4Addr::LOCALHOST, CLIENT_TLS_PORT)).await.is_ok();
    for (number, attack) in ATTACKS.iter().enumerate() {
        if attack.is_http2() && !has_tls {
            continue;
        }
        let attackers = besieger.start(deployment.environment, number).await?;
        let served = serve(&deployment, &product, time).await?;
        let attempts = attackers.end().await?;
        served.print(Some((attack, &attempts)));
        good &= served.is_good(longest) && is_attack(&attempts);
    }
    println!(
        "{}: the customer must never fail, nor wait over {} times as long as undisturbed; the gateway has {MEMORY} MB;",
        if good { "Held" } else { "NOT HELD" },
        config.slower
    );
    println!("and of each attack something must get through: an attack that does not is none.");
    if !has_tls {
        println!("The attacks over HTTP/2 were left out: they need scripts/up --tls.");
    }
    Ok(good)
}

/// Whether an attempt got through. If the gateway refused all of them, nothing was attacked.
fn is_attack(attempts: &Attempts) -> bool {
    attempts.through.get() > 0
}

/// The results of the customer's orders during one attack.
struct Served {
    /// The duration of each order, shortest first.
    times: Vec<Duration>,
    failed: usize,
    /// The gateway's memory, in MB.
    memory: u64,
}

impl Served {
    fn max(&self) -> Duration {
        self.times.last().copied().unwrap_or(Duration::MAX)
    }

    fn is_good(&self, longest: Duration) -> bool {
        self.failed == 0 && self.max() <= longest && self.memory <= MEMORY
    }

    /// Prints one row of the table.
    fn print(&self, attack: Option<(&Attack, &Attempts)>) {
        let (name, clients, tried, through) = attack
            .map_or(("undisturbed", 0, 0, 0), |(attack, attempts)| {
                (attack.name, attack.clients, attempts.tried.get(), attempts.through.get())
            });
        let shown =
            |time: Option<&Duration>| time.map_or("-".to_owned(), |time| time.as_millis().to_string());
        let Self { times, failed, memory } = self;
        println!(
            "{name:<42} {clients:>7} {tried:>7} {through:>7} {:>6} {failed:>6} {:>6} {:>6} {memory:>10}",
            times.len(),
            shown(times.get(times.len() / 2)),
            shown(times.last())
        );
    }
}

/// Serves the customer for so long.
async fn serve(deployment: &Deployment, product: &str, time: Duration) -> Result<Served, String> {
    let (mut times, failed) = serve_customer(&deployment.gateway, product, time).await;
    times.sort_unstable();
    // Measured while the attackers still run.
    let usage = measure::usage(deployment.environment).await;
    let memory = usage.get("gateway").ok_or("The gateway is not found.")?.resident / 1_000_000;
    Ok(Served { times, failed, memory })
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

/// Places one order without a retry.
async fn order_once(gateway: &Api, product: &str) -> Option<()> {
    let (email, password) = (format!("{}@example.com", Uuid::now_v7()), "a long enough one");
    let person = json!({ "email": email, "name": "Somebody", "password": password });
    let login = json!({ "email": email, "password": password });
    let lines = json!({ "lines": [{ "product_id": product, "quantity": 1 }], "payment_token": "tok_visa" });
    let began = Instant::now();
    let registered = Request::post("/api/users", Some(person)).send_once(gateway).await?;
    let registered_at = began.elapsed();
    let tokens = Request::post("/api/sessions", Some(login)).send_once(gateway).await?;
    let logged_in_at = began.elapsed();
    let gateway = gateway.with_token(tokens.body["access_token"].as_str().unwrap_or_default());
    let ordered = Request::post("/api/orders", Some(lines)).waiting(10).send_once(&gateway).await?;
    if began.elapsed() > SLOW {
        eprintln!(
            "registered after {registered_at:.0?}, logged in after {logged_in_at:.0?}, ordered after {:.0?}",
            began.elapsed()
        );
    }
    let statuses = [registered.status, tokens.status, ordered.status];
    let is_good = statuses == [201; 3] && ordered.body["status"] == "confirmed";
    if !is_good {
        eprintln!("the customer was answered {statuses:?}, {}", ordered.body["status"]);
    }
    is_good.then_some(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_attack_of_which_nothing_got_through_is_none() {
        let attempts = |tried, through| Attempts { tried: Cell::new(tried), through: Cell::new(through) };
        assert!(is_attack(&attempts(400, 1)));
        assert!(!is_attack(&attempts(400, 0)) && !is_attack(&attempts(0, 0)));
    }
}
