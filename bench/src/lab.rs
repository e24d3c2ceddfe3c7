//! The faults of the failure lab, each in turn, started as a click in the console does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Reply};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::lab::LONGEST;
use shared::stop::Stop;
use tokio::time::Instant;

use crate::customer::Customer;

/// For the start and the end of a fault. A replica that an earlier fault killed must first register again.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// The shortest time of a fault, in seconds.
const SHORTEST: u64 = 2;

/// The lab of a running stack, as an admin uses it.
pub struct Lab<'a> {
    admin: &'a Customer,
    console: Api,
    /// With the cookie of the session.
    page: RefCell<Option<Api>>,
}

/// What became of one fault.
pub struct Row {
    pub fault: String,
    /// Orders that were placed meanwhile, with those that had no answer yet when it began.
    pub orders: usize,
    pub outcome: Result<(), &'static str>,
}

#[derive(Clone, Deserialize)]
struct Subject {
    program: String,
    replica: String,
    offers: Vec<String>,
    running: Vec<Value>,
}

/// A fault to start at one replica.
#[derive(Debug, PartialEq, Eq)]
struct Planned {
    program: String,
    replica: String,
    fault: String,
}

impl<'a> Lab<'a> {
    /// # Errors
    /// If the console shows no lab.
    pub async fn open(admin: &'a Customer, console: Api) -> Result<Self, String> {
        let lab = Self { admin, console, page: RefCell::default() };
        match lab.send(Method::GET, "/api/lab", None).await {
            Some(reply) if reply.status == 200 => Ok(lab),
            _ => {
                Err("The console shows no lab: start the stack with scripts/up, or scripts/up --compose lab."
                    .to_owned())
            }
        }
    }

    /// Starts each fault of each program once, for a part of `time`, and waits until it has ended by itself. `orders`
    /// tells how many orders have begun, and how many are answered. On `stop`, the current fault is ended.
    ///
    /// # Errors
    /// If a program does not answer.
    pub async fn inject(
        &self,
        time: Duration,
        seed: u64,
        orders: impl Fn() -> (usize, usize),
        stop: &Stop,
    ) -> Result<Vec<Row>, String> {
        let subjects = within(TIMEOUT, async || {
            self.look().await.filter(|subjects| subjects.iter().all(|one| !one.offers.is_empty()))
        });
        let subjects = subjects.await.ok_or("A program of the lab does not answer.")?;
        let all = plan(&subjects, seed);
        let seconds = (time.as_secs() / (all.len() as u64).max(1)).clamp(SHORTEST, LONGEST);
        let (first, mut rows) = (Instant::now(), Vec::new());
        for planned in all {
            if stop.is_requested() {
                break;
            }
            let fault = format!("{}: {}", planned.program, planned.fault);
            eprintln!("{:>6.1} s: {fault}", first.elapsed().as_secs_f64());
            let (_, answered) = orders();
            let outcome = self.inject_one(&planned, seconds, &subjects, stop).await;
            let (begun, _) = orders();
            let orders = begun.saturating_sub(answered);
            if let Err(why) = outcome {
                eprintln!("         {why}");
            }
            rows.push(Row { fault, orders, outcome });
        }
        Ok(rows)
    }

    async fn inject_one(
        &self,
        planned: &Planned,
        seconds: u64,
        subjects: &[Subject],
        stop: &Stop,
    ) -> Result<(), &'static str> {
        let Planned { program, replica, fault } = planned;
        let body = json!({ "program": program, "replica": replica, "fault": fault, "seconds": seconds });
        let started = within(TIMEOUT, async || {
            let reply = self.send(Method::POST, "/api/lab/faults", Some(&body)).await?;
            (reply.status == 200).then_some(())
        });
        started.await.ok_or("could not be started")?;
        stop.sleep(Duration::from_secs(seconds)).await;
        if stop.is_requested() {
            let path = format!("/api/lab/faults/{program}/{replica}/{fault}");
            self.send(Method::DELETE, &path, None).await;
            return Ok(());
        }
        let over = within(TIMEOUT, async || self.look().await.filter(|now| is_over(subjects, now)));
        over.await.map(drop).ok_or("did not end by itself")
    }

    /// Every replica with a lab; `None` without an answer.
    async fn look(&self) -> Option<Vec<Subject>> {
        let mut reply = self.send(Method::GET, "/api/lab", None).await?;
        serde_json::from_value(reply.body["replicas"].take()).ok()
    }

    /// Logs in if that is needed. `None` without an answer.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Option<Reply> {
        let known = self.page.borrow().clone();
        let page = match known {
            Some(page) => page,
            None => self.admin.at_the_console(&self.console).await?,
        };
        let reply = page.try_send(method, path, body).await?;
        self.page.replace((reply.status != 401).then_some(page));
        Some(reply)
    }
}

/// Each fault of each program once, at a replica and in an order that the seed decides.
fn plan(subjects: &[Subject], seed: u64) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut replicas: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Subject { program, replica, offers, .. } in subjects {
        for fault in offers {
            replicas.entry((program, fault)).or_default().push(replica);
        }
    }
    let mut all: Vec<_> = replicas
        .into_iter()
        .filter_map(|((program, fault), replicas)| {
            let [program, replica, fault] =
                [program, *replicas.choose(&mut random)?, fault].map(str::to_owned);
            Some(Planned { program, replica, fault })
        })
        .collect();
    all.shuffle(&mut random);
    all
}

/// Whether no fault runs, and every replica is there again.
fn is_over(before: &[Subject], now: &[Subject]) -> bool {
    let here = now.iter().filter(|one| !one.offers.is_empty());
    let here: BTreeSet<_> = here.map(|one| (&one.program, &one.replica)).collect();
    now.iter().all(|one| one.running.is_empty())
        && before.iter().all(|one| here.contains(&(&one.program, &one.replica)))
}

async fn within<T>(time: Duration, probe: impl AsyncFn() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        match probe().await {
            None if begun.elapsed() < time => tokio::time::sleep(POLL).await,
            found => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(program: &str, replica: &str, offers: &[&str]) -> Subject {
        let offers = offers.iter().map(|fault| (*fault).to_owned()).collect();
        Subject { program: program.to_owned(), replica: replica.to_owned(), offers, running: Vec::new() }
    }

    #[test]
    fn each_fault_of_each_program_is_planned_once() {
        let subjects = [
            subject("a", "a-1", &["kill", "slow"]),
            subject("a", "a-2", &["kill", "slow"]),
            subject("b", "b", &["kill"]),
        ];
        for seed in 0..20 {
            let mut planned: Vec<_> = plan(&subjects, seed)
                .into_iter()
                .map(|one| format!("{} {}", one.program, one.fault))
                .collect();
            planned.sort();
            assert_eq!(planned, ["a kill", "a slow", "b kill"]);
        }
    }

    #[test]
    fn a_fault_is_over_when_it_does_not_run_and_all_replicas_answer_again() {
        let before = [subject("a", "a-1", &["kill"]), subject("a", "a-2", &["kill"])];
        assert!(is_over(&before, &before));
        assert!(!is_over(&before, &before[..1]), "one is not registered");
        assert!(!is_over(&before, &[before[0].clone(), subject("a", "a-2", &[])]), "one does not answer");
        let running = Subject { running: vec![json!({ "fault": "slow" })], ..before[1].clone() };
        assert!(!is_over(&before, &[before[0].clone(), running]));
    }
}
