//! The failure lab: faults that a program does to itself for some seconds, so that people can watch what the rest of
//! the stack does. Only with `LAB=on`, for demonstrations; without it there is no [`Lab`], and none of the code below
//! exists in the path of a request (ADR 21).
//!
//! A fault is one variant of [`Fault`], and acts in one place:
//!
//! | faults | act in |
//! |---|---|
//! | those of requests, and the kill | `service/lab.rs` |
//! | the locked database, the clock | `service/database.rs` |
//! | those of messages | `messages/faulty.rs` |
//!
//! Each of these places counts the fault where it acts (`Lab::acts`): a fault that runs proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Vars;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The process ends, as after a crash.
    Kill,
    /// Requests wait until the fault ends, or until their deadline; so do health checks.
    Pause,
    /// Connections are closed without an answer; so are those of health checks.
    Refuse,
    /// Every answer comes [`SLOW`] later.
    Slow,
    /// Half of the requests get 503, and have no effect.
    Errors,
    /// Half of the requests have their effect, and then get no answer.
    LostAnswers,
    /// A transaction makes others wait: with SQLite all that write, with PostgreSQL those that claim an idempotency key
    /// or send an event.
    DatabaseLocked,
    /// Each message is sent twice.
    MessagesDuplicated,
    /// Later messages overtake earlier ones, which then arrive once more.
    MessagesReordered,
    /// Each message is sent [`SLOW`] later.
    MessagesDelayed,
    /// This process's clock seems to be a minute ahead of the database's. Only with a database server, because programs
    /// that share a file share a clock.
    ClockAhead,
}

pub const SLOW: Duration = Duration::from_millis(1500);
/// The longest time of a fault, in seconds.
pub const LONGEST: u64 = 300;

/// The faults of one program: which it can have, and which it has now. Clones share them.
#[derive(Debug, Clone)]
pub struct Lab(Arc<State>);

#[derive(Debug)]
struct State {
    offers: Mutex<BTreeSet<Fault>>,
    /// When each fault ends.
    running: watch::Sender<BTreeMap<Fault, Instant>>,
    /// How often each fault has acted since it was last started.
    injected: Mutex<BTreeMap<Fault, u64>>,
    started_at: OffsetDateTime,
}

impl Default for Lab {
    fn default() -> Self {
        let of_requests =
            [Fault::Kill, Fault::Pause, Fault::Refuse, Fault::Slow, Fault::Errors, Fault::LostAnswers];
        Self(Arc::new(State {
            offers: Mutex::new(of_requests.into()),
            running: watch::Sender::default(),
            injected: Mutex::default(),
            started_at: OffsetDateTime::now_utc(),
        }))
    }
}

impl Lab {
    pub fn from_vars(vars: &mut Vars) -> Option<Self> {
        let is_on: bool = vars.or("LAB", "off", "on lets admins inject faults; for demonstrations only");
        is_on.then(Self::default)
    }

    /// Adds faults of parts that not every program has.
    #[cfg(feature = "db")]
    pub(crate) fn offer(&self, more: &[Fault]) {
        self.0.offers.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
    }

    pub fn offers(&self) -> BTreeSet<Fault> {
        self.0.offers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a fault, or gives a running one another end.
    pub fn start(&self, fault: Fault, time: Duration) {
        self.0.injected.lock().unwrap_or_else(PoisonError::into_inner).insert(fault, 0);
        self.0.running.send_modify(|running| {
            running.insert(fault, Instant::now() + time);
        });
    }

    pub fn end(&self, fault: Fault) {
        self.0.running.send_modify(|running| {
            running.remove(&fault);
        });
    }

    /// The running faults, with the remaining time of each.
    pub fn running(&self) -> BTreeMap<Fault, Duration> {
        let now = Instant::now();
        let running = self.0.running.borrow();
        let left = running.iter().map(|(fault, end)| (*fault, end.saturating_duration_since(now)));
        left.filter(|(_, left)| !left.is_zero()).collect()
    }

    pub fn is_running(&self, fault: Fault) -> bool {
        self.end_of(fault).is_some()
    }

    /// Whether the fault runs. If it does, the caller must do it now: it is counted.
    pub(crate) fn acts(&self, fault: Fault) -> bool {
        let is_running = self.is_running(fault);
        if is_running {
            let mut injected = self.0.injected.lock().unwrap_or_else(PoisonError::into_inner);
            *injected.entry(fault).or_default() += 1;
        }
        is_running
    }

    /// How often each fault has acted since it was last started, for those that were.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        self.0.injected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The start of this process: another one proves a kill.
    pub fn started_at(&self) -> OffsetDateTime {
        self.0.started_at
    }

    fn end_of(&self, fault: Fault) -> Option<Instant> {
        self.0.running.borrow().get(&fault).copied().filter(|end| *end > Instant::now())
    }

    pub async fn begun(&self, fault: Fault) {
        let mut changes = self.0.running.subscribe();
        while !self.is_running(fault) {
            changes.changed().await.unwrap_or_default();
        }
    }

    /// Waits until the fault does not run, because its time has passed or it was ended.
    pub async fn over(&self, fault: Fault) {
        let mut changes = self.0.running.subscribe();
        while let Some(end) = self.end_of(fault) {
            let _ = tokio::time::timeout_at(end, changes.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_fault_ends_by_itself_and_others_go_on() {
        let lab = Lab::default();
        lab.start(Fault::Slow, SECOND);
        lab.start(Fault::Errors, 3 * SECOND);
        let begun = Instant::now();
        lab.over(Fault::Slow).await;
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert_eq!(lab.running(), [(Fault::Errors, 2 * SECOND)].into());
        assert!(lab.acts(Fault::Errors) && !lab.acts(Fault::Slow));
        assert_eq!(lab.injected(), [(Fault::Slow, 0), (Fault::Errors, 1)].into());
        lab.start(Fault::Errors, 2 * SECOND);
        assert_eq!(lab.injected()[&Fault::Errors], 0, "it was started again");
        lab.over(Fault::Errors).await;
        assert_eq!((begun.elapsed().as_secs(), lab.running()), (3, BTreeMap::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_can_be_ended_before_its_time_and_started_again() {
        let lab = Lab::default();
        lab.start(Fault::Pause, 100 * SECOND);
        let begun = Instant::now();
        let ending = async {
            tokio::time::sleep(2 * SECOND).await;
            lab.end(Fault::Pause);
        };
        tokio::join!(lab.over(Fault::Pause), ending);
        assert_eq!(begun.elapsed().as_secs(), 2);
        let starting = async { lab.start(Fault::Pause, SECOND) };
        tokio::join!(lab.begun(Fault::Pause), starting);
        assert!(lab.is_running(Fault::Pause));
    }
}
