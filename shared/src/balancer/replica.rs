//! One replica: what is known of it, and whether it should be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;

use super::Instance;
use super::ejection::{Ejection, Verdict};
use super::ewma::PeakEwma;
use super::ring::points;

/// One replica, from its arrival until it is gone; one that comes back is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey(pub(super) u64);

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It answered.
    Answered {
        /// With this status,
        status: StatusCode,
        /// and, if it said so, when to come back.
        retry_after: Option<Duration>,
    },
    /// A fresh connection was refused or timed out.
    Unreachable,
    /// The connection broke before the answer was complete.
    Reset,
    /// It had the time that it should need, and did not answer.
    TimedOut,
    /// A connection kept from earlier turned out to be closed: that tells nothing about the replica.
    StaleConnection,
    /// What went wrong was not its doing: the caller went away, had hardly any time left, or was
    /// itself refused.
    OwnFault,
}

/// What an active check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// It is ready.
    Passed,
    /// It is not, or did not answer.
    Failed,
    /// It says that it is about to stop.
    Draining,
    /// It refused the connection.
    Refused,
}

/// How a replica is seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It gets its share.
    Healthy,
    /// Active checks fail, or none has passed yet.
    Unhealthy,
    /// Requests failed: it only gets a probe now and then.
    Ejected,
    /// It is about to stop, or has left the registry, and finishes what it has.
    Draining,
}

impl Health {
    /// Every way in which a replica can be seen.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unhealthy, Self::Ejected, Self::Draining];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// A replica as others see it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Who and where it is.
    pub instance: Arc<Instance>,
    /// How it is seen.
    pub health: Health,
    /// Requests that it has now.
    pub active_requests: usize,
    /// Requests that it got so far.
    pub requests: u64,
    /// Its average latency.
    pub latency: Duration,
}

const DOWN_AFTER: u32 = 3;
const UP_AFTER: u32 = 2;
/// A newcomer's share grows from a tenth to all over this time.
const SLOW_START: Duration = Duration::from_secs(10);
/// A pushback without a time.
const PUSHBACK: Duration = Duration::from_secs(1);
const LONGEST_PUSHBACK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: ReplicaKey,
    pub(super) instance: Arc<Instance>,
    pub(super) in_flight: usize,
    pub(super) ejection: Ejection,
    pub(super) ewma: PeakEwma,
    /// It is not registered any more.
    pub(super) leaving: bool,
    /// Where it stands on the ring of consistent hashing.
    pub(super) points: Vec<u64>,
    since: Instant,
    requests: u64,
    check: CheckState,
    /// The last connection to it was refused.
    refused: bool,
    slow_start: Option<Instant>,
    pushback: Option<Instant>,
}

/// What active checks say: `Up` falls after three failures, `Down` rises after two passes, and a
/// newcomer after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckState {
    New,
    Up { failed: u32 },
    Down { passed: u32 },
    Draining,
}

impl Member {
    pub(super) fn new(key: ReplicaKey, instance: Arc<Instance>, trusted: bool, now: Instant) -> Self {
        Self {
            key,
            points: points(&instance.id),
            instance,
            in_flight: 0,
            ejection: Ejection::new(now),
            ewma: PeakEwma::default(),
            leaving: false,
            since: now,
            requests: 0,
            check: if trusted { CheckState::Up { failed: 0 } } else { CheckState::New },
            refused: false,
            slow_start: None,
            pushback: None,
        }
    }

    /// Whether it has been here long enough that a newcomer need not take a full share at once.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.is_available() && now.saturating_duration_since(self.since) >= SLOW_START
    }

    pub(super) fn start_slowly(&mut self, now: Instant) {
        self.slow_start = Some(now);
    }

    /// Its share of the traffic, 0.1 to 1.
    pub(super) fn weight(&self, now: Instant) -> f64 {
        self.slow_start.map_or(1.0, |began| {
            let share = now.saturating_duration_since(began).as_secs_f64() / SLOW_START.as_secs_f64();
            share.clamp(0.1, 1.0)
        })
    }

    /// Whether it may be picked in the ordinary way.
    pub(super) fn is_available(&self) -> bool {
        matches!(self.check, CheckState::Up { .. }) && self.ejection.is_closed() && !self.leaving
    }

    /// Whether a replica that is not available is missed: who was never there, or goes, is not.
    pub(super) fn is_expected(&self) -> bool {
        matches!(self.check, CheckState::Up { .. } | CheckState::Down { .. }) && !self.leaving
    }

    /// Whether a real request should find out if it has recovered. Not while active checks fail.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        matches!(self.check, CheckState::Up { .. }) && self.ejection.wants_probe(now) && !self.leaving
    }

    pub(super) fn is_pushing_back(&self, now: Instant) -> bool {
        self.pushback.is_some_and(|until| now < until)
    }

    /// Whether even a pool in panic had better ask somebody else.
    pub(super) fn is_last_resort(&self) -> bool {
        self.refused || self.check == CheckState::Draining
    }

    pub(super) fn take(&mut self) {
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

    /// Takes in how a request that was sent at `sent` went; tells whether the replica just came back.
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
                let pause = retry_after.unwrap_or(PUSHBACK).min(LONGEST_PUSHBACK);
                self.pushback = Some(now + pause);
                // It answers: for a probe that is enough.
                if self.ejection.is_closed() {
                    return false;
                }
                Verdict::Good
            }
            RequestOutcome::Answered { status, .. } if status.is_server_error() => Verdict::Bad,
            RequestOutcome::Answered { .. } => Verdict::Good,
            RequestOutcome::Unreachable => Verdict::Unreachable,
            RequestOutcome::Reset | RequestOutcome::TimedOut => Verdict::Bad,
            RequestOutcome::StaleConnection | RequestOutcome::OwnFault => return false,
        };
        self.ejection.record(verdict, sent, may_eject, now)
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let health = match self.check {
            _ if self.leaving => Health::Draining,
            CheckState::Draining => Health::Draining,
            CheckState::New | CheckState::Down { .. } => Health::Unhealthy,
            CheckState::Up { .. } if self.ejection.is_closed() => Health::Healthy,
            CheckState::Up { .. } => Health::Ejected,
        };
        Snapshot {
            instance: self.instance.clone(),
            health,
            active_requests: self.in_flight,
            requests: self.requests,
            latency: Duration::from_secs_f64(self.ewma.seconds(now).unwrap_or_default()),
        }
    }
}

impl RequestOutcome {
    /// Whether it tells anything about the replica.
    pub(super) fn is_telling(self) -> bool {
        !matches!(self, Self::StaleConnection | Self::OwnFault)
    }

    /// Whether the request failed.
    pub(super) fn is_failure(self) -> bool {
        !matches!(self, Self::Answered { status, .. } if !status.is_server_error())
    }
}

/// "Not now": 429, or 503 that says when to come back.
fn is_pushback(status: StatusCode, retry_after: Option<Duration>) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some())
}
