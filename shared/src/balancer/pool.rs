//! The pool of one service's replicas, shared by all threads.
//!
//! [`Pool::pick`] chooses a replica and returns a [`Hold`], which counts as one request in flight until it
//! is dropped. The caller reports the outcome with [`Hold::record`]; this drives the circuit breaker and the
//! latency average of the replica.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Instance;
use super::members::{Members, Newcomers, NoReplica};
use super::picker::Picker;
use super::replica::{CheckResult, Health, Member, ReplicaKey, RequestOutcome, Rest, Snapshot};
use crate::metrics::Readings;
use crate::tls::{Peer, Tls};

#[derive(Debug, Clone)]
pub struct Settings {
    /// Concurrent requests per replica. [`Pool::pick`] skips a replica that has reached this limit. If all replicas have
    /// reached it, it returns [`NoReplica::Busy`]. Probes of ejected replicas are not limited.
    pub max_in_flight: usize,
    /// Decides when a newly registered replica gets its first request.
    pub newcomers: Newcomers,
    /// This program's certificate for mutual TLS with the replicas; `None` without TLS.
    pub tls: Option<Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_in_flight: 256, newcomers: Newcomers::Trusted, tls: None }
    }
}

#[derive(Debug)]
pub struct Pool {
    service: String,
    settings: Settings,
    peer: Option<Peer>,
    members: Mutex<Members>,
    changed: Notify,
}

