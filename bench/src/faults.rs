//! Fault injection: one fault after another, in an order that a seed decides.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use shared::db::{Db, DbConfig, Migrations};
use shared::stop::Stop;
use tokio::time::Instant;
use xtask::stack::healthy_replicas;
use xtask::{Kind, programs, services};

use crate::environment::{Environment, Replica};

const HEALTHY_TIMEOUT: Duration = Duration::from_secs(60);
const LOCK_TIME: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// One replica crashes.
    Kill(&'static str),
    /// One replica is paused, for longer than any client waits.
    Pause(&'static str),
    /// Every replica is restarted, one after another, as a deployment would.
    RollingRestart(&'static str),
    /// A server is restarted.
    Restart(&'static str),
    /// Another process holds the write lock of an SQLite database.
    Lock(&'static str),
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Kill(service) => format!("{service}: one killed"),
            Self::Pause(service) => format!("{service}: one paused"),
            Self::RollingRestart(service) => format!("{service}: rolling restart"),
            Self::Restart(server) => format!("{server}: restarted"),
            Self::Lock(database) => format!("{database}.db: locked for 3 s"),
        }
    }
}

/// Every fault that is possible in an environment, once.
fn all_faults(environment: Environment) -> Vec<Fault> {
    let mut faults = Vec::new();
    for program in programs() {
        let name = program.name;
        faults.push(Fault::Kill(name));
        match program.kind {
            // Pausing it would only make every client wait.
            Kind::Gateway => {}
            // A tool is paused too, because nothing may wait for it.
            Kind::External | Kind::Tool => faults.push(Fault::Pause(name)),
            Kind::Service => faults.extend([Fault::Pause(name), Fault::RollingRestart(name)]),
        }
    }
    match environment {
        Environment::Embedded => {
            // PostgreSQL has no database file here.
            let databases = services().filter_map(|service| service.database);
            faults.extend(databases.filter(|database| Path::new(&file(database)).exists()).map(Fault::Lock));
        }
        Environment::Compose => faults.extend(["postgres", "nats", "consul"].map(Fault::Restart)),
    }
    faults
}

/// Counts of the tried and of the injected faults.
#[derive(Default, Clone, Copy)]
pub struct Tally {
    pub tried: u32,
    pub done: u32,
}

impl Tally {
    pub fn holds(self) -> bool {
        self.done == self.tried
    }
}

/// Injects faults until `time` is over, and counts them by name. Each kind comes once before any comes
/// again: a kind that was never tried had no time. On `stop`, the current fault is undone first.
pub async fn inject(
    environment: Environment,
    time: Duration,
    seed: u64,
    stop: &Stop,
) -> BTreeMap<String, Tally> {
    let (begun, mut random) = (Instant::now(), StdRng::seed_from_u64(seed));
    let mut tallies: BTreeMap<_, _> =
        all_faults(environment).into_iter().map(|fault| (fault.name(), Tally::default())).collect();
    let mut left = Vec::new();
    while begun.elapsed() < time && !stop.is_requested() {
        if left.is_empty() {
            left = all_faults(environment);
            left.shuffle(&mut random);
        }
        let Some(fault) = left.pop() else { break };
        eprintln!("{:>6.1} s: {}", begun.elapsed().as_secs_f64(), fault.name());
        let is_done = inject_one(environment, fault, &mut random, stop).await;
        let tally = tallies.entry(fault.name()).or_default();
        tally.tried += 1;
        tally.done += u32::from(is_done);
        if !is_done {
            eprintln!("         could not be injected");
        }
        stop.sleep(Duration::from_millis(random.random_range(500..3000))).await;
    }
    tallies
}

/// Returns whether it could be injected.
async fn inject_one(environment: Environment, fault: Fault, random: &mut StdRng, stop: &Stop) -> bool {
    let replicas = environment.replicas().await;
    let of = |service: &str| {
        replicas.iter().filter(|one| one.service == service).cloned().collect::<Vec<Replica>>()
    };
    match fault {
        Fault::Kill(service) => match of(service).choose(random) {
            Some(one) => environment.kill(one, stop).await,
            None => false,
        },
        Fault::Pause(service) => match of(service).choose(random) {
            Some(one) => environment.pause(one, Duration::from_secs(random.random_range(4..9)), stop).await,
            None => false,
        },
        Fault::RollingRestart(service) => {
            let (replicas, mut is_done) = (of(service), true);
            for one in &replicas {
                is_done &= environment.restart(one, stop).await;
                is_done &= are_healthy(service, replicas.len(), stop).await;
            }
            is_done && !replicas.is_empty()
        }
        Fault::Restart(server) => match of(server).first() {
            Some(one) => environment.restart(one, stop).await,
            None => false,
        },
        Fault::Lock(database) => lock(database, stop).await.is_ok(),
    }
}

/// Waits until the gateway counts this number of healthy replicas, as a rolling deployment does before it proceeds to
/// the next replica.
async fn are_healthy(service: &str, count: usize, stop: &Stop) -> bool {
    let (begun, dashboard) = (Instant::now(), e2e::Api::local(xtask::stack::ADMIN_PORT));
    while begun.elapsed() < HEALTHY_TIMEOUT && !stop.is_requested() {
        let reply = dashboard.try_get(&format!("/registry/services/{service}")).await;
        if reply.is_some_and(|reply| healthy_replicas(&reply.body) >= count) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

fn file(database: &str) -> String {
    format!("data/{database}.db")
}

async fn lock(database: &str, stop: &Stop) -> Result<(), Box<dyn std::error::Error>> {
    let config = DbConfig::at(&format!("sqlite://{}", file(database)));
    let db = Db::open(&config, Migrations::none()).await?;
    let held = db.begin().await?;
    stop.sleep(LOCK_TIME).await;
    drop(held);
    db.close().await;
    Ok(())
}
