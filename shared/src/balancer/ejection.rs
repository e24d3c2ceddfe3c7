//! Circuit breaker of one replica (Envoy: outlier ejection).
//!
//! ```text
//! Closed ──5 failures in a row, or < 80 % success of ≥ 20 in 10 s, or unreachable──► Open (1, 2, 4 … 30 s)
//!   ▲                                                                                 │ time is over
//!   └─────────── success ─────────── HalfOpen (one request probes) ◄──────────────────┘
//!                                      └──── failure ────► Open, for longer
//! ```
//!
//! The probe is a request that may be sent twice, or a health check. If a health check closed the breaker, the next
//! failure opens it again, for longer.
//!
//! Outcomes of requests that were sent before the breaker opened are ignored. Under load there are always
//! some such requests, and their success must not close the breaker.

use std::time::{Duration, Instant};

const CONSECUTIVE_FAILURES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);
const MIN_REQUESTS: u32 = 20;
const MIN_SUCCESS_RATE: f64 = 0.8;
const FIRST_OPEN: Duration = Duration::from_secs(1);
const MAX_OPEN: Duration = Duration::from_secs(30);

/// `times` counts how often the breaker has opened in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open { since: Instant, until: Instant, times: u32 },
    HalfOpen { since: Instant, times: u32 },
}

#[derive(Debug, Clone)]
pub(super) struct Ejection {
    state: State,
    bad_in_a_row: u32,
    window_began: Instant,
    good: u32,
    bad: u32,
    /// How often the breaker had opened in a row when a health check closed it; otherwise 0. If it is not 0, the next
    /// failure opens the breaker again.
    trial: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    Unreachable,
}

