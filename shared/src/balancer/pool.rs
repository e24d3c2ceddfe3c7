//! The replicas of one service, as all threads share them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Instance;
use super::members::{Members, Newcomers, NoReplica};
use super::picker::Picker;
use super::replica::{CheckResult, Health, Member, ReplicaKey, RequestOutcome, Snapshot};
use crate::metrics::Readings;

/// How a pool treats its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests that one replica may have at once.
    pub max_in_flight: usize,
    /// When a replica that just registered gets its first request.
    pub newcomers: Newcomers,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_in_flight: 256, newcomers: Newcomers::Trusted }
    }
}

/// The replicas of one service. All threads share it.
#[derive(Debug)]
pub struct Pool {
    service: String,
    settings: Settings,
    members: Mutex<Members>,
    changed: Notify,
}

impl Pool {
    /// A pool without replicas.
    pub fn new(service: &str, settings: Settings) -> Arc<Self> {
        let (service, members, changed) = (service.to_owned(), Mutex::default(), Notify::new());
        Arc::new(Self { service, settings, members, changed })
    }

    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Takes in who is registered now. One that left finishes what it has.
    pub fn update(&self, instances: &[Instance], now: Instant) {
        self.members().update(instances, self.settings.newcomers, now);
        self.changed.notify_waiters();
    }

    /// Takes in what an active check of the instance `id` found.
    pub fn report_check(&self, id: &str, report: CheckResult, now: Instant) {
        self.members().report_check(id, report, now);
        self.changed.notify_waiters();
    }

    /// Every replica as it is seen now.
    pub fn snapshot(&self, now: Instant) -> Vec<Snapshot> {
        self.members().all().map(|replica| replica.snapshot(now)).collect()
    }

    /// Tells how every replica does. The label is not called `instance`: that is what Prometheus calls
    /// whom it asks.
    pub fn measure(&self, readings: &mut Readings, now: Instant) {
        for seen in self.snapshot(now) {
            let replica = [("peer_service", self.service()), ("peer_instance", seen.instance.id.as_str())];
            let help = "Requests that a replica has now.";
            readings.gauge("http_client_active_requests", help, &replica, seen.active_requests as f64);
            for health in Health::ALL {
                let [service, instance] = replica;
                let help = "How a replica is seen: 1 for the state that it is in.";
                let state = [service, instance, ("state", health.as_str())];
                let is_so = if seen.health == health { 1.0 } else { 0.0 };
                readings.gauge("http_client_replica_state", help, &state, is_so);
            }
        }
    }

    /// Whether any replica may be asked in the ordinary way.
    pub fn is_available(&self) -> bool {
        self.members().all().any(Member::is_available)
    }

    /// Waits until a replica is available, for at most `timeout`.
    pub async fn available(&self, timeout: Duration) {
        let available = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.is_available() {
                    return;
                }
                changed.await;
            }
        };
        // If none comes, the pick that follows says so.
        tokio::time::timeout(timeout, available).await.unwrap_or_default();
    }

    /// The replica for the next request: never one of `tried`. `affinity` is the text that
    /// consistent hashing goes by.
    ///
    /// # Errors
    /// [`NoReplica`] if there is none left.
    pub fn pick(
        self: &Arc<Self>,
        picker: &Picker,
        affinity: Option<&str>,
        tried: &[ReplicaKey],
        now: Instant,
    ) -> Result<Hold, NoReplica> {
        let mut members = self.members();
        let (key, probe) = match members.due_probe(tried, now) {
            Some(key) => (key, true),
            None => (members.choose(picker, affinity, tried, self.settings.max_in_flight, now)?, false),
        };
        let replica = members.get(key).ok_or(NoReplica::None)?;
        replica.take();
        if probe {
            replica.ejection.probe();
        }
        let instance = replica.instance.clone();
        drop(members);
        Ok(Hold { pool: self.clone(), key, instance, picked: now, probing: probe })
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's hold on a replica, which has one request less when this is dropped.
#[derive(Debug)]
pub struct Hold {
    pool: Arc<Pool>,
    key: ReplicaKey,
    instance: Arc<Instance>,
    picked: Instant,
    /// It is a probe, and has not told anything yet.
    probing: bool,
}

impl Hold {
    /// Whom to ask.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The replica, for the list of those tried.
    pub fn key(&self) -> ReplicaKey {
        self.key
    }

    /// Whether this request is to find out if an ejected replica has recovered.
    pub fn is_probe(&self) -> bool {
        self.probing
    }

    /// Tells how the request went, when the head of the answer is there: the time since the pick is
    /// the replica's latency.
    pub fn record(&mut self, outcome: RequestOutcome, now: Instant) {
        if outcome.is_telling() {
            self.probing = false;
            self.pool.members().record(self.key, outcome, self.picked, now);
        }
    }
}

/// A probe that told nothing is sent again.
impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.members().give_back(self.key, self.probing);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
