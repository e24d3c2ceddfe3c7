//! How many orders a running stack confirms, what each costs, and whether that stays so.
//!
//! Customers order one after another and wait for the confirmation. After each round this prints the
//! throughput and the processor time of an order; with `--retention true` also what is in the tables
//! that are pruned, and makes that eight days old, so that it must be gone in the end. Ends with 1 if it
//! is not, if an order was not confirmed, if one cost over 15 % more in the last round than in the first,
//! if our programs have over 15 % more memory in the end than after the second round, or, where the database
//! counts them, if an order took more than twelve transactions.

mod round; // what one round measured
mod shop; // what is measured

use std::collections::BTreeMap;
use std::process::ExitCode;

use bench::site::SiteConfig;
use shared::config::{ConfigError, Vars};

use round::Round;
use shop::Shop;

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
            retention: vars.or("RETENTION", "false", "whether rows are made eight days old after each round"),
        };
        vars.finish(config)
    }
}

/// Orders before the first round.
const WARM_UP: usize = 200;
/// More than this is growth.
const GROWTH: f64 = 0.15;
/// What an order may cost, those that read included.
const TRANSACTIONS: f64 = 12.0;

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

/// Does the rounds, and says whether all stayed as it was.
async fn run(config: Config) -> Result<bool, String> {
    let Config { site, orders, rounds, customers, wait, retention } = config;
    let shop = Shop::open(site, customers, wait, WARM_UP).await?;
    let mut done = Vec::new();
    for number in 1..=rounds {
        let round = shop.round(orders).await?;
        if number == 1 {
            println!("{}", round.head());
        }
        println!("{}", round.row(WARM_UP + number * orders));
        done.push(round);
        if retention {
            shop.print_kept().await?;
            shop.age().await?;
        }
    }
    if retention {
        shop.pruned().await?;
        shop.print_tables().await?;
    } else {
        shop.print_deliveries().await?;
    }
    let verdicts = [is_as_cheap(&done), is_as_small(&done, &shop.resident().await), is_frugal(&done)];
    Ok(verdicts.into_iter().all(|is_well| is_well))
}

/// Prints how much dearer an order became, and says whether that is growth.
fn is_as_cheap(rounds: &[Round]) -> bool {
    let [first, .., last] = rounds else { return true };
    let growth = last.relative_cost() / first.relative_cost() - 1.0;
    println!(
        "\nFrom the first round to the last an order became {:+.1} % dearer in processor time, and {:+.1} % \
         measured in that of the gateway.",
        100.0 * (last.cost() / first.cost() - 1.0),
        100.0 * growth,
    );
    growth <= GROWTH
}

/// Prints what each program had after the second round, when every one had seen some work, and has in the
/// end; and says whether all together have as much.
fn is_as_small(rounds: &[Round], end: &BTreeMap<String, u64>) -> bool {
    let [_, second, _, ..] = rounds else { return true };
    let megabytes = |bytes: u64| bytes / 1_000_000;
    println!("\n{:<20} {:>9} {:>8}", "memory in MB", "round 2", "the end");
    for (service, bytes) in end {
        let before = second.resident.get(service).copied().unwrap_or_default();
        println!("{service:<20} {:>9} {:>8}", megabytes(before), megabytes(*bytes));
    }
    let (before, after) = (second.resident.values().sum::<u64>(), end.values().sum::<u64>());
    let growth = after as f64 / before as f64 - 1.0;
    println!("{:<20} {:>9} {:>8}   {:+.1} %", "all", megabytes(before), megabytes(after), 100.0 * growth);
    growth <= GROWTH
}

/// Says whether an order took no more transactions than it may, where somebody counts them.
fn is_frugal(rounds: &[Round]) -> bool {
    let counted = rounds.iter().filter_map(|round| round.transactions);
    let Some(most) = counted.map(|[_, all]| all).reduce(f64::max) else { return true };
    let is_frugal = most <= TRANSACTIONS;
    let verdict = if is_frugal { "no more than" } else { "MORE than" };
    println!("An order took {most:.2} transactions, {verdict} the {TRANSACTIONS} that it may.");
    is_frugal
}