impl Pool {
    /// A pool without replicas.
    pub fn new(service: &str, settings: Settings) -> Arc<Self> {
        let peer = settings.tls.as_ref().map(|tls| tls.peer(service));
        let (service, members, changed) = (service.to_owned(), Mutex::default(), Notify::new());
        Arc::new(Self { service, settings, peer, members, changed })
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// How to connect to the replicas over TLS; `None` without [`Settings::tls`].
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Makes the registered `instances` the replicas of the pool. Known replicas keep their state. A removed replica
    /// gets no new requests; its running requests finish.
    pub fn update(&self, instances: &[Instance], now: Instant) {
        self.members().update(instances, self.settings.newcomers, now);
        self.changed.notify_waiters();
    }

    /// Applies the results of the registry's health checks: `failing` holds the ids of the replicas that fail. A pool
    /// with health checks of its own ([`Newcomers::CheckedFirst`]) ignores the registry's.
    pub fn hint(&self, failing: &BTreeSet<String>, now: Instant) {
        if self.settings.newcomers == Newcomers::Trusted {
            self.members().hint(failing, now);
            self.changed.notify_waiters();
        }
    }

    /// Records the result of an active health check of the instance `id`.
    pub fn report_check(&self, id: &str, report: CheckResult, now: Instant) {
        self.members().report_check(id, report, now);
        self.changed.notify_waiters();
    }

    /// Takes the replica with the instance id `id` out of rotation, as an admin asks: it gets requests only if no other
    /// replica is left. `None` ends this. Returns whether it is registered.
    pub fn give_rest(&self, id: &str, rest: Option<Rest>, now: Instant) -> bool {
        let found = self.members().give_rest(id, rest, now);
        self.changed.notify_waiters();
        found
    }

    /// Ends each rest whose time is over. Call it periodically: the gateway does so twice a second.
    pub fn end_rests(&self, now: Instant) {
        if self.members().end_rests(now) {
            self.changed.notify_waiters();
        }
    }

    /// The current state of every replica.
    pub fn snapshot(&self, now: Instant) -> Vec<Snapshot> {
        self.members().all().map(|replica| replica.snapshot(now)).collect()
    }

    /// The keys of all replicas that do not match. Pass them as `tried`: then [`Pool::pick`] chooses only a replica that
    /// matches.
    pub fn all_but(&self, matches: impl Fn(&Instance) -> bool) -> Vec<ReplicaKey> {
        self.members().all().filter(|one| !matches(&one.instance)).map(|one| one.key).collect()
    }

    /// Whether a replica with this version is available.
    pub fn has_version(&self, version: &str) -> bool {
        self.members().all().any(|one| one.is_available() && one.instance.version() == Some(version))
    }

    /// Adds gauges for every replica. The label is `peer_instance`, because Prometheus uses `instance` for
    /// the scraped program.
    pub fn measure(&self, readings: &mut Readings, now: Instant) {
        for seen in self.snapshot(now) {
            let replica = [("peer_service", self.service()), ("peer_instance", seen.instance.id.as_str())];
            let help = "Requests in flight per replica.";
            readings.gauge("http_client_active_requests", help, &replica, seen.active_requests as f64);
            for health in Health::ALL {
                let [service, instance] = replica;
                let help = "Health of a replica: 1 for its current state, 0 for the others.";
                let state = [service, instance, ("state", health.as_str())];
                let value = if seen.health == health { 1.0 } else { 0.0 };
                readings.gauge("http_client_replica_state", help, &state, value);
            }
        }
    }

    /// Whether at least one replica passes its checks and is not ejected.
    pub fn is_available(&self) -> bool {
        self.members().all().any(Member::is_available)
    }

    /// Waits until [`Self::is_available`], for at most `timeout`.
    pub async fn wait_until_available(&self, timeout: Duration) {
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
        // A timeout is not an error here: the caller then calls `pick`, which returns `NoReplica`.
        tokio::time::timeout(timeout, available).await.unwrap_or_default();
    }

    /// Picks a replica for the next request, never one of `tried`. `affinity` is the key for consistent
    /// hashing. Whatever the `picker`, an ejected replica that is due for a probe is picked first. The probe may fail, so
    /// use [`Pool::pick_without_probe`] for a request that cannot be retried.
    pub fn pick(
        self: &Arc<Self>,
        picker: &Picker,
        affinity: Option<&str>,
        tried: &[ReplicaKey],
        now: Instant,
    ) -> Result<Hold, NoReplica> {
        match self.pick_probe(tried, now) {
            Some(hold) => Ok(hold),
            None => self.pick_without_probe(picker, affinity, tried, now),
        }
    }

    /// Like [`Pool::pick`], but the request is never a probe. Ejected replicas are skipped, with two exceptions. If less
    /// than half of the pool is available, ejections are ignored. If the caller has tried all other replicas, an
    /// ejected one is picked.
    pub fn pick_without_probe(
        self: &Arc<Self>,
        picker: &Picker,
        affinity: Option<&str>,
        tried: &[ReplicaKey],
        now: Instant,
    ) -> Result<Hold, NoReplica> {
        let mut members = self.members();
        let key = members.choose(picker, affinity, tried, self.settings.max_in_flight, now)?;
        let replica = members.get(key).ok_or(NoReplica::None)?;
        replica.begin_request();
        Ok(self.hold(replica, false, now))
    }

    /// Picks an ejected replica that is due for a probe, if there is one. The request made with the returned
    /// [`Hold`] is the probe.
    pub fn pick_probe(self: &Arc<Self>, tried: &[ReplicaKey], now: Instant) -> Option<Hold> {
        let mut members = self.members();
        let key = members.due_probe(tried, now)?;
        let replica = members.get(key)?;
        replica.begin_request();
        replica.ejection.probe_started();
        Some(self.hold(replica, true, now))
    }

    fn hold(self: &Arc<Self>, replica: &Member, probing: bool, now: Instant) -> Hold {
        Hold {
            pool: self.clone(),
            key: replica.key,
            instance: replica.instance.clone(),
            picked: now,
            probing,
            exempt: false,
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A picked replica. Until the hold is dropped, it counts as one request in flight at this replica.
#[derive(Debug)]
pub struct Hold {
    pool: Arc<Pool>,
    key: ReplicaKey,
    instance: Arc<Instance>,
    picked: Instant,
    /// This request is a probe, and its outcome is not known yet.
    probing: bool,
    /// This request does not count toward [`Settings::max_in_flight`].
    exempt: bool,
}

impl Hold {
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// See [`Pool::peer`].
    pub fn peer(&self) -> Option<&Peer> {
        self.pool.peer()
    }

    /// Identifies the replica, for the `tried` list of the next [`Pool::pick`].
    pub fn key(&self) -> ReplicaKey {
        self.key
    }

    /// From now on the request does not count toward [`Settings::max_in_flight`]. Use this for long requests, such as
    /// event streams, if the caller has its own limit for them.
    pub fn exempt(&mut self) {
        if !std::mem::replace(&mut self.exempt, true)
            && let Some(replica) = self.pool.members().get(self.key)
        {
            replica.exempt += 1;
        }
    }

    /// Records the outcome. Call it when the head of the response has arrived, or the attempt has failed: the time
    /// since the pick counts as the replica's latency. It ignores an outcome that tells nothing about the replica,
    /// such as a stale connection.
    pub fn record(&mut self, outcome: RequestOutcome, now: Instant) {
        if outcome.is_conclusive() {
            self.probing = false;
            self.pool.members().record(self.key, outcome, self.picked, now);
        }
    }

    /// Only for a probe that was a health check: call this if the check has passed, and [`Self::record`] if it has
    /// failed. A client's request always uses [`Self::record`].
    pub fn probe_passed(&mut self, now: Instant) {
        self.probing = false;
        self.pool.members().probe_passed(self.key, now);
        self.pool.changed.notify_waiters();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // After a probe without a conclusive outcome, the next request probes again.
        self.pool.members().give_back(self.key, self.exempt, self.probing);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
