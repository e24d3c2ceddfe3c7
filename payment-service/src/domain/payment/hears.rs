//! What a payment asks the card network, and makes of the answer.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Change, Notice, Payment};
use crate::domain::{Cause, Intent, Next, Refund, RefundStatus, State, Status, Step, Transfer};

/// What to ask the card network next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Hold the money.
    Authorize,
    /// Take it.
    Capture,
    /// Let it go, also if it is not held yet.
    Void,
    /// Give some back.
    Refund,
    /// What have you done?
    Status,
}

/// What the card network said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It holds the money.
    Approved,
    /// It refuses to hold it.
    Declined(String),
    /// It has taken the money.
    Captured,
    /// It refuses to take it.
    CaptureDeclined(String),
    /// It has let the money go.
    Voided,
    /// It has given this back.
    RefundDone(Refund),
    /// It refuses to give this back.
    RefundRefused(Refund),
    /// It has not done what it was asked; only an answer to [`Question::Status`].
    NotDone,
    /// It could not be reached, or could not do it: nothing happened, the same may work later.
    Failed,
    /// It was asked, and then nothing: what it did is unknown.
    NoAnswer,
}

/// How long the card network is tried before the order is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Then an authorization is given up: nothing is lost yet.
    pub authorize: Duration,
    /// Then anything else is said to be stuck; it is still tried.
    pub others: Duration,
}

/// The decline code of a card network that cannot be reached.
pub const UNAVAILABLE: &str = "payment_unavailable";

impl Payment {
    /// What to ask the card network next, if anything.
    pub fn question(&self) -> Option<Question> {
        let State { status, intent } = self.state;
        Some(match (intent?, status) {
            // Never charge again what may have been charged.
            (Intent::Authorize | Intent::Capture, Status::Unknown) => Question::Status,
            (Intent::Authorize, _) => Question::Authorize,
            (Intent::Capture, _) => Question::Capture,
            (Intent::Void, _) => Question::Void,
            (Intent::Refund, _) => Question::Refund,
        })
    }

    /// The card network answered what [`Payment::question`] asked, or did not.
    ///
    /// # Errors
    /// The payment as it was, if the answer contradicts what is known.
    pub fn hears(
        self,
        answer: Answer,
        patience: &Patience,
        now: OffsetDateTime,
    ) -> Result<Change, Box<Self>> {
        match answer {
            Answer::Approved => self.learns(Step::Approved, Notice::Authorized, now),
            Answer::Declined(code) => {
                let notice = Notice::Declined(code.clone());
                let mut change = self.learns(Step::Declined, notice, now)?;
                change.payment.0.decline_code = Some(code);
                Ok(change)
            }
            Answer::Captured => {
                let transfer = Transfer { cause: Cause::Capture, amount: self.amount };
                let change = self.learns(Step::Captured, Notice::Captured, now)?;
                Ok(Change { transfer: Some(transfer).filter(|_| !transfer.amount.is_zero()), ..change })
            }
            Answer::CaptureDeclined(code) => self.learns(Step::CaptureDeclined, Notice::Declined(code), now),
            Answer::Voided => {
                // The undo of an authorization that was given up is nobody's business.
                let told = self.state.status != Status::Declined;
                let change = self.learns(Step::Voided, Notice::Voided, now)?;
                Ok(Change { notice: change.notice.filter(|_| told), ..change })
            }
            Answer::RefundDone(refund) => self.settles(refund, RefundStatus::Succeeded, now),
            Answer::RefundRefused(refund) => self.settles(refund, RefundStatus::Failed, now),
            Answer::NotDone => match self.state.after(Step::NotDone) {
                Next::To(state) => {
                    let mut payment = self;
                    payment.0.state = state;
                    Ok(payment.waits(patience, now))
                }
                Next::Stays | Next::Never => Err(self.into()),
            },
            Answer::Failed => Ok(self.waits(patience, now)),
            Answer::NoAnswer => {
                let mut payment = self;
                if let Next::To(state) = payment.state.after(Step::NoAnswer) {
                    payment.0.state = state;
                }
                Ok(payment.waits(patience, now))
            }
        }
    }

    fn learns(self, step: Step, notice: Notice, now: OffsetDateTime) -> Result<Change, Box<Self>> {
        match self.state.after(step) {
            Next::To(state) => Ok(self.to(state, now).change(Some(notice))),
            Next::Stays | Next::Never => Err(self.into()),
        }
    }

    fn settles(self, refund: Refund, status: RefundStatus, now: OffsetDateTime) -> Result<Change, Box<Self>> {
        let Ok(pending) = self.refund_pending.minus(refund.amount) else { return Err(self.into()) };
        let done = status == RefundStatus::Succeeded;
        let refunded = if done { self.refunded.plus(refund.amount) } else { Ok(self.refunded) };
        let Ok(refunded) = refunded else { return Err(self.into()) };
        let step = match () {
            () if !pending.is_zero() => Step::MoreRefunds,
            () if refunded.is_zero() => Step::NothingRefunded,
            () if refunded == self.amount => Step::AllRefunded,
            () => Step::PartRefunded,
        };
        let Next::To(state) = self.state.after(step) else { return Err(self.into()) };
        let mut payment = self.to(state, now);
        payment.0.refund_pending = pending;
        payment.0.refunded = refunded;
        let notice = match payment.state.status {
            _ if !payment.refund_all => None,
            Status::Refunded => Some(Notice::Refunded),
            _ if !done => Some(Notice::Stuck("refund_refused")),
            _ => None,
        };
        let transfer = done.then_some(Transfer { cause: Cause::Refund(refund.id), amount: refund.amount });
        Ok(Change { refund: Some(Refund { status, ..refund }), transfer, ..payment.change(notice) })
    }

    /// One more try was in vain.
    fn waits(mut self, patience: &Patience, now: OffsetDateTime) -> Change {
        self.0.attempts += 1;
        self.0.version += 1;
        self.0.updated_at = now;
        let waited = now - self.intended_at;
        match self.state.intent {
            Some(Intent::Authorize) if waited >= patience.authorize => match self.state.after(Step::GiveUp) {
                Next::To(state) => {
                    let mut payment = self.to(state, now);
                    payment.0.decline_code = Some(UNAVAILABLE.to_owned());
                    payment.change(Some(Notice::Declined(UNAVAILABLE.to_owned())))
                }
                Next::Stays | Next::Never => self.change(None),
            },
            Some(intent) if waited >= patience.others && !self.stuck && !self.was_given_up() => {
                self.0.stuck = true;
                self.change(Some(Notice::Stuck(match intent {
                    Intent::Authorize => "authorize_unanswered",
                    Intent::Capture => "capture_unanswered",
                    Intent::Void => "void_unanswered",
                    Intent::Refund => "refund_unanswered",
                })))
            }
            _ => self.change(None),
        }
    }

    fn was_given_up(&self) -> bool {
        self.state.status == Status::Declined
    }
}
