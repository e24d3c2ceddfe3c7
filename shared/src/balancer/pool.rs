//! The replicas of one service, as all threads share them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::hold::Hold;
use super::members::Members;
use super::picker::Picker;
use super::replica::{Health, Replica, ReplicaKey, Report, Snapshot};
use crate::metrics::Readings;
use crate::registry::Instance;

/// How a pool treats its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Requests that one replica may have at once.
    pub max_in_flight: usize,
    /// When a replica that just registered gets its first request.
    pub newcomers: Newcomers,
}

/// When a replica that just registered gets its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomers {
    /// At once: it would not register if it were not ready.
    Trusted,
    /// After a check that passed.
    CheckedFirst,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_in_flight: 256, newcomers: Newcomers::Trusted }
    }
}

/// Why no replica could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReplica {
    /// None is known, or all were tried.
    #[error("no replica is known")]
    None,
    /// All have as much as they may have.
    #[error("every replica is busy")]
    Busy,
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
    pub fn report_check(&self, id: &str, report: Report, now: Instant) {
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
        self.members().all().any(Replica::is_available)
    }

    /// Waits until a replica is available, for at most `patience`.
    pub async fn available(&self, patience: Duration) {
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
        tokio::time::timeout(patience, available).await.unwrap_or_default();
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
        Ok(Hold::new(self.clone(), key, instance, probe, now))
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
