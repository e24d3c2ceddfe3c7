//! The state of one replica: health checks, circuit breaker, latency, slow start, back-pressure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;

use super::Instance;
use super::ejection::{Ejection, Verdict};
use super::ewma::PeakEwma;
use super::ring::points;

/// Identifies a replica from its registration to its removal. A restarted replica gets a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey(pub(super) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    Answered {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
    /// A new connection was refused or timed out.
    Unreachable,
    /// The connection broke before the response was complete.
    Reset,
    /// No response within a reasonable time.
    TimedOut,
    /// The server had closed the idle connection. This says nothing about the replica's health.
    StaleConnection,
    /// The caller caused the failure: it disconnected, left too little time, or sent a bad request.
    CallerFault,
}

/// Result of an active health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    Passed,
    /// Not ready, or no response in time.
    Failed,
    /// The replica reports that it is shutting down.
    Draining,
    /// Connection refused.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Gets requests.
    Healthy,
    /// Active health checks fail, or none has succeeded yet.
    Unhealthy,
    /// The circuit breaker is open: the replica gets only probes.
    Ejected,
    /// Shutting down or deregistered: running requests finish.
    Draining,
}

impl Health {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unhealthy, Self::Ejected, Self::Draining];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// The state of a replica at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub instance: Arc<Instance>,
    pub health: Health,
    /// Requests in flight.
    pub active_requests: usize,
    /// Requests since registration.
    pub requests: u64,
    /// Moving average; zero if unknown.
    pub latency: Duration,
    /// The replica's share of the traffic, 0 to 1.
    pub weight: f64,
    /// Why the replica is not healthy: a code.
    pub reason: Option<&'static str>,
    /// When the ejection, or the maintenance, ends.
    pub until: Option<Instant>,
}

/// An admin has taken the replica out of rotation: it gets requests only if no other replica is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    Until(Instant),
    /// Until the admin ends it.
    Indefinite,
}

/// Failed checks in a row until a replica is unhealthy.
const DOWN_AFTER: u32 = 3;
/// Successful checks in a row until it is healthy again.
const UP_AFTER: u32 = 2;
/// During this time the share of a new or recovered replica grows from 10 % to 100 %.
const SLOW_START: Duration = Duration::from_secs(10);
/// Back-pressure of a response without `Retry-After`.
const DEFAULT_PUSHBACK: Duration = Duration::from_secs(1);
const MAX_PUSHBACK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct ReplicaState {
    pub(super) key: ReplicaKey,
    pub(super) instance: Arc<Instance>,
    pub(super) in_flight: usize,
    /// The number of requests in flight that do not count toward the maximum.
    pub(super) exempt_in_flight: usize,
    pub(super) ejection: Ejection,
    pub(super) ewma: PeakEwma,
    /// Deregistered.
    pub(super) leaving: bool,
    /// Points on the hash ring.
    pub(super) points: Vec<u64>,
    since: Instant,
    requests: u64,
    check: CheckState,
    /// The last connection attempt was refused.
    refused: bool,
    /// Begin of the slow start.
    slow_start: Option<Instant>,
    /// The replica has asked for a pause until this time.
    pushback: Option<Instant>,
    maintenance: Option<Maintenance>,
}

/// Result of the active checks: `Up` becomes `Down` after three failures, `Down` becomes `Up` after two
/// successes, and `New` after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckState {
    New,
    Up { failed: u32 },
    Down { passed: u32 },
    Draining,
}

impl ReplicaState {
    pub(super) fn new(key: ReplicaKey, instance: Arc<Instance>, trusted: bool, now: Instant) -> Self {
        Self {
            key,
            points: points(&instance.id),
            instance,
            in_flight: 0,
            exempt_in_flight: 0,
            ejection: Ejection::new(now),
            ewma: PeakEwma::default(),
            leaving: false,
            since: now,
            requests: 0,
            check: if trusted { CheckState::Up { failed: 0 } } else { CheckState::New },
            refused: false,
            slow_start: None,
            pushback: None,
            maintenance: None,
        }
    }

