//! The state of a pool: its members, and which of them are candidates for the next request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Instance;
use super::ejection::Ejection;
use super::picker::Picker;
use super::replica::{CheckResult, Maintenance, ReplicaKey, ReplicaState, RequestOutcome};

/// The health checks that decide whether a replica gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSource {
    /// Checks of the registry. A new replica gets requests immediately, because replicas register when they are ready.
    Registry,
    /// Checks of this program. A new replica gets requests after its first successful check.
    ActiveChecks,
}

/// Why no replica could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// No replica is registered, or all are excluded.
    #[error("no replica is known")]
    NoCandidate,
    /// Every candidate has its maximum of concurrent requests.
    #[error("every replica is busy")]
    AllBusy,
}

/// Cap of the mean latency in the penalty for an error.
const MEAN_CAP: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Members {
    /// Sorted by key, that is, by time of registration.
    replicas: Vec<ReplicaState>,
    next_key: u64,
}

impl Members {
    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaState> {
        self.replicas.iter()
    }

    pub(super) fn get(&mut self, key: ReplicaKey) -> Option<&mut ReplicaState> {
        self.replicas.iter_mut().find(|replica| replica.key == key)
    }

    pub(super) fn update(&mut self, instances: &[Instance], health_source: HealthSource, now: Instant) {
        for replica in &mut self.replicas {
            replica.leaving = !instances.contains(&replica.instance);
        }
        self.remove_departed();
        for instance in instances {
            self.add(instance, health_source, now);
        }
        self.readmit_surplus(now);
    }

    fn add(&mut self, instance: &Instance, health_source: HealthSource, now: Instant) {
        if self.replicas.iter().any(|replica| *replica.instance == *instance) {
            return;
        }
        let trusted = health_source == HealthSource::Registry;
        let slow_start = trusted && self.has_established(now);
        let key = ReplicaKey(self.next_key);
        self.next_key += 1;
        let mut replica = ReplicaState::new(key, Arc::new(instance.clone()), trusted, now);
        if slow_start {
            replica.begin_slow_start(now);
        }
        self.replicas.push(replica);
    }

    /// Readmits replicas while more are ejected than the pool allows, which happens when it shrinks. The replica that
    /// was ejected first is readmitted first.
    fn readmit_surplus(&mut self, now: Instant) {
        let (ejected, most) = self.ejected();
        let mut since: Vec<_> =
            self.registered().filter_map(|one| one.ejection.since().map(|since| (since, one.key))).collect();
        since.sort_unstable();
        for (_, key) in since.into_iter().take(ejected.saturating_sub(most)) {
            if let Some(replica) = self.get(key) {
                replica.ejection = Ejection::new(now);
            }
        }
    }

    pub(super) fn report_check(&mut self, id: &str, report: CheckResult, now: Instant) {
        let slow_start = self.has_established(now);
        for replica in self.replicas.iter_mut().filter(|replica| replica.instance.id == id) {
            let was_available = replica.is_available();
            replica.report(report);
            if slow_start && !was_available && replica.is_available() {
                replica.begin_slow_start(now);
            }
        }
    }

    /// Puts the instance `id` into maintenance, or ends that. Returns whether it is registered.
    pub(super) fn set_maintenance(
        &mut self,
        id: &str,
        maintenance: Option<Maintenance>,
        now: Instant,
    ) -> bool {
        let slow_start = self.has_established(now);
        let mut found = false;
        for replica in self.replicas.iter_mut().filter(|one| one.instance.id == id && !one.leaving) {
            found = true;
            let was_available = replica.is_available();
            replica.set_maintenance(maintenance);
            if slow_start && !was_available && replica.is_available() {
                replica.begin_slow_start(now);
            }
        }
        found
    }

    /// Ends each maintenance whose time is over; returns whether there was one.
    pub(super) fn end_expired_maintenance(&mut self, now: Instant) -> bool {
        let over = self.replicas.iter().filter(|replica| replica.is_maintenance_over(now));
        let over: Vec<_> = over.map(|replica| replica.instance.id.clone()).collect();
        for id in &over {
            self.set_maintenance(id, None, now);
        }
        !over.is_empty()
    }

    pub(super) fn apply_registry_checks(&mut self, failing: &BTreeSet<String>, now: Instant) {
        let slow_start = self.has_established(now);
        for replica in &mut self.replicas {
            let was_available = replica.is_available();
            replica.apply_registry_check(failing.contains(&replica.instance.id));
            if slow_start && !was_available && replica.is_available() {
                replica.begin_slow_start(now);
            }
        }
    }

