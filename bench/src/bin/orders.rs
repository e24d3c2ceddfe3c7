//! How many orders a running stack confirms, what each costs, and whether that stays so.
//!
//! Customers order one after another and wait for the confirmation. After each round this prints the
//! throughput and the processor time of an order; with `--retention true` also what is in the tables
//! that are pruned, and makes that eight days old, so that it must be gone after the next round. Ends
//! with 1 if it is not in the end, or if an order cost over 15 % more in the last round than in the first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use bench::customer::{Customer, Errand};
use bench::database::Database;
use bench::measure::{Usage, usage};
use bench::site::{Site, SiteConfig};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use shared::config::{ConfigError, Vars};
use tokio::time::Instant;

struct Config {
    site: SiteConfig,
    orders: usize,
    rounds: usize,
    customers: usize,
    /// Seconds.
    wait: u32,
    retention: bool,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            site: SiteConfig::from_vars(&mut vars),
            orders: vars.or("ORDERS", "3000", "how many orders are placed in a round"),
            rounds: vars.or("ROUNDS", "1", "how many rounds"),
            customers: vars.or("CUSTOMERS", "16", "how many order at a time"),
            wait: vars.or("WAIT", "10", "how many seconds a customer waits for the confirmation, or 0"),
            retention: vars.or(
                "RETENTION",
                "false",
                "whether rows are made eight days older after each round",
            ),
        };
        vars.finish(config)
    }
}

/// Orders before the first round: every connection is open then.
const WARM_UP: usize = 200;
/// Longer than anything is kept that is kept for a while.
const AGE: Duration = Duration::from_secs(8 * 86_400);
/// Old rows are looked for once a minute.
const PRUNED: Duration = Duration::from_secs(180);
/// PostgreSQL's own counts are so far behind.
const BEHIND: Duration = Duration::from_secs(2);
/// What a round may take.
const LONGEST: Duration = Duration::from_secs(1800);
/// More than this in the last round than in the first is growth.
const GROWTH: f64 = 0.15;

/// A stack, and who buys there.
struct Shop {
    site: Site,
    databases: Vec<Database>,
    customers: Vec<Customer>,
    product: String,
    wait: u32,
}

/// What one round measured.
struct Round {
    time: Duration,
    /// From the request to its answer, sorted.
    latencies: Vec<Duration>,
    /// Answered before they were confirmed.
    late: usize,
    /// By service.
    cpu: BTreeMap<String, Duration>,
    resident: u64,
    /// Transactions that wrote, and all.
    transactions: Option<[i64; 2]>,
}

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await.map(|growth| growth <= GROWTH))
}

/// Does the rounds, and says how much more an order cost in the last than in the first. Machines are
/// faster now and slower then; so this is measured in what the gateway used, which stores nothing.
async fn run(config: Config) -> Result<f64, String> {
    let Config { site, orders, rounds, customers, wait, retention } = config;
    let site = Site::open(site).await?;
    let databases = Database::all(site.ground).await?;
    let customers = site.customers(customers).await.ok_or("Nobody can register.")?;
    let product = site.product(1_000_000).await.ok_or("No product can be made.")?;
    let shop = Shop { site, databases, customers, product, wait };
    shop.round(WARM_UP).await?;
    let idle = shop.idle().await;
    let mut costs = Vec::new();
    for number in 1..=rounds {
        let round = shop.round(orders).await?;
        costs.push(round.cost() / round.cost_of("gateway"));
        if number == 1 {
            println!("{}", round.head());
        }
        println!("{}", round.row(WARM_UP + number * orders, idle));
        if retention {
            shop.print_kept().await?;
            for database in &shop.databases {
                database.age(AGE).await?;
            }
        }
    }
    if retention {
        shop.pruned().await?;
        shop.print_kept().await?;
    } else {
        shop.print_deliveries().await?;
    }
    let growth = costs.last().unwrap_or(&1.0) / costs.first().unwrap_or(&1.0) - 1.0;
    if rounds > 1 {
        let growth = 100.0 * growth;
        println!(
            "From the first round to the last an order became {growth:+.1} % dearer, measured in gateways."
        );
    }
    Ok(growth)
}

