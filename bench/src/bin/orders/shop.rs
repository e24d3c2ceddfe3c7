//! Places orders round by round, and reads what they cost.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::customer::Request;
use bench::database::Database;
use bench::database::books::Checked;
use bench::database::copies::Originals;
use bench::deployment::{Deployment, DeploymentConfig};
use bench::environment::{Environment, Replica};
use bench::measure::{Usage, age, usage};
use e2e::Api;
use shared::stop::Stop;
use tokio::time::Instant;
use xtask::programs;

use crate::buyers::Buyers;
use crate::reads::Reader;
use crate::round::Round;

/// Longer than the retention of any pruned table.
const AGE: Duration = Duration::from_secs(8 * 86_400);
/// Services prune once a minute.
const PRUNE_TIMEOUT: Duration = Duration::from_secs(180);
/// An idle connection of PostgreSQL reports its transactions after ten seconds.
const STATISTICS_DELAY: Duration = Duration::from_secs(11);
/// Maximum seconds until the order of a customer alone is confirmed.
const ALONE_TIMEOUT: u32 = 10;
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time until all orders of a round are settled.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1800);

/// What is left after a service was killed under load.
pub(crate) struct Crash {
    /// Orders that a customer was answered with.
    pub(crate) answered: i64,
    pub(crate) stored: i64,
    /// Neither confirmed nor rejected.
    pub(crate) open: i64,
    pub(crate) charged: i64,
}

pub(crate) struct Shop {
    deployment: Deployment,
    /// Those that grow with every order: of order-service, of payment-service, and perhaps of the card network.
    databases: Vec<Database>,
    buyers: Buyers,
    /// Transactions per second without any orders.
    idle: [f64; 2],
}

impl Shop {
    /// Finds the stack, and places so many orders that every connection is open.
    pub(crate) async fn open(
        deployment: DeploymentConfig,
        customers: usize,
        wait: u32,
        warm_up: usize,
        with_network: bool,
    ) -> Result<Self, String> {
        let deployment = Deployment::open(deployment).await?;
        let mut databases = Vec::new();
        for name in ["orders", "payments"].into_iter().chain(with_network.then_some("card-network")) {
            databases.push(deployment.database(name).await?);
        }
        let customers = deployment.customers(customers).await.ok_or("Nobody can register.")?;
        let product = deployment.product(1_000_000).await.ok_or("No product can be made.")?;
        let buyers = Buyers { customers, product, wait };
        let shop = Self { deployment, databases, buyers, idle: [0.0; 2] };
        shop.round(warm_up).await?;
        Ok(Self { idle: shop.idle().await, ..shop })
    }

    /// Places so many orders, each of which must be confirmed.
    pub(crate) async fn round(&self, orders: usize) -> Result<Round, String> {
        let (before, counted) = (usage(self.deployment.environment).await, self.transactions().await);
        let (begun, now) = (Instant::now(), SystemTime::now());
        let (mut latencies, late) = self.buyers.place(orders).await?;
        self.done(begun).await?;
        let after = usage(self.deployment.environment).await;
        let transactions = match counted {
            Some(before) => self.transactions_of_one(orders, before, begun).await,
            None => None,
        };
        let (confirmed, time) = self.databases[0].confirmed(now).await?;
        if confirmed != orders {
            return Err(format!("{confirmed} of {orders} orders of this round were confirmed."));
        }
        latencies.sort();
        let spent = |(service, usage): (&String, &Usage)| {
            (service.clone(), usage.cpu.saturating_sub(before.get(service).copied().unwrap_or_default().cpu))
        };
        let cpu = after.iter().map(spent).collect();
        Ok(Round { time, latencies, late, cpu, resident: resident(&after), transactions })
    }

    /// The median time from the request to the confirmation, of one customer who orders alone.
    pub(crate) async fn alone(&self, orders: usize) -> Result<Duration, String> {
        let customer = self.buyers.customers.first().ok_or("There is no customer.")?;
        let mut latencies = Vec::with_capacity(orders);
        for _ in 0..orders {
            let begun = Instant::now();
            let order =
                self.buyers.order(customer, ALONE_TIMEOUT).await.ok_or("An order was not answered.")?;
            latencies.push(begun.elapsed());
            if order["status"] != "confirmed" {
                return Err("An order was not confirmed in time.".to_owned());
            }
        }
        latencies.sort();
        Ok(latencies.get(orders / 2).copied().unwrap_or_default())
    }

    /// Prints the share of an order in what the server of PostgreSQL can do.
    pub(crate) async fn print_share(&self, orders_per_second: f64) -> Result<(), String> {
        if let Some(tps) = self.databases[0].pgbench().await? {
            let share = tps / orders_per_second;
            println!(
                "pgbench -N -M prepared -c 16 -s 10: {tps:.0} transactions/s in the same container; \
                 an order took as long as {share:.1} of them."
            );
        }
        Ok(())
    }

    /// Those of the services.
    fn ours(&self) -> &[Database] {
        &self.databases[..2]
    }

