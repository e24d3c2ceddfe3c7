//! The pool of one service's replicas, shared by all threads.
//!
//! [`Pool::pick`] chooses a replica and returns a [`PickedReplica`], which counts as one request in flight until it
//! is dropped. The caller reports the outcome with [`PickedReplica::record`]; this drives the circuit breaker and the
//! latency average of the replica.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::Instance;
use super::members::{HealthSource, Members, PickError};
use super::picker::Picker;
use super::replica::{CheckResult, Health, Maintenance, ReplicaKey, ReplicaState, RequestOutcome, Snapshot};
use crate::metrics::Readings;
use crate::tls::{PeerTls, Tls};

#[derive(Debug, Clone)]
pub struct Settings {
    /// Concurrent requests per replica. [`Pool::pick`] skips a replica that has reached this limit. If every candidate has
    /// reached it, `pick` returns [`PickError::AllBusy`]. Probes of ejected replicas are not limited.
    pub max_in_flight: usize,
    /// The health checks that decide whether a replica gets requests, and when a newly registered replica
    /// gets its first request.
    pub health_source: HealthSource,
    /// This program's certificate for mutual TLS with the replicas; `None` without TLS.
    pub tls: Option<Tls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_in_flight: 256, health_source: HealthSource::Registry, tls: None }
    }
}

