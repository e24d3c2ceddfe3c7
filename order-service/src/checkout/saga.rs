//! The state of a saga, and its time limits.

use std::time::Duration;

use shared::resilience::Backoff;
use time::OffsetDateTime;
use uuid::Uuid;

/// Limits the wait for an authorization. The stock is reserved during this time.
pub const AUTHORIZE_TIMEOUT: Duration = Duration::from_secs(30);
/// Limits authorization and capture together, and each compensation.
pub const OVERALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Limits the wait for the answer to one command. A slow card network may need this long.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The pause after [`ANSWER_TIMEOUT`] before a command is sent again. payment-service ignores duplicates.
pub const RETRY: Backoff = Backoff { first: Duration::from_secs(4), longest: Duration::from_secs(16) };

/// The progress of one checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    pub step: Step,
    /// How often the command of the step was sent.
    pub attempts: i64,
    /// If the step has no answer at this time, the saga becomes stuck.
    pub deadline: OffsetDateTime,
    /// When the timer expires. `None` if the saga is done or stuck.
    pub wake_at: Option<OffsetDateTime>,
    /// The last error of this step.
    pub last_error: Option<String>,
}

/// The current step of the payment. The customer does not see it, but sees a [`crate::domain::Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Authorize,
    Capture,
    Void,
    Refund,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// A timer limits the wait for an answer.
    Running,
    /// No timer is set: only a late event or an admin continues the saga.
    Stuck,
    Done,
}

impl Saga {
    pub fn begin(now: OffsetDateTime) -> Self {
        Self {
            step: Step::Authorize,
            attempts: 1,
            deadline: now + OVERALL_TIMEOUT,
            wake_at: Some(now + AUTHORIZE_TIMEOUT),
            last_error: None,
        }
    }

    pub fn progress(&self) -> Progress {
        match (self.step, self.wake_at) {
            (Step::Done, _) => Progress::Done,
            (_, Some(_)) => Progress::Running,
            (_, None) => Progress::Stuck,
        }
    }

    pub fn is_stuck(&self) -> bool {
        self.progress() == Progress::Stuck
    }

    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        self.wake_at.is_some_and(|at| at <= now)
    }

    /// Enters `step`. A compensation gets a new deadline. A capture keeps the deadline of the authorization.
    pub(super) fn enter(&self, step: Step, order: Uuid, now: OffsetDateTime) -> Self {
        let deadline = match step {
            Step::Void | Step::Refund => now + OVERALL_TIMEOUT,
            Step::Authorize | Step::Capture | Step::Done => self.deadline,
        };
        let entered = Self { step, attempts: 0, deadline, wake_at: None, last_error: None };
        if step == Step::Done { entered } else { entered.attempt(order, now) }
    }

    /// Counts a command that is sent now, and sets the timer for its answer.
    pub(super) fn attempt(self, order: Uuid, now: OffsetDateTime) -> Self {
        let attempts = self.attempts + 1;
        let ceiling = RETRY.ceiling(u32::try_from(attempts).unwrap_or(u32::MAX));
        let pause = ANSWER_TIMEOUT + ceiling.mul_f64(jitter(order, attempts));
        Self { attempts, wake_at: Some((now + pause).min(self.deadline)), ..self }
    }
}

/// A number from 0 to 1, derived from the random part of the order's id. It spreads the attempts of different orders,
/// and it keeps decisions pure.
fn jitter(order: Uuid, attempts: i64) -> f64 {
    let rotation = u32::try_from(attempts.rem_euclid(4) * 7).unwrap_or_default();
    let (_, _, _, tail) = order.as_fields();
    let bits = u32::from_be_bytes([tail[4], tail[5], tail[6], tail[7]]).rotate_left(rotation);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

impl Step {
    pub const ALL: [Self; 5] = [Self::Authorize, Self::Capture, Self::Void, Self::Refund, Self::Done];

    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Done => "done",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }
}

impl Progress {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stuck => "stuck",
            Self::Done => "done",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Running, Self::Stuck, Self::Done].into_iter().find(|progress| progress.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn attempts_are_spread_and_end_at_the_deadline() {
        let saga = |id| Saga::begin(NOW).enter(Step::Capture, id, NOW + AUTHORIZE_TIMEOUT);
        let wakes: std::collections::BTreeSet<_> =
            (0..100).map(|_| saga(Uuid::now_v7()).wake_at.unwrap()).collect();
        assert!(wakes.len() > 50, "{} different times", wakes.len());
        let mut saga = saga(Uuid::now_v7());
        while saga.wake_at != Some(saga.deadline) {
            let now = saga.wake_at.unwrap();
            saga = saga.attempt(Uuid::now_v7(), now);
            assert!(saga.wake_at.unwrap() <= saga.deadline && saga.attempts < 20);
        }
    }

    #[test]
    fn every_name_is_parsed_back() {
        assert!(Step::ALL.into_iter().all(|step| Step::named(step.as_str()) == Some(step)));
        assert_eq!(Progress::named("stuck"), Some(Progress::Stuck));
        assert_eq!((Step::named("pay"), Progress::named("")), (None, None));
    }
}