    /// An ejected replica that is due for a probe.
    pub(super) fn due_probe(&self, excluded: &[ReplicaKey], now: Instant) -> Option<ReplicaKey> {
        let mut due = self.all().filter(|one| one.wants_probe(now) && !excluded.contains(&one.key));
        due.next().map(|replica| replica.key)
    }

    pub(super) fn choose(
        &self,
        picker: &Picker,
        affinity: Option<&str>,
        excluded: &[ReplicaKey],
        max_in_flight: usize,
        now: Instant,
    ) -> Result<ReplicaKey, PickError> {
        let mut candidates = self.candidates(excluded, now);
        if candidates.is_empty() {
            return Err(PickError::NoCandidate);
        }
        candidates.retain(|replica| replica.in_flight - replica.exempt_in_flight < max_in_flight);
        picker.pick(&candidates, affinity, now).ok_or(PickError::AllBusy)
    }

    /// The replicas of the first group that is not empty: available replicas that do not push back, available replicas
    /// that do, all others except those of last resort, those of last resort. In a panicking pool, the first two groups
    /// are empty.
    fn candidates(&self, excluded: &[ReplicaKey], now: Instant) -> SmallVec<[&ReplicaState; 8]> {
        let is_panicking = self.is_panicking();
        let group = |one: &ReplicaState| match (one.is_available() && !is_panicking, one.is_last_resort()) {
            (true, _) => usize::from(one.is_pushing_back(now)),
            (false, false) => 2,
            (false, true) => 3,
        };
        let left = || self.registered().filter(|one| !excluded.contains(&one.key));
        let best = left().map(group).min();
        left().filter(|one| Some(group(one)) == best).collect()
    }

    /// Whether less than half of the pool is available (Envoy's panic threshold). The few available replicas would be
    /// overloaded, so the whole pool is used.
    fn is_panicking(&self) -> bool {
        let expected = self.registered().filter(|one| one.is_expected());
        2 * self.registered().filter(|one| one.is_available()).count() < expected.count()
    }

    /// The number of ejected replicas, and its maximum: half of the pool, rounded down.
    fn ejected(&self) -> (usize, usize) {
        let ejected = self.registered().filter(|replica| !replica.ejection.is_closed()).count();
        (ejected, self.registered().count() / 2)
    }

    /// Returns whether the outcome has closed the replica's circuit breaker.
    pub(super) fn record(
        &mut self,
        key: ReplicaKey,
        outcome: RequestOutcome,
        sent: Instant,
        now: Instant,
    ) -> bool {
        let (ejected, most) = self.ejected();
        let slow_start = self.has_established(now);
        // A replica that fails fast must not look fast, so an error counts as ten times the mean latency. Errors raise
        // this mean, so it needs a cap.
        let least = match outcome.is_failure() {
            true => 10 * self.mean_latency(now).min(MEAN_CAP),
            false => Duration::ZERO,
        };
        let Some(replica) = self.get(key) else { return false };
        replica.ewma.observe(now.saturating_duration_since(sent).max(least), now);
        let closed = replica.record(outcome, sent, ejected < most, now);
        if closed && slow_start {
            replica.begin_slow_start(now);
        }
        closed
    }

    pub(super) fn health_check_passed(&mut self, key: ReplicaKey, now: Instant) {
        let slow_start = self.has_established(now);
        let Some(replica) = self.get(key) else { return };
        replica.ejection.probe_passed(now);
        if slow_start {
            replica.begin_slow_start(now);
        }
    }

    pub(super) fn release(&mut self, key: ReplicaKey, exempt: bool, probe_again: bool) {
        if let Some(replica) = self.get(key) {
            replica.in_flight -= 1;
            replica.exempt_in_flight -= usize::from(exempt);
            if probe_again {
                replica.ejection.probe_again();
            }
        }
        self.remove_departed();
    }

    fn remove_departed(&mut self) {
        self.replicas.retain(|replica| !replica.leaving || replica.in_flight > 0);
    }

    fn registered(&self) -> impl Iterator<Item = &ReplicaState> {
        self.replicas.iter().filter(|replica| !replica.leaving)
    }

    /// Whether another replica can carry the load during a slow start.
    fn has_established(&self, now: Instant) -> bool {
        self.replicas.iter().any(|replica| replica.is_established(now))
    }

    fn mean_latency(&self, now: Instant) -> Duration {
        let known: Vec<f64> = self.replicas.iter().filter_map(|replica| replica.ewma.seconds(now)).collect();
        Duration::from_secs_f64(known.iter().sum::<f64>() / known.len().max(1) as f64)
    }
}