#[derive(Debug)]
pub struct Pool {
    service: String,
    settings: Settings,
    peer_tls: Option<PeerTls>,
    members: Mutex<Members>,
    changed: Notify,
    refresh: Notify,
    /// The callers of [`Pool::refresh`].
    refreshes: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Pool {
    /// A pool without replicas.
    pub fn new(service: &str, settings: Settings) -> Arc<Self> {
        let peer_tls = settings.tls.as_ref().map(|tls| tls.peer(service));
        let (service, members) = (service.to_owned(), Mutex::default());
        let (changed, refresh, refreshes) = (Notify::new(), Notify::new(), Mutex::default());
        Arc::new(Self { service, settings, peer_tls, members, changed, refresh, refreshes })
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// How to connect to the replicas over TLS; `None` without [`Settings::tls`].
    pub fn peer_tls(&self) -> Option<&PeerTls> {
        self.peer_tls.as_ref()
    }

    /// Makes the registered `instances` the replicas of the pool. Known replicas keep their state. A removed replica
    /// gets no new requests; its running requests finish.
    pub fn update(&self, instances: &[Instance], now: Instant) {
        self.lock_members().update(instances, self.settings.health_source, now);
        self.changed.notify_waiters();
    }

    /// Applies the results of the registry's health checks: `failing` holds the ids of the replicas that fail. A pool
    /// with health checks of its own ([`HealthSource::ActiveChecks`]) ignores the registry's.
    pub fn apply_registry_checks(&self, failing: &BTreeSet<String>, now: Instant) {
        if self.settings.health_source == HealthSource::Registry {
            self.lock_members().apply_registry_checks(failing, now);
            self.changed.notify_waiters();
        }
    }

    /// Records the result of an active health check of the instance `id`.
    pub fn report_check(&self, id: &str, report: CheckResult, now: Instant) {
        self.lock_members().report_check(id, report, now);
        self.changed.notify_waiters();
    }

    /// At an admin's request, takes the replica with the instance id `id` out of rotation: it gets requests only if no
    /// other replica is left. If `maintenance` is `None`, puts it back. Returns whether a replica with this id is
    /// registered.
    pub fn set_maintenance(&self, id: &str, maintenance: Option<Maintenance>, now: Instant) -> bool {
        let found = self.lock_members().set_maintenance(id, maintenance, now);
        self.changed.notify_waiters();
        found
    }

    /// Ends each maintenance whose time is over. Call it periodically: the gateway does so twice a second.
    pub fn end_expired_maintenance(&self, now: Instant) {
        if self.lock_members().end_expired_maintenance(now) {
            self.changed.notify_waiters();
        }
    }

    /// The current state of every replica.
    pub fn snapshot(&self, now: Instant) -> Vec<Snapshot> {
        self.lock_members().all().map(|replica| replica.snapshot(now)).collect()
    }

    /// The keys of the replicas for which `matches` is false. Pass them to [`Pool::pick`] as `excluded`: then it picks only
    /// a replica for which `matches` is true.
    pub fn keys_not_matching(&self, matches: impl Fn(&Instance) -> bool) -> Vec<ReplicaKey> {
        self.lock_members().all().filter(|one| !matches(&one.instance)).map(|one| one.key).collect()
    }

    /// Whether a replica with this version is available.
    pub fn has_version(&self, version: &str) -> bool {
        self.lock_members().all().any(|one| one.is_available() && one.instance.version() == Some(version))
    }

    /// Adds gauges for every replica. The label is `peer_instance`, because Prometheus uses `instance` for
    /// the scraped program.
    pub fn measure(&self, readings: &mut Readings, now: Instant) {
        for replica in self.snapshot(now) {
            let labels = [("peer_service", self.service()), ("peer_instance", replica.instance.id.as_str())];
            let help = "Requests in flight per replica.";
            readings.gauge("http_client_active_requests", help, &labels, replica.active_requests as f64);
            for health in Health::ALL {
                let [service, instance] = labels;
                let help = "Health of a replica: 1 for its current state, 0 for the others.";
                let state = [service, instance, ("state", health.as_str())];
                let value = if replica.health == health { 1.0 } else { 0.0 };
                readings.gauge("http_client_replica_state", help, &state, value);
            }
        }
    }

    /// Whether at least one replica passes its checks, and is neither ejected nor in maintenance.
    pub fn is_available(&self) -> bool {
        self.lock_members().all().any(ReplicaState::is_available)
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
        // A timeout is not an error here: the caller then calls `pick`, which returns `PickError`.
        tokio::time::timeout(timeout, available).await.unwrap_or_default();
    }

    /// Waits until the directory has queried the registry once more, for at most `timeout`. Replicas may have registered
    /// since its last query.
    pub async fn refresh(&self, timeout: Duration) {
        let (done, is_done) = oneshot::channel();
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.refresh.notify_one();
        // If the query fails or takes too long, the known replicas are all there are.
        let _ = tokio::time::timeout(timeout, is_done).await;
    }

    /// Waits until [`Self::refresh`] is called. Drop the result when the registry's answer is applied: then the callers
    /// continue.
    pub async fn refresh_requests(&self) -> Vec<oneshot::Sender<()>> {
        self.refresh.notified().await;
        std::mem::take(&mut *self.refreshes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Picks a replica for the next request, never one of `excluded`. `affinity` is the key for consistent
    /// hashing. An ejected replica that is due for a probe comes first, without the `picker`. The probe may fail, so
    /// use [`Pool::pick_without_probe`] for a request that cannot be retried.
    pub fn pick(
        self: &Arc<Self>,
        picker: &Picker,
        affinity: Option<&str>,
        excluded: &[ReplicaKey],
        now: Instant,
    ) -> Result<PickedReplica, PickError> {
        match self.pick_probe(excluded, now) {
            Some(picked) => Ok(picked),
            None => self.pick_without_probe(picker, affinity, excluded, now),
        }
    }

    /// Like [`Pool::pick`], but the request is never a probe. Ejected replicas are skipped, with two exceptions. If less
    /// than half of the pool is available, ejections are ignored. If the caller has tried all other replicas, an
    /// ejected one is picked.
    pub fn pick_without_probe(
        self: &Arc<Self>,
        picker: &Picker,
        affinity: Option<&str>,
        excluded: &[ReplicaKey],
        now: Instant,
    ) -> Result<PickedReplica, PickError> {
        let mut members = self.lock_members();
        let key = members.choose(picker, affinity, excluded, self.settings.max_in_flight, now)?;
        let replica = members.get(key).ok_or(PickError::NoCandidate)?;
        replica.begin_request();
        Ok(self.picked(replica, false, now))
    }

    /// Picks an ejected replica that is due for a probe, if there is one. The request made with the returned
    /// [`PickedReplica`] is the probe.
    pub fn pick_probe(self: &Arc<Self>, excluded: &[ReplicaKey], now: Instant) -> Option<PickedReplica> {
        let mut members = self.lock_members();
        let key = members.due_probe(excluded, now)?;
        let replica = members.get(key)?;
        replica.begin_request();
        replica.ejection.probe_started();
        Some(self.picked(replica, true, now))
    }

    fn picked(self: &Arc<Self>, replica: &ReplicaState, probing: bool, now: Instant) -> PickedReplica {
        PickedReplica {
            pool: self.clone(),
            key: replica.key,
            instance: replica.instance.clone(),
            picked_at: now,
            probing,
            exempt: false,
        }
    }

    fn lock_members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A picked replica. Until this value is dropped, it counts as one request in flight at the replica.
#[derive(Debug)]
pub struct PickedReplica {
    pool: Arc<Pool>,
    key: ReplicaKey,
    instance: Arc<Instance>,
    picked_at: Instant,
    /// This request is a probe, and its outcome is not known yet.
    probing: bool,
    /// This request does not count toward [`Settings::max_in_flight`].
    exempt: bool,
}

impl PickedReplica {
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// See [`Pool::peer_tls`].
    pub fn peer_tls(&self) -> Option<&PeerTls> {
        self.pool.peer_tls()
    }

    /// Identifies the replica, for the `excluded` list of the next [`Pool::pick`].
    pub fn key(&self) -> ReplicaKey {
        self.key
    }

    /// From now on the request does not count toward [`Settings::max_in_flight`]. Use this for long requests, such as
    /// event streams, if the caller has its own limit for them.
    pub fn exempt_from_limit(&mut self) {
        if !std::mem::replace(&mut self.exempt, true)
            && let Some(replica) = self.pool.lock_members().get(self.key)
        {
            replica.exempt_in_flight += 1;
        }
    }

    /// Records the outcome. Call it when the head of the response has arrived, or the attempt has failed: the time
    /// since the pick counts as the replica's latency. It ignores an outcome that tells nothing about the replica,
    /// such as a stale connection.
    pub fn record(&mut self, outcome: RequestOutcome, now: Instant) {
        if outcome.is_conclusive() {
            self.probing = false;
            let closed_breaker = self.pool.lock_members().record(self.key, outcome, self.picked_at, now);
            if closed_breaker {
                self.pool.changed.notify_waiters();
            }
        }
    }

    /// Records that a health check has passed. Call this if you used [`Pool::pick_probe`] to send a health check instead of
    /// a client's request. If the check has failed, call [`Self::record`] instead.
    pub fn health_check_passed(&mut self, now: Instant) {
        self.probing = false;
        self.pool.lock_members().health_check_passed(self.key, now);
        self.pool.changed.notify_waiters();
    }
}

impl Drop for PickedReplica {
    fn drop(&mut self) {
        // After a probe without a conclusive outcome, the next request probes again.
        self.pool.lock_members().release(self.key, self.exempt, self.probing);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