    /// Whether the replica is available and was registered at least [`SLOW_START`] ago. It can then carry the load
    /// while others start slowly.
    pub(super) fn is_established(&self, now: Instant) -> bool {
        self.is_available() && now.saturating_duration_since(self.since) >= SLOW_START
    }

    pub(super) fn begin_slow_start(&mut self, now: Instant) {
        self.slow_start = Some(now);
    }

    /// The replica's share of the traffic, 0.1 to 1. It is below 1 during the slow start.
    pub(super) fn weight(&self, now: Instant) -> f64 {
        self.slow_start.map_or(1.0, |began| {
            let share = now.saturating_duration_since(began).as_secs_f64() / SLOW_START.as_secs_f64();
            share.clamp(0.1, 1.0)
        })
    }

    pub(super) fn is_available(&self) -> bool {
        matches!(self.check, CheckState::Up { .. })
            && self.ejection.is_closed()
            && !self.leaving
            && self.maintenance.is_none()
    }

    pub(super) fn set_maintenance(&mut self, maintenance: Option<Maintenance>) {
        self.maintenance = maintenance;
    }

    /// Whether the time of the replica's maintenance is over.
    pub(super) fn is_maintenance_over(&self, now: Instant) -> bool {
        matches!(self.maintenance, Some(Maintenance::Until(until)) if until <= now)
    }

    /// Whether the replica counts toward the panic threshold. A replica that was never up, drains, is in maintenance or is
    /// deregistered does not count.
    pub(super) fn is_expected(&self) -> bool {
        let is_known = matches!(self.check, CheckState::Up { .. } | CheckState::Down { .. });
        is_known && !self.leaving && self.maintenance.is_none()
    }

