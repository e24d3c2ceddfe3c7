//! Retry policy, shared by the gateway and the service client. Pure: the caller does the I/O and passes the
//! time.
//!
//! | failure | which requests are retried | retries |
//! |---|---|---|
//! | no connection | all, because nothing was sent | two, without a pause, on other replicas |
//! | connection reset before the response, or 502, 503, 504 | safe methods and requests with an idempotency key, if the body can be sent again; only by the outermost hop, and within the retry budget | one, after a jittered pause |
//! | anything else | none | |

use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode};

use super::{Backoff, Budget};

/// The properties of a request that decide whether it may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Sending it twice has the same effect as sending it once.
    pub idempotent: bool,
    /// The body is buffered, so that it can be sent again.
    pub body_buffered: bool,
    /// No hop before this one retries.
    pub outermost: bool,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made.
    Unreachable,
    /// The connection broke before the response.
    Reset,
    Answered(StatusCode),
    TimedOut,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable => f.write_str("unreachable"),
            Self::Reset => f.write_str("reset"),
            Self::Answered(status) => f.write_str(status.as_str()),
            Self::TimedOut => f.write_str("timeout"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Retry after this pause.
    Again(Duration),
    /// Return the failure to the caller.
    GiveUp,
}

/// Counts the failed attempts of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    unreachable: u32,
    others: u32,
}

/// Retries after failed connections.
const MAX_RECONNECTS: u32 = 2;
/// Bodies up to this size, in bytes, are buffered for a retry.
pub const REPLAY_LIMIT: usize = 64 * 1024;

const PAUSE: Backoff = Backoff { first: Duration::from_millis(25), longest: Duration::from_millis(25) };

impl Attempts {
    /// Decides whether to retry after `failure`. `left` is the time until the deadline. A retry of a request that was
    /// sent is withdrawn from `budget`.
    pub fn decide(
        &mut self,
        request: Request,
        failure: Failure,
        left: Duration,
        budget: &Budget,
        now: Instant,
    ) -> Decision {
        let pause = match failure {
            Failure::Unreachable if self.unreachable < MAX_RECONNECTS => {
                self.unreachable += 1;
                Duration::ZERO
            }
            Failure::Reset | Failure::Answered(_)
                if self.others == 0
                    && request.is_retryable()
                    && failure.is_transient()
                    && budget.take(now) =>
            {
                self.others += 1;
                PAUSE.delay(1)
            }
            _ => return Decision::GiveUp,
        };
        if pause < left { Decision::Again(pause) } else { Decision::GiveUp }
    }

    pub fn count(&self) -> u32 {
        self.unreachable + self.others
    }
}

impl Request {
    fn is_retryable(self) -> bool {
        self.idempotent && self.body_buffered && self.outermost
    }
}

impl Failure {
    fn is_transient(self) -> bool {
        match self {
            Self::Answered(status) => matches!(status.as_u16(), 502..=504),
            Self::Reset | Self::Unreachable => true,
            Self::TimedOut => false,
        }
    }
}

/// Whether `method` changes nothing (RFC 9110 §9.2.1).
pub fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: Request = Request { idempotent: true, body_buffered: true, outermost: true };
    const BAD: Failure = Failure::Answered(StatusCode::BAD_GATEWAY);
    const LEFT: Duration = Duration::from_secs(5);

    fn decisions(request: Request, failure: Failure) -> usize {
        let now = Instant::now();
        let (mut attempts, budget) = (Attempts::default(), Budget::new(now));
        (0..10)
            .take_while(|_| attempts.decide(request, failure, LEFT, &budget, now) != Decision::GiveUp)
            .count()
    }

    #[test]
    fn a_refused_connection_is_retried_on_two_more_replicas_for_any_request() {
        let unsafe_request = Request { idempotent: false, body_buffered: false, outermost: false };
        assert_eq!(decisions(unsafe_request, Failure::Unreachable), 2);
    }

    #[test]
    fn an_idempotent_request_is_retried_once_after_a_reset_or_a_transient_failure() {
        for failure in [Failure::Reset, BAD, Failure::Answered(StatusCode::SERVICE_UNAVAILABLE)] {
            assert_eq!(decisions(KEYED, failure), 1, "{failure:?}");
        }
    }

    #[test]
    fn nothing_else_is_retried() {
        for failure in [Failure::TimedOut, Failure::Answered(StatusCode::INTERNAL_SERVER_ERROR)] {
            assert_eq!(decisions(KEYED, failure), 0, "{failure:?}");
        }
        for request in [
            Request { idempotent: false, ..KEYED },
            Request { body_buffered: false, ..KEYED },
            Request { outermost: false, ..KEYED },
        ] {
            assert_eq!(decisions(request, BAD), 0, "{request:?}");
        }
    }

    #[test]
    fn no_retry_goes_past_the_deadline_or_the_budget() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let late = Attempts::default().decide(KEYED, BAD, Duration::ZERO, &budget, now);
        assert_eq!(late, Decision::GiveUp);
        while budget.take(now) {}
        assert_eq!(Attempts::default().decide(KEYED, BAD, LEFT, &budget, now), Decision::GiveUp);
    }
}
