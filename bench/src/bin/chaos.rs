//! Customers order while faults are injected into a running stack; then every invariant is checked. Prints
//! both, and ends with 1 if a fault could not be injected or an invariant is broken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use bench::client_log::ClientLog;
use bench::customer::Customer;
use bench::deployment::{Deployment, DeploymentConfig};
use bench::faults::{self, Tally};
use bench::lab::{FaultResult, Lab};
use bench::report;
use bench::settled::wait_until_settled;
use bench::workload::{self, ALTERED, TOKENS, Workload};
use futures_util::future::{join, join_all};
use shared::config::{ConfigError, Vars};
use shared::stop::Stop;
use tokio::time::Instant;

struct Config {
    deployment: DeploymentConfig,
    orders: usize,
    time: Duration,
    customers: usize,
    seed: u64,
    altered: bool,
    lab_faults: bool,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let seconds: u32 = vars.or("SECONDS", "180", "for how long faults are injected");
        let deployment = DeploymentConfig::from_vars(&mut vars);
        let orders = vars.or("ORDERS", "2000", "how many orders are placed");
        let time = Duration::from_secs(seconds.into());
        let customers = vars.or("CUSTOMERS", "16", "how many order at a time");
        let seed = vars.or("SEED", "1", "decides what is ordered, and which faults are injected when");
        let altered = vars.or("ALTERED", "false", "whether most cards are those whose answers are altered");
        let lab_faults = vars.or(
            "LAB_FAULTS",
            "false",
            "whether the faults are those of the failure lab, started at the console",
        );
        let config = deployment.map(|deployment| Self {
            deployment,
            orders,
            time,
            customers,
            seed,
            altered,
            lab_faults,
        });
        vars.finish(config)
    }
}

/// A checkout times out after a minute.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);
/// The initial stock of one product: less than is ordered.
const SCARCE: u32 = 100;

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let Config { deployment, orders, time, customers, seed, altered, lab_faults } = config;
    let deployment = Deployment::open(deployment).await?;
    let lab = match lab_faults {
        true => Some(Lab::open(&deployment.admin, deployment.console.clone()).await?),
        false => None,
    };
    let begun = Instant::now();
    let customers = deployment.customers(customers).await.ok_or("Nobody can register.")?;
    let mut products = Vec::new();
    for stock in [100_000, 100_000, 100_000, SCARCE] {
        products.push(deployment.product(stock).await.ok_or("No product can be made.")?);
    }
    let (log, stop) = (RefCell::new(ClientLog::default()), bench::stop_on_signals());
    let tokens: &[_] = if altered { &ALTERED } else { &TOKENS };
    let workload = Workload::begin(orders, time, seed, products).paid_with(tokens);
    // The faults of the lab need their time, and customers order as long as they run.
    let workload = if lab_faults { workload.endless() } else { workload };
    let (stopper, over) = Stop::pair();
    let ordering =
        customers.iter().map(|customer| workload::run(&workload, customer, &deployment.admin, &log, &over));
    let ordering = async {
        tokio::select! {
            _ = join_all(ordering) => {}
            () = stop.requested() => {}
        }
    };
    let injecting = async {
        let Some(lab) = lab else {
            return Ok(Results::External(faults::inject(deployment.environment, time, seed, &stop).await));
        };
        let orders_now = || (workload.started(), log.borrow().answered());
        let results = lab.inject(time, seed, orders_now, &stop).await;
        while results.is_ok() && log.borrow().answered() < orders && !stop.is_requested() {
            tokio::time::sleep(POLL).await;
        }
        stopper.stop();
        results.map(Results::Lab)
    };
    let (faults, ()) = join(injecting, ordering).await;
    let (faults, time) = (faults?, begun.elapsed());

    let log = log.into_inner();
    let ids = customers.iter().map(|Customer { id, .. }| id.clone()).collect();
    let settled = tokio::select! {
        biased;
        () = stop.requested() => return Err("Interrupted: the current fault is undone, and no invariant was checked.".to_owned()),
        settled = wait_until_settled(&deployment, &log, &ids, SETTLE_TIMEOUT) => settled.ok_or("No snapshot can be taken.")?,
    };
    println!(
        "{} orders of {} customers in {:.0} s, settled {:.1} s later (seed {seed})\n",
        log.answered(),
        ids.len(),
        time.as_secs_f64(),
        settled.after.as_secs_f64(),
    );
    faults.print();
    report::print(&log, &settled, &ids);
    let mut shared = 0;
    for database in [&deployment.database("orders").await?, &deployment.payments] {
        let batches = database.batches().await?;
        report::print_batches(database.name, &batches);
        shared += batches.range(2..).map(|(_, count)| count).sum::<i64>();
    }
    if shared == 0 {
        return Err("No events shared a transaction: group commit was not tested.".to_owned());
    }
    if altered && settled.snapshot.differences.is_empty() {
        return Err("The card network altered no amount: nothing was proved.".to_owned());
    }
    Ok(settled.holds() && faults.hold())
}

/// What became of the faults.
enum Results {
    /// Those that this program injects: kills, pauses, restarts, locks.
    External(BTreeMap<String, Tally>),
    /// Those of the failure lab, which the programs inject themselves.
    Lab(Vec<FaultResult>),
}

impl Results {
    fn hold(&self) -> bool {
        match self {
            Self::External(tallies) => tallies.values().all(|tally| tally.holds()),
            Self::Lab(results) => results.iter().all(|result| result.outcome.is_ok()),
        }
    }

    fn print(&self) {
        match self {
            Self::External(tallies) => tallies.iter().for_each(|(fault, tally)| print_tally(fault, *tally)),
            Self::Lab(results) => {
                println!("  {:<58} {:>6} {:>8}", "fault of the lab", "orders", "injected");
                results.iter().for_each(print_result);
            }
        }
    }
}

fn print_tally(fault: &str, tally: Tally) {
    let sign = if tally.holds() { ' ' } else { '✗' };
    print!("{sign} {fault:<58} {:>6}", tally.done);
    match tally {
        Tally { tried: 0, .. } => println!("   no time left"),
        tally if tally.holds() => println!(),
        Tally { tried, .. } => println!("   of {tried} tries: COULD NOT BE INJECTED"),
    }
}

fn print_result(FaultResult { fault, orders, outcome }: &FaultResult) {
    match outcome {
        Ok(times) => println!("  {fault:<58} {orders:>6} {times:>8}"),
        Err(why) => println!("✗ {fault:<58} {orders:>6}            {}", why.to_uppercase()),
    }
}
