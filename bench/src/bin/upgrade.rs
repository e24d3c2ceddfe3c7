//! Upgrades a running stack, replica by replica, and takes it back, while customers order; then checks every
//! invariant. `scripts/upgrade-drill` runs it in the folder of that stack.
//!
//! The supervisor restarts a program that ends, from the current file. So a replica is upgraded
//! by replacing the file of its program and asking it to stop.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bench::client_log::ClientLog;
use bench::customer::Customer;
use bench::deployment::{Deployment, DeploymentConfig};
use bench::report;
use bench::settled::wait_until_settled;
use bench::workload::{self, Workload};
use futures_util::future::{join, join_all};
use shared::config::{ConfigError, Vars};
use shared::stop::Stop;
use tokio::time::Instant;
use xtask::{Kind, Program, programs};

struct Config {
    deployment: DeploymentConfig,
    old: PathBuf,
    new: PathBuf,
    orders: usize,
    customers: usize,
    seed: u64,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let deployment = DeploymentConfig::from_vars(&mut vars);
        let old = vars.required("OLD", "the folder of the programs to start from, and to go back to");
        let new = vars.required("NEW", "the folder of the programs to upgrade to");
        let orders = vars.or("ORDERS", "300", "how many orders are placed at least");
        let customers = vars.or("CUSTOMERS", "8", "how many order at a time");
        let seed = vars.or("SEED", "1", "decides what is ordered");
        let config = deployment.zip(old.zip(new));
        vars.finish(config.map(|(deployment, (old, new))| Self {
            deployment,
            old,
            new,
            orders,
            customers,
            seed,
        }))
    }
}

/// The programs that the supervisor starts.
const INSTALLED: &str = "bin";
/// Payment tokens that every revision knows.
const TOKENS: [&str; 6] =
    ["tok_visa", "tok_visa", "tok_flaky", "tok_declined", "tok_timeout_after_charge", "tok_capture_flaky"];
/// The planned time for the orders. If the upgrade takes longer, more orders follow at the same pace.
const ORDERING_TIME: Duration = Duration::from_secs(60);
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(60);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let Config { deployment, old, new, orders, customers, seed } = config;
    let deployment = Deployment::open(deployment).await?;
    let customers = deployment.customers(customers).await.ok_or("Nobody can register.")?;
    let product = deployment.product(1_000_000).await.ok_or("No product can be made.")?;
    let (log, interrupted) = (RefCell::new(ClientLog::default()), bench::stop_on_signals());
    let (stopper, over) = Stop::pair();
    let workload = Workload::begin(orders, ORDERING_TIME, seed, vec![product]).endless().paid_with(&TOKENS);
    let ordering =
        customers.iter().map(|customer| workload::run(&workload, customer, &deployment.admin, &log, &over));
    let upgrading = async {
        let done = up_and_down(&deployment, &old, &new, &interrupted).await;
        while done.is_ok() && log.borrow().answered() < orders && !interrupted.is_requested() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        stopper.stop();
        done
    };
    let (upgraded, _) = join(upgrading, join_all(ordering)).await;
    upgraded?;

    let log = log.into_inner();
    let ids = customers.iter().map(|Customer { id, .. }| id.clone()).collect();
    let settled = wait_until_settled(&deployment, &log, &ids, SETTLE_TIMEOUT).await;
    let settled = settled.ok_or("No snapshot can be taken.")?;
    report::print(&log, &settled, &ids);
    Ok(settled.holds())
}

/// The gateway is the last to be upgraded, and the first to go back.
async fn up_and_down(deployment: &Deployment, old: &Path, new: &Path, stop: &Stop) -> Result<(), String> {
    let begun = Instant::now();
    for program in programs().iter().rev() {
        replace(deployment, program, new, stop).await?;
    }
    println!("upgraded in {:.0} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    for program in programs() {
        replace(deployment, program, old, stop).await?;
    }
    println!("back in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Replaces a program, one replica after the other.
async fn replace(deployment: &Deployment, program: &Program, from: &Path, stop: &Stop) -> Result<(), String> {
    install(program.name, from)?;
    if program.kind == Kind::Gateway {
        install("../gateway.toml", from)?;
    }
    let replicas = deployment.environment.replicas().await;
    for replica in replicas.iter().filter(|replica| replica.service == program.name) {
        eprintln!("{}: {}", replica.name, from.display());
        let is_healthy = async || {
            let health = deployment.environment.get(replica, "/health/live", "").await;
            health.is_some() && deployment.is_healthy().await
        };
        if !deployment.environment.restart(replica, stop).await {
            return Err(format!("{} does not start again: see data/logs.", replica.name));
        }
        let begun = Instant::now();
        while !is_healthy().await {
            if begun.elapsed() > HEALTHY_TIMEOUT || stop.is_requested() {
                return Err(format!("{} is not healthy: see data/logs.", replica.name));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Replaces a file at once: a process that runs keeps the old one.
fn install(file: &str, from: &Path) -> Result<(), String> {
    let target = Path::new(INSTALLED).join(file);
    let source = from.join(target.file_name().unwrap_or_default());
    let copied = target.with_extension("new");
    let installed = fs::copy(&source, &copied).and_then(|_| fs::rename(&copied, &target));
    installed.map_err(|why| format!("{}: {why}", source.display()))
}