impl Ejection {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Closed, bad_in_a_row: 0, window_began: now, good: 0, bad: 0, trial: 0 }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The time when the breaker opened; `None` if it is closed.
    pub(super) fn since(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Open { since, .. } | State::HalfOpen { since, .. } => Some(since),
        }
    }

    /// The time of the next probe; `None` if the breaker is closed, or a probe runs.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Whether the next request should be a probe.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { until, .. } if until <= now)
    }

    /// A probe is being sent.
    pub(super) fn probe_started(&mut self) {
        if let State::Open { since, times, .. } = self.state {
            self.state = State::HalfOpen { since, times };
        }
    }

    /// The probe ended without a verdict, for example because the client disconnected. The next request is a probe.
    pub(super) fn probe_again(&mut self) {
        if let State::HalfOpen { since, times } = self.state {
            self.state = State::Open { since, until: since, times };
        }
    }

    /// A health check has passed as the probe. That proves less than a request, so the breaker closes on trial.
    pub(super) fn probe_passed(&mut self, now: Instant) {
        if let State::HalfOpen { times, .. } = self.state {
            *self = Self { trial: times, ..Self::new(now) };
        }
    }

    /// Records the outcome of a request sent at `sent`; returns whether it closed the breaker.
    pub(super) fn record(&mut self, verdict: Verdict, sent: Instant, may_eject: bool, now: Instant) -> bool {
        if self.since().is_some_and(|since| sent <= since) {
            return false;
        }
        self.count(verdict, now);
        match (self.state, verdict) {
            (State::Closed, _) if may_eject && self.exceeds_limits(verdict) => self.open(self.trial + 1, now),
            (State::HalfOpen { .. } | State::Open { .. }, Verdict::Good) => {
                *self = Self::new(now);
                return true;
            }
            (State::HalfOpen { times, .. }, _) => self.open(times + 1, now),
            (State::Closed | State::Open { .. }, _) => {}
        }
        false
    }

    fn open(&mut self, times: u32, now: Instant) {
        let base = FIRST_OPEN.saturating_mul(1 << (times - 1).min(10)).min(MAX_OPEN);
        // ± 50 %, so that several balancers do not probe at the same time.
        let until = now + base.mul_f64(0.5 + rand::random::<f64>());
        self.state = State::Open { since: now, until, times };
    }

    fn count(&mut self, verdict: Verdict, now: Instant) {
        if now.saturating_duration_since(self.window_began) >= WINDOW {
            (self.window_began, self.good, self.bad) = (now, 0, 0);
        }
        match verdict {
            Verdict::Good => (self.good, self.bad_in_a_row, self.trial) = (self.good + 1, 0, 0),
            _ => (self.bad, self.bad_in_a_row) = (self.bad + 1, self.bad_in_a_row + 1),
        }
    }

    fn exceeds_limits(&self, verdict: Verdict) -> bool {
        let seen = self.good + self.bad;
        verdict == Verdict::Unreachable
            || (self.trial > 0 && verdict == Verdict::Bad)
            || self.bad_in_a_row >= CONSECUTIVE_FAILURES
            || (seen >= MIN_REQUESTS && f64::from(self.good) < MIN_SUCCESS_RATE * f64::from(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ejection: &mut Ejection, verdicts: &[Verdict], now: Instant) -> bool {
        for verdict in verdicts {
            ejection.record(*verdict, now, true, now);
        }
        ejection.is_closed()
    }

    #[test]
    fn five_failures_in_a_row_eject() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        assert!(after(&mut ejection, &[Verdict::Bad; 4], now));
        assert!(after(&mut ejection, &[Verdict::Good], now));
        assert!(after(&mut ejection, &[Verdict::Bad; 4], now));
        assert!(!after(&mut ejection, &[Verdict::Bad], now));
    }

    #[test]
    fn under_eighty_per_cent_good_of_twenty_in_ten_seconds_ejects() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        for answer in 0..20 {
            assert!(ejection.is_closed(), "{answer}");
            // 15 of 20 are good.
            after(&mut ejection, &[if answer % 4 == 3 { Verdict::Bad } else { Verdict::Good }], now);
        }
        assert!(!ejection.is_closed());
    }

    #[test]
    fn eighty_per_cent_success_does_not_eject() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        for answer in 0..100 {
            after(&mut ejection, &[if answer % 5 == 4 { Verdict::Bad } else { Verdict::Good }], now);
        }
        assert!(ejection.is_closed());
    }

    #[test]
    fn old_failures_are_forgotten() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        for answer in 0..40u32 {
            let at = now + Duration::from_secs(1) * answer;
            after(&mut ejection, &[if answer % 3 == 0 { Verdict::Bad } else { Verdict::Good }], at);
        }
        assert!(ejection.is_closed(), "never 20 within 10 s");
    }

    #[test]
    fn an_unreachable_replica_is_ejected_immediately_and_probed_with_growing_pauses() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        assert!(!after(&mut ejection, &[Verdict::Unreachable], now));
        let mut at = now;
        for (times, base) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            let base = Duration::from_secs(base);
            assert!(!ejection.wants_probe(at + base.mul_f64(0.49)), "{times}");
            at += base.mul_f64(1.51);
            assert!(ejection.wants_probe(at), "{times}");
            ejection.probe_started();
            assert!(!ejection.wants_probe(at), "one probe at a time");
            after(&mut ejection, &[Verdict::Bad], at);
        }
    }

    #[test]
    fn one_success_closes_it() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        after(&mut ejection, &[Verdict::Unreachable], now);
        ejection.probe_started();
        let later = now + Duration::from_secs(2);
        assert!(ejection.record(Verdict::Good, later, true, later));
        assert!(ejection.is_closed());
    }

    #[test]
    fn after_a_passed_check_one_failure_opens_it_for_longer_and_one_success_closes_it() {
        let now = Instant::now();
        let on_trial = || {
            let mut ejection = Ejection::new(now);
            after(&mut ejection, &[Verdict::Unreachable], now);
            ejection.probe_started();
            ejection.probe_passed(now + Duration::from_secs(2));
            assert!(ejection.is_closed());
            ejection
        };
        let (mut fails, later) = (on_trial(), now + Duration::from_secs(3));
        assert!(!after(&mut fails, &[Verdict::Bad], later));
        assert!(!fails.wants_probe(later + Duration::from_millis(990)), "two seconds ± 50 %");
        let mut succeeds = on_trial();
        assert!(after(&mut succeeds, &[Verdict::Good, Verdict::Bad, Verdict::Bad], later));
    }

    #[test]
    fn answers_to_requests_sent_before_the_ejection_change_nothing() {
        let now = Instant::now();
        let mut ejection = Ejection::new(now);
        let ejected = now + Duration::from_secs(1);
        after(&mut ejection, &[Verdict::Unreachable], ejected);
        assert!(!ejection.record(Verdict::Good, now, true, ejected + Duration::from_millis(1)));
        assert!(!ejection.is_closed());
    }
}
