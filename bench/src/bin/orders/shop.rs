//! Places orders round by round, and reads what they cost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bench::customer::{Customer, Request};
use bench::database::Database;
use bench::deployment::{Deployment, DeploymentConfig};
use bench::measure::{Usage, usage};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use xtask::programs;

use crate::round::Round;

/// Longer than the retention of any pruned table.
const AGE: Duration = Duration::from_secs(8 * 86_400);
/// Services prune once a minute.
const PRUNE_TIMEOUT: Duration = Duration::from_secs(180);
/// An idle connection of PostgreSQL reports its transactions after ten seconds.
const STATISTICS_DELAY: Duration = Duration::from_secs(11);
/// In seconds, until the order of a customer alone is confirmed.
const ALONE_TIMEOUT: u32 = 10;
/// Until all orders of a round are settled.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1800);

pub(crate) struct Shop {
    deployment: Deployment,
    /// Those that grow with every order: of order-service and of payment-service.
    databases: [Database; 2],
    customers: Vec<Customer>,
    product: String,
    /// For how many seconds a customer waits for the confirmation.
    wait: u32,
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
    ) -> Result<Self, String> {
        let deployment = Deployment::open(deployment).await?;
        let orders = deployment.database("orders").await?;
        let databases = [orders, deployment.database("payments").await?];
        let customers = deployment.customers(customers).await.ok_or("Nobody can register.")?;
        let product = deployment.product(1_000_000).await.ok_or("No product can be made.")?;
        let shop = Self { deployment, databases, customers, product, wait, idle: [0.0; 2] };
        shop.round(warm_up).await?;
        Ok(Self { idle: shop.idle().await, ..shop })
    }

    /// Places so many orders, each of which must be confirmed.
    pub(crate) async fn round(&self, orders: usize) -> Result<Round, String> {
        let (before, counted) = (usage(self.deployment.environment).await, self.transactions().await);
        let (begun, now) = (Instant::now(), SystemTime::now());
        let (mut latencies, late) = self.placed(orders).await?;
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
        let customer = self.customers.first().ok_or("There is no customer.")?;
        let mut latencies = Vec::with_capacity(orders);
        for _ in 0..orders {
            let begun = Instant::now();
            let order = self.order(customer, ALONE_TIMEOUT).await.ok_or("An order was not answered.")?;
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

    /// The latency of each order, and how many were answered before they were confirmed.
    async fn placed(&self, orders: usize) -> Result<(Vec<Duration>, usize), String> {
        let (left, latencies, late) = (Cell::new(orders), RefCell::new(Vec::new()), Cell::new(0));
        let buy = async |customer: &Customer| {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let begun = Instant::now();
                let order = self.order(customer, self.wait).await.ok_or("An order was not answered.")?;
                latencies.borrow_mut().push(begun.elapsed());
                late.set(late.get() + usize::from(order["status"] != "confirmed"));
            }
            Ok::<(), String>(())
        };
        try_join_all(self.customers.iter().map(buy)).await?;
        Ok((latencies.into_inner(), late.get()))
    }

    /// `wait`: how many seconds the customer waits for the confirmation, or 0.
    async fn order(&self, customer: &Customer, wait: u32) -> Option<Value> {
        let lines = json!([{ "product_id": self.product, "quantity": 1 }]);
        let body = json!({ "lines": lines, "payment_token": "tok_visa" });
        let mut request = Request::post("/api/orders", Some(body));
        if wait > 0 {
            request = request.waiting(wait);
        }
        let reply = customer.send(&request).await.reply?;
        (reply.status == 201).then_some(reply.body)
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

    /// Makes the rows of all pruned tables older than their retention.
    pub(crate) async fn age(&self) -> Result<(), String> {
        for database in &self.databases {
            database.age(AGE).await?;
        }
        Ok(())
    }

    /// Waits until all of them are deleted.
    pub(crate) async fn pruned(&self) -> Result<(), String> {
        let begun = Instant::now();
        for database in &self.databases {
            while database.kept().await?.iter().sum::<i64>() > 0 {
                if begun.elapsed() > PRUNE_TIMEOUT {
                    return Err(format!("Old rows in {} are not pruned.", database.name));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }

    /// Prints how many rows the pruned tables have.
    pub(crate) async fn print_kept(&self) -> Result<(), String> {
        print!("        kept:");
        for database in &self.databases {
            let [outbox, inbox, keys] = database.kept().await?;
            let megabytes = database.bytes().await? as f64 / 1e6;
            print!("  {}: outbox {outbox}, inbox {inbox}, keys {keys}, {megabytes:.1} MB;", database.name);
        }
        println!("  our programs {} MB", self.resident().await.values().sum::<u64>() / 1_000_000);
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
        let [orders, payments] = &self.databases;
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
