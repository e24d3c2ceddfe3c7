//! Triggers of a checkout, their effects, and how a decision is put together.

use time::OffsetDateTime;

use super::{Saga, Step};
use crate::domain::{IllegalTransition, Order, PaymentToken, Reason, Status};

/// What can happen to a checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// The payment holds the money.
    Authorized,
    /// The payment holds none, and will not; or it could not take what it held.
    Declined(Reason),
    /// The money is taken.
    Captured,
    /// The money is not held any more.
    Voided,
    /// The money is back with the customer.
    Refunded,
    /// The payment makes no progress with `operation`; without one, with the saga's present step.
    Stuck { operation: Option<Step>, reason: String },
    /// The saga's timer ran out.
    Timer,
    /// The customer does not want it any more.
    Cancel,
    /// An admin wants a stuck saga to try again.
    Resume,
    /// An admin wants it undone.
    Compensate,
    /// The goods left the warehouse.
    Ship,
    /// The goods arrived.
    Deliver,
}

/// What payments are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Hold the money; the token is not kept, so this is said once.
    Authorize(PaymentToken),
    /// Take it.
    Capture,
    /// Let it go.
    Void,
    /// Give it back.
    Refund,
}

/// What is written with the order and its saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// `on_hand` to `reserved`, for every line.
    ReserveStock,
    /// `reserved` to `sold`.
    CommitStock,
    /// `reserved` to `on_hand`.
    ReleaseStock,
    /// `sold` to `on_hand`.
    ReturnStock,
    /// A message to payment-service.
    Send(Command),
}

/// What an event leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To this.
    Moves(Box<Move>),
    /// To nothing.
    Stays,
}

/// An order and its saga as they are to be, and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The order.
    pub order: Order,
    /// Its saga.
    pub saga: Saga,
    /// What comes with it.
    pub effects: Vec<Effect>,
}

/// Why somebody does not get what they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is too late to cancel, or too early.
    #[error("an order that is {} cannot be cancelled", .0.as_str())]
    NotCancellable(Status),
    /// The table of statuses does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// Only what is stuck is resumed.
    #[error("the saga is not stuck")]
    NotStuck,
}

impl Trigger {
    /// Its name in the timeline.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Authorized => "payment.authorized",
            Self::Declined(_) => "payment.declined",
            Self::Captured => "payment.captured",
            Self::Voided => "payment.voided",
            Self::Refunded => "payment.refunded",
            Self::Stuck { .. } => "payment.stuck",
            Self::Timer => "timer",
            Self::Cancel => "cancel",
            Self::Resume => "admin.resume",
            Self::Compensate => "admin.compensate",
            Self::Ship => "ship",
            Self::Deliver => "deliver",
        }
    }
}

/// A second cancel is as good as the first; what is over or on its way cannot be cancelled.
pub(super) fn cancelled_before(status: Status) -> Result<Decision, Refusal> {
    use Status::*;
    match status {
        Cancelling | Cancelled | Refunding | Refunded => Ok(Decision::Stays),
        AwaitingPayment | Confirmed | Shipped | Delivered | Rejected(_) | NeedsAttention => {
            Err(Refusal::NotCancellable(status))
        }
    }
}

/// A decision being put together.
pub(super) struct Draft<'a> {
    order: &'a Order,
    now: OffsetDateTime,
    status: Option<Status>,
    saga: Saga,
    effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    /// Nothing changed yet.
    pub(super) fn new(order: &'a Order, saga: &Saga, now: OffsetDateTime) -> Self {
        Self { order, now, status: None, saga: saga.clone(), effects: Vec::new() }
    }

    /// Shows the customer another status.
    pub(super) fn status(self, status: Status) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Shows another status, unless the customer sees that or has been told the end of it already.
    pub(super) fn status_unless_final(self, status: Status) -> Self {
        let shown = self.order.status();
        if shown.is_final() || shown == status { self } else { self.status(status) }
    }

    /// Adds an effect.
    pub(super) fn with(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Goes to `step`, which means to send its command.
    pub(super) fn step(mut self, step: Step) -> Self {
        self.saga = self.saga.enter(step, self.order.id, self.now);
        self.send()
    }

    /// Sends the command of this step once more.
    pub(super) fn again(mut self) -> Self {
        self.saga = self.saga.tried(self.order.id, self.now);
        self.send()
    }

    /// Takes a stuck step up again, with all the time of a new one.
    pub(super) fn resumed(mut self) -> Self {
        let deadline = self.now + super::saga::OVERALL;
        self.saga = Saga { deadline, attempts: 0, ..self.saga };
        self.again()
    }

    /// Waits without an end.
    pub(super) fn stuck(mut self, trigger: &Trigger) -> Self {
        let why = match trigger {
            Trigger::Stuck { reason, .. } => reason.clone(),
            _ => format!("no answer to {} in time", self.saga.step.as_str()),
        };
        self.saga = Saga { wake_at: None, last_error: Some(why), ..self.saga };
        self
    }

    fn send(self) -> Self {
        match self.saga.step {
            Step::Capture => self.with(Effect::Send(Command::Capture)),
            Step::Void => self.with(Effect::Send(Command::Void)),
            Step::Refund => self.with(Effect::Send(Command::Refund)),
            // Sent by `begin`, which has the token.
            Step::Authorize | Step::Done => self,
        }
    }

    /// The decision.
    pub(super) fn decide(self) -> Result<Decision, Refusal> {
        let order = self.order.clone();
        let order = match self.status {
            None => order.touched(self.now),
            Some(status) => order.change_to(status, self.now)?,
        };
        Ok(Decision::Moves(Box::new(Move { order, saga: self.saga, effects: self.effects })))
    }
}
