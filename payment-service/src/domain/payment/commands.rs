//! Commands of the order, and refunds by an admin.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Change, Notice, Payment};
use crate::domain::{Intent, Money, Refund, RefundStatus, Status, Transition, Trigger};

/// The effect of a command of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    Changed(Box<Change>),
    /// The order gets the settled outcome once more, if there is one.
    Unchanged(Option<Notice>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a payment that is {} cannot do that", .0.as_str())]
    InvalidIn(Status),
    #[error("there is nothing to refund")]
    NotRefundable,
    #[error("that is more than was captured and not yet refunded")]
    ExceedsCaptured,
    #[error("the payment is of another currency")]
    OtherCurrency,
}

impl Payment {
    /// # Errors
    /// [`Refusal::InvalidIn`] before the payment is authorized.
    pub fn capture(self, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        let outcome = self.settled_outcome();
        self.command(Trigger::CaptureRequested, outcome, now)
    }

    /// # Errors
    /// None: a void has a meaning in every state.
    pub fn void(self, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        let outcome = match self.state.status {
            // Nothing is held, which is what a void asks for.
            Status::Declined => Some(Notice::Voided),
            _ => self.settled_outcome(),
        };
        self.command(Trigger::VoidRequested, outcome, now)
    }

    /// Refunds what is not refunded yet.
    ///
    /// # Errors
    /// [`Refusal::InvalidIn`] if it was not captured.
    pub fn refund_rest(self, reason: &str, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        let (rest, pending) = (self.refundable(), self.refund_pending);
        if self.refund_all && rest.is_zero() && self.state.intent == Some(Intent::Refund) {
            // Already running. A new version would make its response stale.
            return Ok(Reaction::Unchanged(None));
        }
        let reaction = self.command(Trigger::RefundRequested, Some(Notice::Refunded), now)?;
        let Reaction::Changed(mut change) = reaction else { return Ok(reaction) };
        change.payment.0.refund_all = true;
        match change.payment.state.on(Trigger::AllRefunded) {
            // A payment of zero needs no request to the card network.
            Transition::To(refunded) if rest.is_zero() && pending.is_zero() => {
                *change = change.payment.to(refunded, now).change(Some(Notice::Refunded));
            }
            _ if rest.is_zero() => {}
            _ => drop(change.payment.add_refund(rest, reason, now, &mut change.refund)),
        }
        Ok(Reaction::Changed(change))
    }

    /// Refunds `amount`, or what is not refunded yet.
    ///
    /// # Errors
    /// Any [`Refusal`] but [`Refusal::InvalidIn`].
    pub fn refund(
        self,
        amount: Option<Money>,
        reason: &str,
        now: OffsetDateTime,
    ) -> Result<(Change, Refund), Refusal> {
        let refundable = self.refundable();
        let amount = amount.unwrap_or(refundable);
        if amount.currency() != refundable.currency() {
            return Err(Refusal::OtherCurrency);
        }
        let mut change = match self.command(Trigger::RefundRequested, None, now) {
            Ok(Reaction::Changed(change)) => *change,
            Ok(Reaction::Unchanged(_)) | Err(_) => return Err(Refusal::NotRefundable),
        };
        if amount.is_zero() || amount.amount() > refundable.amount() {
            return Err(Refusal::ExceedsCaptured);
        }
        let refund = change.payment.add_refund(amount, reason, now, &mut change.refund);
        Ok((change, refund))
    }

    fn add_refund(
        &mut self,
        amount: Money,
        reason: &str,
        now: OffsetDateTime,
        place: &mut Option<Refund>,
    ) -> Refund {
        let refund = Refund {
            id: Uuid::now_v7(),
            payment_id: self.id,
            amount,
            reason: reason.to_owned(),
            status: RefundStatus::Pending,
            created_at: now,
        };
        self.0.refund_pending = self.refund_pending.plus(amount).unwrap_or(self.amount);
        place.insert(refund).clone()
    }

    fn command(
        self,
        trigger: Trigger,
        outcome: Option<Notice>,
        now: OffsetDateTime,
    ) -> Result<Reaction, Refusal> {
        match self.state.on(trigger) {
            Transition::To(state) => Ok(Reaction::Changed(Box::new(self.to(state, now).change(None)))),
            Transition::Ignored => Ok(Reaction::Unchanged(outcome)),
            Transition::Invalid => Err(Refusal::InvalidIn(self.state.status)),
        }
    }
}
