//! Throughput of a running stack, cost of an order, and whether both stay the same with a million orders.
//!
//! Customers place orders and wait for the confirmation. After each round this prints the throughput and the
//! processor time of an order. `scripts/bench` lists what it checks.

mod round; // what one round measured
mod buyers; // customers who order
mod reads; // how long lists take
mod shop; // what is measured
mod growth; // the same at several sizes
mod node; // the shop of a peer

use std::process::ExitCode;

use bench::deployment::DeploymentConfig;
use shared::config::{ConfigError, Variable, Vars};

use round::Round;
use shop::Shop;

struct Config {
    deployment: DeploymentConfig,
    orders: usize,
    rounds: usize,
    customers: usize,
    /// Seconds.
    wait: u32,
    /// How many orders are stored when they are measured again.
    sizes: Sizes,
    node: bool,
}

/// Numbers with commas between them.
#[derive(Debug, Default)]
struct Sizes(Vec<usize>);

impl Variable for Sizes {
    fn parse(text: &str) -> Result<Self, String> {
        let numbers: Result<_, _> = text.split(',').map(str::parse).collect();
        numbers.map(Self).map_err(|_| format!("write 10000,1000000, not {text}"))
    }
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let deployment = DeploymentConfig::from_vars(&mut vars);
        let orders = vars.or("ORDERS", "3000", "how many orders are placed in a round");
        let rounds = vars.or("ROUNDS", "1", "how many rounds");
        let customers = vars.or("CUSTOMERS", "16", "how many order at a time");
        let wait = vars.or("WAIT", "10", "how many seconds a customer waits for the confirmation, or 0");
        let sizes =
            vars.optional("SIZES", "how many orders are stored when they are measured again: 10000,1000000");
        let node = vars.or("NODE", "false", "whether the shop of bench/peers/node-orders is measured, too");
        vars.finish(deployment.map(|deployment| Self {
            deployment,
            orders,
            rounds,
            customers,
            wait,
            sizes: sizes.unwrap_or_default(),
            node,
        }))
    }
}

/// Orders before the first round.
const WARM_UP: usize = 200;
/// Orders of one customer alone, after the last round.
const ALONE: usize = 100;
/// Per order at most, those that read included.
const TRANSACTIONS: f64 = 12.0;

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

/// Returns whether all checks passed.
async fn run(config: Config) -> Result<bool, String> {
    let Config { deployment, orders, rounds, customers, wait, sizes: Sizes(sizes), node } = config;
    let shop = Shop::open(deployment, customers, wait, WARM_UP, !sizes.is_empty() || node).await?;
    if !sizes.is_empty() {
        return growth::run(&shop, WARM_UP, orders, &sizes).await;
    }
    if node {
        return node::compare(&shop, orders, rounds).await;
    }
    let mut done = Vec::new();
    for number in 1..=rounds {
        let round = shop.round(orders).await?;
        if number == 1 {
            println!("{}", round.head());
        }
        println!("{}", round.row(WARM_UP + number * orders));
        done.push(round);
    }
    shop.print_deliveries().await?;
    let alone = shop.alone(ALONE).await?;
    println!(
        "one customer alone: {:.1} ms from the order to its confirmation (p50)",
        1000.0 * alone.as_secs_f64()
    );
    if let Some(last) = done.last() {
        shop.print_share(last.speed()).await?;
    }
    Ok(transactions_are_few(&done))
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
