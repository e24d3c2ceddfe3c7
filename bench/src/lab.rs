//! The faults of the failure lab, each in turn, started as a click in the console does. A fault that only runs proves
//! nothing: each must have acted, by the count of the program that has it.

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
pub struct FaultResult {
    pub fault: String,
    /// Orders that were placed meanwhile, with those that had no answer yet when it began.
    pub orders: usize,
    /// How often it has acted.
    pub outcome: Result<u64, &'static str>,
}

/// A replica with a lab.
#[derive(Clone, Deserialize)]
struct Replica {
    program: String,
    replica: String,
    /// Empty if it does not answer.
    offers: Vec<String>,
    running: Vec<Value>,
    /// How often each fault has acted since it was last started.
    injected: BTreeMap<String, u64>,
    /// The start of the process.
    started_at: Option<String>,
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

    /// Starts each fault of each program once, for a part of `time`, and waits until it has ended by itself. A fault
    /// that had nothing to act on, such as a request, is started again. `orders` tells how many orders have begun, and
    /// how many are answered. On `stop`, the current fault is ended.
    ///
    /// # Errors
    /// If a program does not answer.
    pub async fn inject(
        &self,
        time: Duration,
        seed: u64,
        orders: impl Fn() -> (usize, usize),
        stop: &Stop,
    ) -> Result<Vec<FaultResult>, String> {
        let replicas = within(TIMEOUT, async || {
            self.replicas().await.filter(|replicas| replicas.iter().all(|one| !one.offers.is_empty()))
        });
        let replicas = replicas.await.ok_or("A program of the lab does not answer.")?;
        let all = plan(&replicas, seed);
        let seconds = (time.as_secs() / (all.len() as u64).max(1)).clamp(SHORTEST, LONGEST);
        let (first, mut results) = (Instant::now(), Vec::new());
        for planned in all {
            if stop.is_requested() {
                break;
            }
            let fault = format!("{}: {}", planned.program, planned.fault);
            eprintln!("{:>6.1} s: {fault}", first.elapsed().as_secs_f64());
            let (_, answered) = orders();
            let outcome = self.inject_one(&planned, seconds, &replicas, stop).await;
            let (begun, _) = orders();
            let orders = begun.saturating_sub(answered);
            if let Err(why) = outcome {
                eprintln!("         {why}");
            }
            results.push(FaultResult { fault, orders, outcome });
        }
        Ok(results)
    }

    async fn inject_one(
        &self,
        planned: &Planned,
        seconds: u64,
        replicas: &[Replica],
        stop: &Stop,
    ) -> Result<u64, &'static str> {
        let Planned { program, replica, fault } = planned;
        let before = within(TIMEOUT, async || planned.find(self.replicas().await?)).await;
        let before = before.ok_or("its replica does not answer")?;
        let body = json!({ "program": program, "replica": replica, "fault": fault, "seconds": seconds });
        let begun = Instant::now();
        loop {
            let started = within(TIMEOUT, async || {
                let reply = self.send(Method::POST, "/api/lab/faults", Some(&body)).await?;
                (reply.status == 200).then_some(())
            });
            started.await.ok_or("could not be started")?;
            stop.sleep(Duration::from_secs(seconds)).await;
            if stop.is_requested() {
                let path = format!("/api/lab/faults/{program}/{replica}/{fault}");
                self.send(Method::DELETE, &path, None).await;
                return Ok(0);
            }
            let over = within(TIMEOUT, async || self.replicas().await.filter(|now| is_over(replicas, now)));
            let now = over.await.ok_or("did not end by itself")?;
            match acted(fault, &before, &planned.find(now).ok_or("its replica does not answer")?) {
                0 if begun.elapsed() < TIMEOUT => {}
                0 => return Err("had no effect"),
                times => return Ok(times),
            }
        }
    }

    /// Every replica with a lab; `None` without an answer.
    async fn replicas(&self) -> Option<Vec<Replica>> {
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

impl Planned {
    /// Its replica, if that answers.
    fn find(&self, replicas: Vec<Replica>) -> Option<Replica> {
        let is_it = |one: &Replica| one.program == self.program && one.replica == self.replica;
        replicas.into_iter().find(|one| is_it(one) && !one.offers.is_empty())
    }
}

/// Each fault of each program once, at a replica and in an order that the seed decides.
fn plan(known: &[Replica], seed: u64) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut replicas: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Replica { program, replica, offers, .. } in known {
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
fn is_over(before: &[Replica], now: &[Replica]) -> bool {
    let here = now.iter().filter(|one| !one.offers.is_empty());
    let here: BTreeSet<_> = here.map(|one| (&one.program, &one.replica)).collect();
    now.iter().all(|one| one.running.is_empty())
        && before.iter().all(|one| here.contains(&(&one.program, &one.replica)))
}

/// How often the fault has acted, as its program counts. A kill has if the process is another one than `before`.
fn acted(fault: &str, before: &Replica, now: &Replica) -> u64 {
    match fault {
        "kill" => u64::from(before.started_at != now.started_at),
        fault => now.injected.get(fault).copied().unwrap_or_default(),
    }
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

    fn replica(program: &str, replica: &str, offers: &[&str]) -> Replica {
        Replica {
            program: program.to_owned(),
            replica: replica.to_owned(),
            offers: offers.iter().map(|fault| (*fault).to_owned()).collect(),
            running: Vec::new(),
            injected: BTreeMap::new(),
            started_at: Some("today".to_owned()),
        }
    }

    #[test]
    fn each_fault_of_each_program_is_planned_once() {
        let replicas = [
            replica("a", "a-1", &["kill", "slow"]),
            replica("a", "a-2", &["kill", "slow"]),
            replica("b", "b", &["kill"]),
        ];
        for seed in 0..20 {
            let mut planned: Vec<_> = plan(&replicas, seed)
                .into_iter()
                .map(|one| format!("{} {}", one.program, one.fault))
                .collect();
            planned.sort();
            assert_eq!(planned, ["a kill", "a slow", "b kill"]);
        }
    }

    #[test]
    fn a_fault_is_over_when_it_does_not_run_and_all_replicas_answer_again() {
        let before = [replica("a", "a-1", &["kill"]), replica("a", "a-2", &["kill"])];
        assert!(is_over(&before, &before));
        assert!(!is_over(&before, &before[..1]), "one is not registered");
        assert!(!is_over(&before, &[before[0].clone(), replica("a", "a-2", &[])]), "one does not answer");
        let running = Replica { running: vec![json!({ "fault": "slow" })], ..before[1].clone() };
        assert!(!is_over(&before, &[before[0].clone(), running]));
    }

    #[test]
    fn a_fault_has_acted_if_its_program_counted_it_and_a_kill_if_the_process_is_another_one() {
        let one = replica("a", "a-1", &["kill", "slow"]);
        let counted = |times| Replica { injected: [("slow".to_owned(), times)].into(), ..one.clone() };
        let killed = Replica { started_at: Some("tomorrow".to_owned()), ..one.clone() };
        assert_eq!(acted("slow", &one, &counted(0)), 0, "it ran, and did nothing");
        assert_eq!(acted("slow", &one, &counted(2)), 2);
        assert_eq!(acted("errors", &one, &counted(2)), 0, "another fault");
        assert_eq!(acted("kill", &one, &one), 0);
        assert_eq!(acted("kill", &one, &killed), 1);
    }
}
