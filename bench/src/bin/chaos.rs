//! Customers buy while a running stack is hurt in every way that it should bear; then all books are
//! compared. Prints what was done and what holds, and ends with 1 if something does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use bench::customer::Customer;
use bench::diary::Diary;
use bench::havoc::{self, Tally};
use bench::invariants::{Invariant, LATE};
use bench::rest::at_rest;
use bench::site::{Site, SiteConfig};
use bench::trade::{Market, trade};
use futures_util::future::{join, join_all};
use serde_json::Value;
use shared::config::{ConfigError, Vars};
use tokio::time::Instant;

struct Config {
    site: SiteConfig,
    orders: usize,
    time: Duration,
    customers: usize,
    seed: u64,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let seconds: u32 = vars.or("SECONDS", "180", "for how long things are broken");
        let config = Self {
            site: SiteConfig::from_vars(&mut vars),
            orders: vars.or("ORDERS", "2000", "how many orders are placed"),
            time: Duration::from_secs(seconds.into()),
            customers: vars.or("CUSTOMERS", "16", "how many buy at a time"),
            seed: vars.or("SEED", "1", "decides what is bought and what is broken, and when"),
        };
        vars.finish(config)
    }
}

/// How long a stack may take to come to rest; the longest time of a checkout is one minute.
const REST: Duration = Duration::from_secs(180);
/// Of the scarce product: fewer than are asked for.
const SCARCE: u32 = 100;

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let Config { site, orders, time, customers, seed } = config;
    let site = Site::open(site).await?;
    let begun = Instant::now();
    let customers = site.customers(customers).await.ok_or("Nobody can register.")?;
    let mut products = Vec::new();
    for stock in [100_000, 100_000, 100_000, SCARCE] {
        products.push(site.product(stock).await.ok_or("No product can be made.")?);
    }
    let (diary, stop) = (RefCell::new(Diary::default()), bench::told_to_end()?);
    let market = Market::open(orders, time, seed, products);
    let trading = join_all(customers.iter().map(|customer| trade(&market, customer, &site.admin, &diary)));
    let trading = async {
        tokio::select! {
            _ = trading => {}
            () = stop.requested() => {}
        }
    };
    let (faults, _) = join(havoc::inflict(site.ground, time, seed, &stop), trading).await;
    let traded = begun.elapsed();

    let diary = diary.into_inner();
    let ids = customers.iter().map(|Customer { id, .. }| id.clone()).collect();
    let rested = tokio::select! {
        biased;
        () = stop.requested() => return Err("It was told to end: what was under way is undone, and nothing compared.".to_owned()),
        rested = at_rest(&site, &diary, &ids, REST) => rested.ok_or("The books cannot be read.")?,
    };
    let ours = rested
        .books
        .orders
        .iter()
        .filter(|order| order["customer_id"].as_str().is_some_and(|id| ids.contains(id)));
    println!(
        "{orders} orders of {} customers in {:.0} s, at rest {:.1} s later (seed {seed})\n",
        ids.len(),
        traded.as_secs_f64(),
        rested.after.as_secs_f64(),
    );
    print(&faults, &diary, ours, &rested.invariants);
    Ok(rested.holds() && faults.values().all(|tally| tally.holds()))
}

fn print<'a>(
    faults: &BTreeMap<String, Tally>,
    diary: &Diary,
    orders: impl Iterator<Item = &'a Value>,
    invariants: &[Invariant],
) {
    for (fault, tally) in faults {
        let sign = if tally.holds() { ' ' } else { '✗' };
        print!("{sign} {fault:<58} {:>6}", tally.done);
        match tally {
            Tally { tried: 0, .. } => println!("   there was no time"),
            tally if tally.holds() => println!(),
            Tally { tried, .. } => println!("   of {tried} tries: it COULD NOT BE DONE"),
        }
    }
    let mut statuses: BTreeMap<&str, u32> = BTreeMap::new();
    let mut late = 0;
    for order in orders {
        *statuses.entry(order["status"].as_str().unwrap_or_default()).or_default() += 1;
        late += u32::from(order["reason"].as_str().is_some_and(|reason| LATE.contains(&reason)));
    }
    println!();
    for (status, count) in statuses {
        println!("  orders that ended {status:<40} {count:>6}");
    }
    println!("  {:<58} {late:>6}", "of these, rejected for time or unavailability");
    for (code, count) in diary.refusals() {
        println!("  orders refused with {:<38} {count:>6}", code);
    }
    println!("  {:<58} {:>6}", "cancelled by the customer", diary.cancelled.len());
    println!("  {:<58} {:>6}", "given back in part by the admin", diary.refunds.len());
    println!("  {:<58} {:>6}", "reads", diary.reads);
    println!("  {:<58} {:>6}", "reads that failed, sent once only", diary.reads_failed);
    println!("  {:<58} {:>6}", "requests sent again", diary.retries);
    println!("\n  {:<58} {:>6} {:>6}", "what must be true", "of", "broken");
    for invariant in invariants {
        let sign = if invariant.holds() { '✓' } else { '✗' };
        println!("{sign} {:<58} {:>6} {:>6}", invariant.promise, invariant.checked, invariant.broken.len());
        for broken in invariant.broken.iter().take(5) {
            println!("    {broken}");
        }
    }
}