    /// Waits until no checkout is running.
    async fn done(&self, begun: Instant) -> Result<(), String> {
        loop {
            let reply = self.deployment.get("order-service", "/admin/sagas?state=running").await;
            if reply.is_some_and(|reply| reply["sagas"].as_array().is_some_and(Vec::is_empty)) {
                return Ok(());
            }
            if begun.elapsed() > ROUND_TIMEOUT {
                return Err("Checkouts are still running.".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn transactions(&self) -> Option<[i64; 2]> {
        self.databases[0].transactions().await
    }

    async fn transactions_of_one(&self, orders: usize, before: [i64; 2], begun: Instant) -> Option<[f64; 2]> {
        tokio::time::sleep(STATISTICS_DELAY).await;
        let (after, seconds) = (self.transactions().await?, begun.elapsed().as_secs_f64());
        Some([0, 1].map(|kind| {
            let all = (after[kind] - before[kind]) as f64;
            (all - self.idle[kind] * seconds) / orders as f64
        }))
    }

    async fn idle(&self) -> [f64; 2] {
        const TIME: Duration = Duration::from_secs(20);
        let Some(before) = self.transactions().await else { return [0.0; 2] };
        tokio::time::sleep(TIME).await;
        let after = self.transactions().await.unwrap_or(before);
        [0, 1].map(|kind| (after[kind] - before[kind]) as f64 / TIME.as_secs_f64())
    }

    /// Bytes of memory, of our programs, by service.
    pub(crate) async fn resident(&self) -> BTreeMap<String, u64> {
        resident(&usage(self.deployment.environment).await)
    }

    /// The orders that were placed between these times, with one of the product each.
    pub(crate) fn originals(&self, begin: SystemTime, end: SystemTime) -> Originals {
        let ms = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        let (product, admin) = (self.buyers.product.clone(), self.deployment.admin.id.clone());
        Originals { placed: ms(begin)..ms(end) + 1, product, admin }
    }

    /// Makes the copies with these numbers of all originals.
    pub(crate) async fn copy(&self, originals: &Originals, numbers: Range<u32>) -> Result<(), String> {
        for database in &self.databases {
            database.copy(originals, numbers.clone()).await?;
        }
        Ok(())
    }

    pub(crate) async fn tidy(&self) -> Result<(), String> {
        for database in &self.databases {
            database.tidy().await?;
        }
        Ok(())
    }

    pub(crate) async fn reader(&self) -> Result<Reader, String> {
        let customer = self.buyers.customers.first().ok_or("There is no customer.")?;
        for person in [customer, &self.deployment.admin] {
            // The token may have expired: this request renews it.
            person.send_once(&Request::get("/api/users/me")).await.ok_or("Nobody can log in.")?;
        }
        Ok(Reader {
            orders: self.replica("order-service").await?.1,
            payments: self.replica("payment-service").await?.1,
            customer: customer.token(),
            admin: self.deployment.admin.token(),
        })
    }

    /// The first replica of a service, and its own port.
    async fn replica(&self, service: &str) -> Result<(Replica, Api), String> {
        let environment = self.deployment.environment;
        let mut replicas = environment.replicas().await.into_iter();
        let replica = replicas.find(|replica| replica.service == service);
        let replica = replica.ok_or_else(|| format!("There is no {service}."))?;
        let api = environment.api(&replica).await.ok_or_else(|| format!("{service} has no address."))?;
        Ok((replica, api))
    }

    /// Restarts a replica. Returns the time from the start of its process until it was ready.
    pub(crate) async fn start(&self, service: &str) -> Result<Duration, String> {
        let environment = self.deployment.environment;
        let (replica, _) = self.replica(service).await?;
        let (_stopper, stop) = Stop::pair();
        if !environment.restart(&replica, &stop).await {
            return Err(format!("{service} does not restart."));
        }
        // A container has another address now.
        let api = environment.api(&replica).await.ok_or_else(|| format!("{service} has no address."))?;
        let begun = Instant::now();
        while api.try_get("/health/ready").await.is_none_or(|reply| reply.status != 200) {
            if begun.elapsed() > START_TIMEOUT {
                return Err(format!("{service} does not become ready."));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let age = environment.processes(&replica).await.into_iter().filter_map(age).max();
        age.ok_or_else(|| format!("{service} has no process."))
    }

    pub(crate) fn buyers(&self) -> &Buyers {
        &self.buyers
    }

    pub(crate) fn environment(&self) -> Environment {
        self.deployment.environment
    }

    pub(crate) async fn database(&self, name: &'static str) -> Result<Database, String> {
        self.deployment.database(name).await
    }

    /// The address of the card network.
    pub(crate) async fn card_network(&self) -> Result<String, String> {
        Ok(self.replica("card-network").await?.1.base)
    }

    /// Makes empty databases for a peer, and returns the URL of their server.
    pub(crate) async fn peer_databases(&self, names: &[&str]) -> Result<String, String> {
        let environment = self.deployment.environment;
        let mut replicas = environment.replicas().await.into_iter();
        let server = replicas.find(|replica| replica.service == "postgres");
        let server = server.ok_or("The peer needs PostgreSQL: add --compose.")?;
        let host = environment.address(&server).await.ok_or("PostgreSQL has no address.")?;
        self.databases[0].add_peer(names, &host).await
    }

    pub(crate) async fn forget_peer(&self, names: &[&str]) -> Result<(), String> {
        self.databases[2].forget_charges().await?;
        self.databases[0].drop_peer(names).await
    }

    /// Kills a replica of order-service after this time, while orders are placed.
    pub(crate) async fn crash(&self, orders: usize, after: Duration) -> Result<Crash, String> {
        let [ours, _, network] = &self.databases[..] else {
            return Err("There are too few databases.".to_owned());
        };
        let ([stored, open], charged) = (ours.orders().await?, network.charges(false).await?);
        let (replica, _) = self.replica("order-service").await?;
        let (_stopper, stop) = Stop::pair();
        let kill = async {
            tokio::time::sleep(after).await;
            self.deployment.environment.kill(&replica, &stop).await
        };
        let begun = Instant::now();
        let (placed, killed) = futures_util::join!(self.buyers.place(orders), kill);
        if !killed {
            return Err("A replica of order-service cannot be killed.".to_owned());
        }
        self.done(begun).await?;
        let [stored_now, open_now] = ours.orders().await?;
        Ok(Crash {
            answered: placed?.0.len() as i64,
            stored: stored_now - stored,
            open: open_now - open,
            charged: network.charges(false).await? - charged,
        })
    }

    /// Prints what was checked in the databases, and returns whether all of it holds.
    pub(crate) async fn print_books(&self) -> Result<bool, String> {
        let (mut broken, mut paid) = (0, Vec::new());
        println!("  {:<62} {:>9} {:>7}", "the databases hold", "checked", "broken");
        for database in &self.databases {
            for Checked { promise, rows, broken: rows_broken } in database.check().await? {
                let sign = if rows_broken == 0 { '✓' } else { '✗' };
                println!("{sign} {promise:<62} {rows:>9} {rows_broken:>7}");
                broken += rows_broken;
            }
            paid.push(database.paid().await?);
        }
        let agree = paid.iter().all(|one| one == &paid[0]);
        let sign = if agree { '✓' } else { '✗' };
        println!("{sign} orders, payments and charges agree in number and amount: {paid:?}");
        Ok(broken == 0 && agree)
    }

    /// Makes the rows of all pruned tables older than their retention.
    pub(crate) async fn age(&self) -> Result<(), String> {
        for database in self.ours() {
            database.age(AGE).await?;
        }
        Ok(())
    }

    /// How long it takes until all of them are deleted.
    pub(crate) async fn pruned(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        for database in self.ours() {
            while database.kept().await?.iter().sum::<i64>() > 0 {
                if begun.elapsed() > PRUNE_TIMEOUT {
                    return Err(format!("Old rows in {} are not pruned.", database.name));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(begun.elapsed())
    }

    /// Prints how many rows the pruned tables have.
    pub(crate) async fn print_kept(&self) -> Result<(), String> {
        print!("\nkept:");
        for database in self.ours() {
            let [outbox, inbox, keys] = database.kept().await?;
            let megabytes = database.bytes().await? as f64 / 1e6;
            print!("  {}: outbox {outbox}, inbox {inbox}, keys {keys}, {megabytes:.1} MB;", database.name);
        }
        println!();
        Ok(())
    }

    /// Prints every table that has rows or is pruned.
    pub(crate) async fn print_tables(&self) -> Result<(), String> {
        println!("\n{:<10} {:<20} {:>9} {:>8}", "database", "table", "rows", "MB");
        for name in programs().iter().filter_map(|program| program.database) {
            let database = self.deployment.database(name).await?;
            let tables = database.tables().await?;
            for table in tables.iter().filter(|table| table.rows > 0 || table.is_pruned()) {
                let megabytes = table.bytes as f64 / 1e6;
                println!("{:<10} {:<20} {:>9} {megabytes:>8.1}", database.name, table.name, table.rows);
            }
        }
        Ok(())
    }

    /// Prints how long messages between the services take.
    pub(crate) async fn print_deliveries(&self) -> Result<(), String> {
        let [orders, payments, ..] = &self.databases[..] else { return Ok(()) };
        let commands = orders.deliveries(payments).await?;
        let replies = payments.deliveries(orders).await?;
        for (what, mut times) in [("a command", commands), ("its answer", replies)] {
            times.sort_unstable();
            let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
            println!("{what}: {} ms from written to handled (p50), {} ms (p99)", at(50), at(99));
        }
        Ok(())
    }
}

fn resident(usage: &BTreeMap<String, Usage>) -> BTreeMap<String, u64> {
    let ours = usage.iter().filter(|(_, usage)| usage.resident > 0);
    ours.map(|(service, usage)| (service.clone(), usage.resident)).collect()
}
