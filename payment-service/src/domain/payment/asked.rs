//! What the order, or an admin, asks of a payment.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Change, Notice, Payment};
use crate::domain::{Intent, Money, Next, Refund, RefundStatus, Status, Step};

/// What asking a payment for something leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// It changes.
    Changed(Box<Change>),
    /// It does not change, and the order is told how it stands, if that is settled.
    Stands(Option<Notice>),
}

/// Why a payment does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not in this status.
    #[error("a payment that is {} cannot do that", .0.as_str())]
    Never(Status),
    /// No money to give back.
    #[error("there is nothing to refund")]
    NotRefundable,
    /// More than is left.
    #[error("that is more than was captured and not yet refunded")]
    ExceedsCaptured,
    /// Of another currency.
    #[error("the payment is of another currency")]
    OtherCurrency,
}

impl Payment {
    /// The order wants the money taken.
    ///
    /// # Errors
    /// [`Refusal::Never`] while it is not known to be held.
    pub fn capture(self, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        let standing = self.standing();
        self.ask(Step::AskCapture, standing, now)
    }

    /// The order wants the money let go.
    ///
    /// # Errors
    /// None in any state: there is always something to tell.
    pub fn void(self, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        let standing = match self.state.status {
            // Nothing is held; the order waits to hear just that.
            Status::Declined => Some(Notice::Voided),
            _ => self.standing(),
        };
        self.ask(Step::AskVoid, standing, now)
    }

    /// The order wants all that is left back.
    ///
    /// # Errors
    /// [`Refusal::Never`] if it was not captured.
    pub fn refund_rest(self, reason: &str, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        let (left, pending) = (self.left(), self.refund_pending);
        if self.refund_all && left.is_zero() && self.state.intent == Some(Intent::Refund) {
            // It is under way: the answer that comes must find the payment as it is.
            return Ok(Reaction::Stands(None));
        }
        let reaction = self.ask(Step::AskRefund, Some(Notice::Refunded), now)?;
        let Reaction::Changed(mut change) = reaction else { return Ok(reaction) };
        change.payment.0.refund_all = true;
        match change.payment.state.after(Step::AllRefunded) {
            // What cost nothing is refunded by saying so.
            Next::To(refunded) if left.is_zero() && pending.is_zero() => {
                *change = change.payment.to(refunded, now).change(Some(Notice::Refunded));
            }
            _ if left.is_zero() => {}
            _ => drop(change.payment.request(left, reason, now, &mut change.refund)),
        }
        Ok(Reaction::Changed(change))
    }

    /// An admin wants `amount` back, or all that is left.
    ///
    /// # Errors
    /// Any [`Refusal`] but [`Refusal::Never`].
    pub fn refund(
        self,
        amount: Option<Money>,
        reason: &str,
        now: OffsetDateTime,
    ) -> Result<(Change, Refund), Refusal> {
        let left = self.left();
        let amount = amount.unwrap_or(left);
        if amount.currency() != left.currency() {
            return Err(Refusal::OtherCurrency);
        }
        let mut change = match self.ask(Step::AskRefund, None, now) {
            Ok(Reaction::Changed(change)) => *change,
            Ok(Reaction::Stands(_)) | Err(_) => return Err(Refusal::NotRefundable),
        };
        if amount.is_zero() || amount.amount() > left.amount() {
            return Err(Refusal::ExceedsCaptured);
        }
        let refund = change.payment.request(amount, reason, now, &mut change.refund);
        Ok((change, refund))
    }

    fn request(
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

    fn ask(self, step: Step, standing: Option<Notice>, now: OffsetDateTime) -> Result<Reaction, Refusal> {
        match self.state.after(step) {
            Next::To(state) => Ok(Reaction::Changed(Box::new(self.to(state, now).change(None)))),
            Next::Stays => Ok(Reaction::Stands(standing)),
            Next::Never => Err(Refusal::Never(self.state.status)),
        }
    }
}