    /// Whether the next request should be a probe of this replica. Never true while active checks fail.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        matches!(self.check, CheckState::Up { .. })
            && self.ejection.wants_probe(now)
            && !self.leaving
            && self.maintenance.is_none()
    }

    pub(super) fn is_pushing_back(&self, now: Instant) -> bool {
        self.pushback.is_some_and(|until| now < until)
    }

    /// Whether even a panicking pool prefers all other replicas.
    pub(super) fn is_last_resort(&self) -> bool {
        self.refused || self.check == CheckState::Draining || self.maintenance.is_some()
    }

    pub(super) fn begin_request(&mut self) {
        self.in_flight += 1;
        self.requests += 1;
    }

    pub(super) fn report(&mut self, report: CheckResult) {
        self.refused = report == CheckResult::Refused;
        self.check = match (self.check, report) {
            (_, CheckResult::Draining) => CheckState::Draining,
            (CheckState::New | CheckState::Up { .. }, CheckResult::Passed) => CheckState::Up { failed: 0 },
            (CheckState::Up { failed }, _) if failed + 1 < DOWN_AFTER => {
                CheckState::Up { failed: failed + 1 }
            }
            (CheckState::Down { passed }, CheckResult::Passed) if passed + 1 >= UP_AFTER => {
                CheckState::Up { failed: 0 }
            }
            (CheckState::Down { passed }, CheckResult::Passed) => CheckState::Down { passed: passed + 1 },
            (CheckState::Draining, CheckResult::Passed) => CheckState::Down { passed: 1 },
            (_, CheckResult::Failed | CheckResult::Refused) => CheckState::Down { passed: 0 },
        };
    }

    /// Applies the result of the registry's check. One result is enough to change the state, because the registry has
    /// already counted several checks.
    pub(super) fn apply_registry_check(&mut self, fails: bool) {
        self.check = match (self.check, fails) {
            (CheckState::Up { .. }, true) => CheckState::Down { passed: 0 },
            (CheckState::Down { .. }, false) => CheckState::Up { failed: 0 },
            (check, _) => check,
        };
    }

    /// Records the outcome of a request sent at `sent`; returns whether it closed the circuit breaker.
    pub(super) fn record(
        &mut self,
        outcome: RequestOutcome,
        sent: Instant,
        may_eject: bool,
        now: Instant,
    ) -> bool {
        self.refused = outcome == RequestOutcome::Unreachable;
        let verdict = match outcome {
            RequestOutcome::Answered { status, retry_after } if is_pushback(status, retry_after) => {
                let pause = retry_after.unwrap_or(DEFAULT_PUSHBACK).min(MAX_PUSHBACK);
                self.pushback = Some(now + pause);
                // As the response to a probe, back-pressure counts as a success.
                if self.ejection.is_closed() {
                    return false;
                }
                Verdict::Good
            }
            RequestOutcome::Answered { status, .. } if status.is_server_error() => Verdict::Bad,
            RequestOutcome::Answered { .. } => Verdict::Good,
            RequestOutcome::Unreachable => Verdict::Unreachable,
            RequestOutcome::Reset | RequestOutcome::TimedOut => Verdict::Bad,
            RequestOutcome::StaleConnection | RequestOutcome::CallerFault => return false,
        };
        self.ejection.record(verdict, sent, may_eject, now)
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let (health, reason) = match (self.check, self.maintenance) {
            _ if self.leaving => (Health::Draining, Some("leaving")),
            (CheckState::Draining, _) => (Health::Draining, Some("draining")),
            (_, Some(Maintenance::Indefinite)) => (Health::Draining, Some("drained_by_admin")),
            (_, Some(Maintenance::Until(_))) => (Health::Ejected, Some("ejected_by_admin")),
            (CheckState::New, _) => (Health::Unhealthy, Some("check_pending")),
            (CheckState::Down { .. }, _) if self.refused => (Health::Unhealthy, Some("unreachable")),
            (CheckState::Down { .. }, _) => (Health::Unhealthy, Some("check_failed")),
            (CheckState::Up { .. }, _) if self.ejection.is_closed() => (Health::Healthy, None),
            (CheckState::Up { .. }, _) if self.refused => (Health::Ejected, Some("unreachable")),
            (CheckState::Up { .. }, _) => (Health::Ejected, Some("failures")),
        };
        let until = match self.maintenance {
            Some(Maintenance::Until(until)) => Some(until),
            Some(Maintenance::Indefinite) => None,
            None => self.ejection.until(),
        };
        Snapshot {
            instance: self.instance.clone(),
            health,
            active_requests: self.in_flight,
            requests: self.requests,
            latency: Duration::from_secs_f64(self.ewma.seconds(now).unwrap_or_default()),
            weight: self.weight(now),
            reason,
            until: until.filter(|_| health != Health::Healthy),
        }
    }
}

/// If a replica had less time than this, a timeout does not count as its failure.
const MIN_FAIR_TIME: Duration = Duration::from_millis(500);

impl RequestOutcome {
    /// The outcome of a request that the replica had to answer within `time`. If this time was too short, a timeout
    /// does not count as a failure of the replica. A 504 response is a timeout too.
    pub fn within(self, time: Duration) -> Self {
        let timed_out =
            matches!(self, Self::TimedOut | Self::Answered { status: StatusCode::GATEWAY_TIMEOUT, .. });
        if timed_out && time < MIN_FAIR_TIME { Self::CallerFault } else { self }
    }

    /// Whether this outcome says anything about the replica's health.
    pub fn is_conclusive(self) -> bool {
        !matches!(self, Self::StaleConnection | Self::CallerFault)
    }

    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Answered { status, .. } if !status.is_server_error())
    }

    /// The replica asks for fewer requests.
    pub fn is_pushback(self) -> bool {
        matches!(self, Self::Answered { status, retry_after } if is_pushback(status, retry_after))
    }
}

/// Back-pressure: 429, or 503 with `Retry-After`.
fn is_pushback(status: StatusCode, retry_after: Option<Duration>) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some())
}
