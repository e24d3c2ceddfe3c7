//! Triggers of the checkout saga, its effects, and a builder of decisions.

use time::OffsetDateTime;

use super::saga::{OVERALL_TIMEOUT, Saga, Step};
use crate::domain::{IllegalTransition, Order, PaymentToken, Reason, Status};

/// An input of the saga: an event, a timer or a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    // Events of payment-service.
    /// The money is held.
    Authorized,
    /// The authorization or the capture was declined.
    Declined(Reason),
    /// The money is taken.
    Captured,
    /// No money is held any more.
    Voided,
    /// The money is back with the customer.
    Refunded,
    /// `operation` makes no progress; `None` means the current step.
    PaymentStuck {
        operation: Option<Step>,
        reason: String,
    },

    /// The saga's timer has expired.
    Timer,

    // Requests of people.
    Cancel,
    /// An admin makes a stuck saga try its step again.
    Resume,
    /// An admin makes a saga undo its order.
    Compensate,
    Ship,
    Deliver,
}

/// A command to payment-service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Hold the money. The order does not store the token, so the saga creates this command only once. The relay may
    /// deliver it more than once.
    Authorize(PaymentToken),
    /// Take the money that is held.
    Capture,
    /// Release the money that is held.
    Void,
    /// Give back the money that was taken.
    Refund,
}

/// A change that is written with the order and its saga. Each stock effect applies to every line of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Move the quantity from `on_hand` to `reserved`.
    ReserveStock,
    /// Move it from `reserved` to `sold`.
    CommitStock,
    /// Move it from `reserved` to `on_hand`.
    ReleaseStock,
    /// Move it from `sold` to `on_hand`.
    ReturnStock,
    /// A message to payment-service.
    Send(Command),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Apply(Box<Transition>),
    /// Nothing changes.
    Ignore,
}

/// The new state of an order and its saga, and the effects to write with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub order: Order,
    pub saga: Saga,
    pub effects: Vec<Effect>,
}

/// Why a person's request is impossible now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("an order that is {} cannot be cancelled", .0.as_str())]
    NotCancellable(Status),
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    #[error("the saga is not stuck")]
    NotStuck,
}

impl Trigger {
    /// The cause in the timeline.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Authorized => "payment.authorized",
            Self::Declined(_) => "payment.declined",
            Self::Captured => "payment.captured",
            Self::Voided => "payment.voided",
            Self::Refunded => "payment.refunded",
            Self::PaymentStuck { .. } => "payment.stuck",
            Self::Timer => "timer",
            Self::Cancel => "cancel",
            Self::Resume => "admin.resume",
            Self::Compensate => "admin.compensate",
            Self::Ship => "ship",
            Self::Deliver => "deliver",
        }
    }
}

/// The decision about a cancel that is not possible now. A repeated cancel is ignored; any other is refused.
pub(super) fn ignore_or_refuse_cancel(status: Status) -> Result<Decision, Refusal> {
    use Status::*;
    match status {
        Cancelling | Cancelled | Refunding | Refunded => Ok(Decision::Ignore),
        AwaitingPayment | Confirmed | Shipped | Delivered | Rejected(_) | NeedsAttention => {
            Err(Refusal::NotCancellable(status))
        }
    }
}

/// Builds a [`Decision`], starting from the current order and saga.
pub(super) struct Draft<'a> {
    order: &'a Order,
    now: OffsetDateTime,
    status: Option<Status>,
    saga: Saga,
    effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(order: &'a Order, saga: &Saga, now: OffsetDateTime) -> Self {
        Self { order, now, status: None, saga: saga.clone(), effects: Vec::new() }
    }

    pub(super) fn status(self, status: Status) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Changes the status, unless the current one is final or the same.
    pub(super) fn status_unless_final(self, status: Status) -> Self {
        let current = self.order.status();
        if current.is_final() || current == status { self } else { self.status(status) }
    }

    pub(super) fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Enters `step` and sends its command.
    pub(super) fn enter(mut self, step: Step) -> Self {
        self.saga = self.saga.enter(step, self.order.id, self.now);
        self.send()
    }

    /// Sends the command of the current step again.
    pub(super) fn retry(mut self) -> Self {
        self.saga = self.saga.attempt(self.order.id, self.now);
        self.send()
    }

    /// Starts a stuck step again, with a new deadline.
    pub(super) fn resume(mut self) -> Self {
        let deadline = self.now + OVERALL_TIMEOUT;
        self.saga = Saga { deadline, attempts: 0, ..self.saga };
        self.retry()
    }

    /// Marks the saga as stuck: stops its timer and records the error.
    pub(super) fn stuck(mut self, trigger: &Trigger) -> Self {
        let error = match trigger {
            Trigger::PaymentStuck { reason, .. } => reason.clone(),
            _ => format!("no answer to {} in time", self.saga.step.as_str()),
        };
        self.saga = Saga { wake_at: None, last_error: Some(error), ..self.saga };
        self
    }

    fn send(self) -> Self {
        match self.saga.step {
            Step::Capture => self.effect(Effect::Send(Command::Capture)),
            Step::Void => self.effect(Effect::Send(Command::Void)),
            Step::Refund => self.effect(Effect::Send(Command::Refund)),
            // `begin` sends the authorization: only it has the token.
            Step::Authorize | Step::Done => self,
        }
    }

    pub(super) fn build(self) -> Result<Decision, Refusal> {
        let order = self.order.clone();
        let order = match self.status {
            None => order.touched(self.now),
            Some(status) => order.change_to(status, self.now)?,
        };
        Ok(Decision::Apply(Box::new(Transition { order, saga: self.saga, effects: self.effects })))
    }
}