impl Shop {
    async fn round(&self, orders: usize) -> Result<Round, String> {
        let (left, latencies, late) = (Cell::new(orders), RefCell::new(Vec::new()), Cell::new(0));
        let ground = self.site.ground;
        let (before, counted, begun) = (usage(ground).await, self.transactions().await, Instant::now());
        let buy = async |customer: &Customer| {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let begun = Instant::now();
                let order = self.order(customer).await.ok_or("An order was not answered.")?;
                latencies.borrow_mut().push(begun.elapsed());
                late.set(late.get() + usize::from(order["status"] != "confirmed"));
            }
            Ok::<(), String>(())
        };
        try_join_all(self.customers.iter().map(buy)).await?;
        while !self.is_done().await {
            if begun.elapsed() > LONGEST {
                return Err("Checkouts are still under way.".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (time, after) = (begun.elapsed(), usage(ground).await);
        tokio::time::sleep(BEHIND).await;
        let transactions = counted.zip(self.transactions().await);
        let mut latencies = latencies.into_inner();
        latencies.sort();
        let spent = |(service, usage): (&String, &Usage)| {
            (service.clone(), usage.cpu.saturating_sub(before.get(service).copied().unwrap_or_default().cpu))
        };
        Ok(Round {
            time,
            latencies,
            late: late.get(),
            cpu: after.iter().map(spent).collect(),
            resident: after.values().map(|usage| usage.resident).sum(),
            transactions: transactions.map(|(before, after)| [after[0] - before[0], after[1] - before[1]]),
        })
    }

    async fn order(&self, customer: &Customer) -> Option<Value> {
        let lines = json!([{ "product_id": self.product, "quantity": 1 }]);
        let body = json!({ "lines": lines, "payment_token": "tok_visa" });
        let mut errand = Errand::post("/api/orders", Some(body));
        if self.wait > 0 {
            errand = errand.waiting(self.wait);
        }
        let reply = customer.insist(&errand).await.reply?;
        (reply.status == 201).then_some(reply.body)
    }

    /// Whether no checkout is under way. Who waits for each order knows that.
    async fn is_done(&self) -> bool {
        if self.wait > 0 {
            return true;
        }
        let asked = self.site.asked("order-service", "/admin/sagas?state=running").await;
        asked.is_some_and(|asked| asked["sagas"].as_array().is_some_and(Vec::is_empty))
    }

    async fn transactions(&self) -> Option<[i64; 2]> {
        self.databases.first()?.transactions().await
    }

    /// Transactions per second without any orders.
    async fn idle(&self) -> [f64; 2] {
        const TIME: Duration = Duration::from_secs(10);
        let before = self.transactions().await;
        tokio::time::sleep(TIME).await;
        let after = self.transactions().await;
        before.zip(after).map_or([0.0; 2], |(before, after)| {
            [0, 1].map(|kind| (after[kind] - before[kind]) as f64 / TIME.as_secs_f64())
        })
    }

    /// Waits until all that has become old is gone.
    async fn pruned(&self) -> Result<(), String> {
        let begun = Instant::now();
        for database in &self.databases {
            while database.kept().await?.iter().sum::<i64>() > 0 {
                if begun.elapsed() > PRUNED {
                    return Err(format!("What is old in {} does not go.", database.name));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }

    async fn print_kept(&self) -> Result<(), String> {
        print!("        kept:");
        for database in &self.databases {
            let [outbox, inbox, keys] = database.kept().await?;
            let megabytes = database.bytes().await? as f64 / 1e6;
            print!("  {}: outbox {outbox}, inbox {inbox}, keys {keys}, {megabytes:.1} MB;", database.name);
        }
        let resident: u64 = usage(self.site.ground).await.values().map(|usage| usage.resident).sum();
        println!("  our programs {} MB", resident / 1_000_000);
        Ok(())
    }

    async fn print_deliveries(&self) -> Result<(), String> {
        let [orders, payments] = &self.databases[..] else { return Ok(()) };
        let commands = orders.deliveries(payments).await?;
        let answers = payments.deliveries(orders).await?;
        for (what, mut times) in [("a command", commands), ("its answer", answers)] {
            times.sort_unstable();
            let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
            println!("{what}: {} ms from written to handled (p50), {} ms (p99)", at(50), at(99));
        }
        Ok(())
    }
}

impl Round {
    /// Milliseconds of processor time for one order, of all programs.
    fn cost(&self) -> f64 {
        self.cpu.keys().map(|service| self.cost_of(service)).sum()
    }

    fn cost_of(&self, service: &str) -> f64 {
        let cpu = self.cpu.get(service).copied().unwrap_or_default();
        1000.0 * cpu.as_secs_f64() / self.latencies.len() as f64
    }

    fn head(&self) -> String {
        let mut head =
            format!("{:>8} {:>9} {:>7} {:>7} {:>5}", "stored", "orders/s", "p50 ms", "p99 ms", "late");
        for service in self.cpu.keys() {
            head.push_str(&format!(" {service:>15}"));
        }
        head.push_str(&format!(" {:>7} {:>7}", "all ms", "MB"));
        if self.transactions.is_some() {
            head.push_str(&format!(" {:>7} {:>7}", "writes", "all tx"));
        }
        head
    }

    fn row(&self, stored: usize, idle: [f64; 2]) -> String {
        let (orders, seconds) = (self.latencies.len() as f64, self.time.as_secs_f64());
        let at = |share: usize| {
            let latency = self.latencies.get(self.latencies.len() * share / 100).copied();
            latency.unwrap_or_default().as_secs_f64() * 1000.0
        };
        let mut row =
            format!("{stored:>8} {:>9.1} {:>7.0} {:>7.0} {:>5}", orders / seconds, at(50), at(99), self.late);
        for service in self.cpu.keys() {
            row.push_str(&format!(" {:>15.2}", self.cost_of(service)));
        }
        row.push_str(&format!(" {:>7.2} {:>7}", self.cost(), self.resident / 1_000_000));
        if let Some(transactions) = self.transactions {
            for (count, idle) in transactions.iter().zip(idle) {
                row.push_str(&format!(
                    " {:>7.2}",
                    (*count as f64 - idle * (seconds + BEHIND.as_secs_f64())) / orders
                ));
            }
        }
        row
    }
}
