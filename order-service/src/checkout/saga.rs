//! The state of a checkout, and its time limits.

use std::time::Duration;

use shared::resilience::Backoff;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Trigger;

/// How long an authorization may take.
pub const AUTHORIZE: Duration = Duration::from_secs(30);
/// How long authorization and capture may take together, and how long an undo.
pub const OVERALL: Duration = Duration::from_secs(60);
/// How long to wait for an answer before a command is sent again: at least [`ANSWER_TIMEOUT`], and up to
/// this more. payment-service ignores duplicates.
pub const RETRY: Backoff = Backoff { first: Duration::from_secs(4), longest: Duration::from_secs(16) };
/// A slow card network takes this long, so an earlier retry is of no use.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// How far the checkout of one order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    /// What is being done.
    pub step: Step,
    /// How often its command was sent.
    pub attempts: i64,
    /// When to give up.
    pub deadline: OffsetDateTime,
    /// When to look again if no answer comes; a saga that is not done and has none is stuck.
    pub wake_at: Option<OffsetDateTime>,
    /// What went wrong last in this step.
    pub last_error: Option<String>,
}

/// What is being done: the customer sees a [`crate::domain::Status`], this is what is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The money is to be held.
    Authorize,
    /// The money is to be taken.
    Capture,
    /// The money is to be let go.
    Void,
    /// The money is to be given back.
    Refund,
    /// Nothing.
    Done,
}

/// Whether a saga moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// It waits for an answer, and knows until when.
    Running,
    /// It waits for a late answer or an admin.
    Stuck,
    /// It is over.
    Done,
}

impl Saga {
    /// The saga of an order that was placed `now`.
    pub fn begin(now: OffsetDateTime) -> Self {
        Self {
            step: Step::Authorize,
            attempts: 1,
            deadline: now + OVERALL,
            wake_at: Some(now + AUTHORIZE),
            last_error: None,
        }
    }

    /// Whether it moves.
    pub fn progress(&self) -> Progress {
        match (self.step, self.wake_at) {
            (Step::Done, _) => Progress::Done,
            (_, Some(_)) => Progress::Running,
            (_, None) => Progress::Stuck,
        }
    }

    /// Whether it waits for a late answer or an admin.
    pub fn is_stuck(&self) -> bool {
        self.progress() == Progress::Stuck
    }

    /// Whether its timer has run out. A timer that another replica has dealt with has not.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        self.wake_at.is_some_and(|at| at <= now)
    }

    /// Whether `trigger` ends the attempts of this step: the payment is stuck, or the time is over. A report
    /// about an earlier step was on its way when the saga went on, and does not count.
    pub fn is_over(&self, trigger: &Trigger, now: OffsetDateTime) -> bool {
        match trigger {
            Trigger::Stuck { operation, .. } => {
                !self.is_stuck() && operation.is_none_or(|operation| operation == self.step)
            }
            _ => self.is_due(now) && self.deadline <= now,
        }
    }

    /// The saga at `step`. What goes forward keeps its deadline, what goes back gets a new one.
    pub(super) fn enter(&self, step: Step, order: Uuid, now: OffsetDateTime) -> Self {
        let deadline = match step {
            Step::Void | Step::Refund => now + OVERALL,
            Step::Authorize | Step::Capture | Step::Done => self.deadline,
        };
        let entered = Self { step, attempts: 0, deadline, wake_at: None, last_error: None };
        if step == Step::Done { entered } else { entered.tried(order, now) }
    }

    /// The saga after its command was sent once more.
    pub(super) fn tried(self, order: Uuid, now: OffsetDateTime) -> Self {
        let attempts = self.attempts + 1;
        let pause = ANSWER_TIMEOUT
            + RETRY.ceiling(u32::try_from(attempts).unwrap_or(u32::MAX)).mul_f64(dice(order, attempts));
        Self { attempts, wake_at: Some((now + pause).min(self.deadline)), ..self }
    }
}

/// Full jitter without a source of chance, so that decisions stay pure: the id of an order holds
/// enough random bits to spread the tries of different orders.
fn dice(order: Uuid, attempts: i64) -> f64 {
    let turns = u32::try_from(attempts.rem_euclid(4) * 7).unwrap_or_default();
    let (_, _, _, tail) = order.as_fields();
    let bits = u32::from_be_bytes([tail[4], tail[5], tail[6], tail[7]]).rotate_left(turns);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Authorize, Self::Capture, Self::Void, Self::Refund, Self::Done];

    /// Its name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Done => "done",
        }
    }

    /// The step of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }
}

impl Progress {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stuck => "stuck",
            Self::Done => "done",
        }
    }

    /// The progress of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Running, Self::Stuck, Self::Done].into_iter().find(|progress| progress.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn tries_are_spread_and_never_go_past_the_deadline() {
        let saga = |id| Saga::begin(NOW).enter(Step::Capture, id, NOW + AUTHORIZE);
        let wakes: std::collections::BTreeSet<_> =
            (0..100).map(|_| saga(Uuid::now_v7()).wake_at.unwrap()).collect();
        assert!(wakes.len() > 50, "{} different times", wakes.len());
        let mut saga = saga(Uuid::now_v7());
        while saga.wake_at != Some(saga.deadline) {
            let now = saga.wake_at.unwrap();
            saga = saga.tried(Uuid::now_v7(), now);
            assert!(saga.wake_at.unwrap() <= saga.deadline && saga.attempts < 20);
        }
    }

    #[test]
    fn every_name_is_read_as_what_it_names() {
        assert!(Step::ALL.into_iter().all(|step| Step::named(step.as_str()) == Some(step)));
        assert_eq!(Progress::named("stuck"), Some(Progress::Stuck));
        assert_eq!((Step::named("pay"), Progress::named("")), (None, None));
    }
}
