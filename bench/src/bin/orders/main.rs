//! Throughput of a running stack, cost of an order, and whether both stay the same.
//!
//! Customers place orders and wait for the confirmation. After each round this prints the throughput and the
//! processor time of an order; with `--retention true` also the rows of the pruned tables, which it then
//! makes eight days old. `scripts/bench` lists what it checks.

mod round; // what one round measured
mod shop; // what is measured

use std::collections::BTreeMap;
use std::process::ExitCode;

use bench::deployment::DeploymentConfig;
use shared::config::{ConfigError, Vars};

use round::Round;
use shop::Shop;

struct Config {
    deployment: DeploymentConfig,
    orders: usize,
    rounds: usize,
    customers: usize,
    /// Seconds.
    wait: u32,
    retention: bool,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let deployment = DeploymentConfig::from_vars(&mut vars);
        let orders = vars.or("ORDERS", "3000", "how many orders are placed in a round");
        let rounds = vars.or("ROUNDS", "1", "how many rounds");
        let customers = vars.or("CUSTOMERS", "16", "how many order at a time");
        let wait = vars.or("WAIT", "10", "how many seconds a customer waits for the confirmation, or 0");
        let retention =
            vars.or("RETENTION", "false", "whether rows are made eight days old after each round");
        vars.finish(deployment.map(|deployment| Self {
            deployment,
            orders,
            rounds,
            customers,
            wait,
            retention,
        }))
    }
}

/// Orders before the first round.
const WARM_UP: usize = 200;
/// Orders of one customer alone, after the last round.
const ALONE: usize = 100;
/// In cost or memory, at most.
const GROWTH: f64 = 0.15;
/// Per order at most, those that read included.
const TRANSACTIONS: f64 = 12.0;

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

/// Returns whether all checks passed.
async fn run(config: Config) -> Result<bool, String> {
    let Config { deployment, orders, rounds, customers, wait, retention } = config;
    let shop = Shop::open(deployment, customers, wait, WARM_UP).await?;
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
        let alone = shop.alone(ALONE).await?;
        println!(
            "one customer alone: {:.1} ms from the order to its confirmation (p50)",
            1000.0 * alone.as_secs_f64()
        );
        if let Some(last) = done.last() {
            shop.print_share(last.speed()).await?;
        }
    }
    let verdicts =
        [cost_is_stable(&done), memory_is_stable(&done, &shop.resident().await), transactions_are_few(&done)];
    Ok(verdicts.into_iter().all(|is_well| is_well))
}

/// Prints how much the cost of an order grew, and checks it.
fn cost_is_stable(rounds: &[Round]) -> bool {
    let [first, .., last] = rounds else { return true };
    let growth = last.relative_cost() / first.relative_cost() - 1.0;
    println!(
        "\nFrom the first round to the last, the processor time of an order changed by {:+.1} %, and by {:+.1} % \
         relative to that of the gateway.",
        100.0 * (last.cost() / first.cost() - 1.0),
        100.0 * growth,
    );
    growth <= GROWTH
}

/// Prints the memory of each program after the second round and in the end, and checks the growth of the sum.
fn memory_is_stable(rounds: &[Round], end: &BTreeMap<String, u64>) -> bool {
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

/// Checks the transactions of an order, on PostgreSQL.
fn transactions_are_few(rounds: &[Round]) -> bool {
    let counted = rounds.iter().filter_map(|round| round.transactions);
    let Some(most) = counted.map(|[_, all]| all).reduce(f64::max) else { return true };
    let are_few = most <= TRANSACTIONS;
    let verdict = if are_few { "no more than" } else { "MORE than" };
    println!("An order took {most:.2} transactions, {verdict} the {TRANSACTIONS} allowed.");
    are_few
}
