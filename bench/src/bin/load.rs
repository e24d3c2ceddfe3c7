//! A steady load while a fault is injected, and the invariants afterwards.
//!
//! Customers read, and place orders under keys, trying again under the same key until the order exists.
//! On SIGTERM this stops, waits until the stack is settled, and checks every invariant. It prints one line of
//! `name=value`: counts, and how often each invariant is broken. It ends with 1 if one is.
//! `scripts/faults` runs it.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::client_log::ClientLog;
use bench::customer::Customer;
use bench::deployment::{Deployment, DeploymentConfig};
use bench::settled::{wait_and_compare, wait_until_settled};
use bench::workload::{PlannedOrder, TOKENS, Then, place_and_follow_up, read_until};
use futures_util::future::{join, join_all};
use shared::config::{ConfigError, Vars};

struct Config {
    deployment: DeploymentConfig,
    customers: usize,
    /// See [`wait_and_compare`].
    settled_file: Option<PathBuf>,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let deployment = DeploymentConfig::from_vars(&mut vars);
        let customers = vars.or("CUSTOMERS", "4", "how many read and order at a time");
        let settled_file =
            vars.optional("SETTLED_FILE", "the versions of the orders and payments of the load before");
        vars.finish(deployment.map(|deployment| Self { deployment, customers, settled_file }))
    }
}

const BETWEEN_ORDERS: Duration = Duration::from_millis(200);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(90);

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let stop = bench::stop_on_signals();
    let deployment = Deployment::open(config.deployment).await?;
    let customers = deployment.customers(config.customers).await.ok_or("Nobody can register.")?;
    let product = deployment.product(1_000_000).await.ok_or("No product can be made.")?;
    let (log, next) = (RefCell::new(ClientLog::default()), Cell::new(0));
    let buy = async |customer: &Customer| {
        while !stop.is_requested() {
            let number = next.replace(next.get() + 1);
            let token = TOKENS[number % TOKENS.len()];
            let planned = PlannedOrder {
                number,
                product: product.clone(),
                quantity: 1,
                is_scarce: false,
                token,
                then: Then::Nothing,
            };
            place_and_follow_up(&planned, customer, &deployment.admin, &log).await;
            tokio::time::sleep(BETWEEN_ORDERS).await;
        }
    };
    println!("running");
    let each = customers.iter().map(|customer| join(read_until(customer, &log, &stop), buy(customer)));
    join_all(each).await;

    let log = log.into_inner();
    let ids = customers.iter().map(|customer| customer.id.clone()).collect();
    let settled = match &config.settled_file {
        Some(file) => wait_and_compare(&deployment, &log, &ids, SETTLE_TIMEOUT, file).await,
        None => wait_until_settled(&deployment, &log, &ids, SETTLE_TIMEOUT).await,
    };
    let settled = settled.ok_or("No snapshot can be taken.")?;
    print!(
        "gets={} gets_failed={} orders={} retries={} settled_s={:.1} broken={}",
        log.reads,
        log.reads_failed,
        log.orders.len(),
        log.retries,
        settled.after.as_secs_f64(),
        settled.invariants.iter().map(|invariant| invariant.broken.len()).sum::<usize>(),
    );
    for invariant in &settled.invariants {
        print!(" {}={}", invariant.name, invariant.broken.len());
        invariant.broken.iter().for_each(|broken| eprintln!("{}: {broken}", invariant.promise));
    }
    println!();
    Ok(settled.holds())
}
