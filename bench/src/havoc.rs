//! What is done to a stack, one thing after another, in an order that a seed decides.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use shared::db::{Db, DbConfig, Migrations};
use shared::stop::Stop;
use tokio::time::Instant;

use crate::ground::{Ground, SERVICES};

const HEALTHY_AGAIN: Duration = Duration::from_secs(60);

/// One thing that can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// One replica crashes.
    Killed(&'static str),
    /// One replica stands still, for longer than anybody waits.
    Paused(&'static str),
    /// Every replica is restarted in turn, as a deployment would.
    Rolled(&'static str),
    /// A server is restarted.
    Restarted(&'static str),
    /// Somebody else writes to an SQLite database, and does not end.
    Locked(&'static str),
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Killed(service) => format!("{service}: one killed"),
            Self::Paused(service) => format!("{service}: one paused"),
            Self::Rolled(service) => format!("{service}: restarted in turn"),
            Self::Restarted(server) => format!("{server}: restarted"),
            Self::Locked(database) => format!("{database}: locked for 3 s"),
        }
    }
}

/// Everything that can happen on a ground, once.
fn deck(ground: Ground) -> Vec<Fault> {
    let mut deck =
        vec![Fault::Killed("gateway"), Fault::Killed("card-network"), Fault::Paused("card-network")];
    for service in SERVICES {
        deck.extend([Fault::Killed(service), Fault::Paused(service), Fault::Rolled(service)]);
    }
    deck.extend(match ground {
        Ground::Embedded => ["users.db", "orders.db", "payments.db"].map(Fault::Locked),
        Ground::Compose => ["postgres", "nats", "consul"].map(Fault::Restarted),
    });
    deck
}

/// How often something was tried, and could be done.
#[derive(Default, Clone, Copy)]
pub struct Tally {
    /// How often it was tried.
    pub tried: u32,
    /// How often it could be done.
    pub done: u32,
}

impl Tally {
    /// Whether it could be done whenever it was tried.
    pub fn holds(self) -> bool {
        self.done == self.tried
    }
}

/// Does one thing after another until `time` is over, and counts. Each kind comes once before any comes
/// again: what was never tried had no time. On `stop`, what is under way is undone first.
pub async fn inflict(ground: Ground, time: Duration, seed: u64, stop: &Stop) -> BTreeMap<String, Tally> {
    let (begun, mut random) = (Instant::now(), StdRng::seed_from_u64(seed));
    let mut tallies: BTreeMap<_, _> =
        deck(ground).into_iter().map(|fault| (fault.name(), Tally::default())).collect();
    let mut left = Vec::new();
    while begun.elapsed() < time && !stop.is_requested() {
        if left.is_empty() {
            left = deck(ground);
            left.shuffle(&mut random);
        }
        let Some(fault) = left.pop() else { break };
        eprintln!("{:>6.1} s: {}", begun.elapsed().as_secs_f64(), fault.name());
        let is_done = do_it(ground, fault, &mut random, stop).await;
        let tally = tallies.entry(fault.name()).or_default();
        tally.tried += 1;
        tally.done += u32::from(is_done);
        if !is_done {
            eprintln!("         that could not be done");
        }
        stop.sleep(Duration::from_millis(random.random_range(500..3000))).await;
    }
    tallies
}

/// Whether it could be done.
async fn do_it(ground: Ground, fault: Fault, random: &mut StdRng, stop: &Stop) -> bool {
    let programs = ground.programs().await;
    let of =
        |service: &str| programs.iter().filter(|one| one.service == service).cloned().collect::<Vec<_>>();
    match fault {
        Fault::Killed(service) => match of(service).choose(random) {
            Some(one) => ground.kill(one, stop).await,
            None => false,
        },
        Fault::Paused(service) => match of(service).choose(random) {
            Some(one) => ground.pause(one, Duration::from_secs(random.random_range(4..9)), stop).await,
            None => false,
        },
        Fault::Rolled(service) => {
            let (replicas, mut is_done) = (of(service), true);
            for one in &replicas {
                is_done &= ground.restart(one, stop).await;
                is_done &= are_healthy(service, replicas.len(), stop).await;
            }
            is_done && !replicas.is_empty()
        }
        Fault::Restarted(server) => match of(server).first() {
            Some(one) => ground.restart(one, stop).await,
            None => false,
        },
        Fault::Locked(database) => lock(database, Duration::from_secs(3), stop).await.is_ok(),
    }
}

/// Waits until the gateway counts so many healthy replicas: a deployment goes on when the replica that it
/// has replaced is there.
async fn are_healthy(service: &str, count: usize, stop: &Stop) -> bool {
    let (begun, dashboard) = (Instant::now(), e2e::Api::local(9090));
    while begun.elapsed() < HEALTHY_AGAIN && !stop.is_requested() {
        let seen = dashboard.try_get(&format!("/registry/services/{service}")).await;
        if seen.is_some_and(|reply| e2e::healthy_instances(&reply.body) >= count) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

async fn lock(database: &str, time: Duration, stop: &Stop) -> Result<(), Box<dyn std::error::Error>> {
    let config = DbConfig::at(&format!("sqlite://data/{database}"));
    let db = Db::open(&config, Migrations::none()).await?;
    let held = db.begin().await?;
    stop.sleep(time).await;
    drop(held);
    db.close().await;
    Ok(())
}
