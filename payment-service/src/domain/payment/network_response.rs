//! Requests to the card network, and how its responses change a payment.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Change, Notice, Payment};
use crate::domain::{Cause, Intent, Refund, RefundStatus, State, Status, Transfer, Transition, Trigger};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkRequest {
    Authorize,
    Capture,
    /// A void, also of an authorization that the network may not know.
    Void,
    Refund,
    /// Asks what the network did with a request that it did not respond to.
    Status,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkResponse {
    Approved,
    /// The authorization was declined, with this code.
    Declined(String),
    Captured,
    CaptureDeclined(String),
    Voided,
    RefundDone(Refund),
    RefundRefused(Refund),
    /// The operation did not happen. Only a response to [`NetworkRequest::Status`].
    NotExecuted,
    /// The network could not be reached, or answered with an error: nothing happened, try again.
    Failed,
    /// The request was sent and no response came: its effect is unknown.
    Missing,
}

/// The time for which an operation is tried before order-service is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// An authorization is then abandoned: no money was taken.
    pub authorize: Duration,
    /// Any other operation is then reported as stuck, and still tried.
    pub others: Duration,
}

/// The decline code if the card network cannot be reached.
pub const UNAVAILABLE: &str = "payment_unavailable";

impl Payment {
    /// The next request to the card network; `None` if the payment is settled.
    pub fn next_request(&self) -> Option<NetworkRequest> {
        let State { status, intent } = self.state;
        Some(match (intent?, status) {
            // Never charge again what may have been charged.
            (Intent::Authorize | Intent::Capture, Status::Unknown) => NetworkRequest::Status,
            (Intent::Authorize, _) => NetworkRequest::Authorize,
            (Intent::Capture, _) => NetworkRequest::Capture,
            (Intent::Void, _) => NetworkRequest::Void,
            (Intent::Refund, _) => NetworkRequest::Refund,
        })
    }

    /// Applies the response to [`Payment::next_request`].
    ///
    /// # Errors
    /// The unchanged payment, if the response contradicts its state.
    pub fn apply_response(
        self,
        response: NetworkResponse,
        timeouts: &Timeouts,
        now: OffsetDateTime,
    ) -> Result<Change, Box<Self>> {
        match response {
            NetworkResponse::Approved => self.advance(Trigger::Approved, Notice::Authorized, now),
            NetworkResponse::Declined(code) => {
                let notice = Notice::Declined(code.clone());
                let mut change = self.advance(Trigger::Declined, notice, now)?;
                change.payment.0.decline_code = Some(code);
                Ok(change)
            }
            NetworkResponse::Captured => {
                let transfer = Transfer { cause: Cause::Capture, amount: self.amount };
                let change = self.advance(Trigger::Captured, Notice::Captured, now)?;
                Ok(Change { transfer: Some(transfer).filter(|_| !transfer.amount.is_zero()), ..change })
            }
            NetworkResponse::CaptureDeclined(code) => {
                self.advance(Trigger::CaptureDeclined, Notice::Declined(code), now)
            }
            NetworkResponse::Voided => {
                // The order has rejected a declined payment, and expects no second notice.
                let expected = self.state.status != Status::Declined;
                let change = self.advance(Trigger::Voided, Notice::Voided, now)?;
                Ok(Change { notice: change.notice.filter(|_| expected), ..change })
            }
            NetworkResponse::RefundDone(refund) => self.settle_refund(refund, RefundStatus::Succeeded, now),
            NetworkResponse::RefundRefused(refund) => self.settle_refund(refund, RefundStatus::Failed, now),
            NetworkResponse::NotExecuted => match self.state.on(Trigger::NotExecuted) {
                Transition::To(state) => Ok(self.try_again_in(state, timeouts, now)),
                Transition::Ignored | Transition::Invalid => Err(self.into()),
            },
            NetworkResponse::Failed => Ok(self.try_again(timeouts, now)),
            NetworkResponse::Missing => {
                let state = match self.state.on(Trigger::NoResponse) {
                    Transition::To(state) => state,
                    Transition::Ignored | Transition::Invalid => self.state,
                };
                Ok(self.try_again_in(state, timeouts, now))
            }
        }
    }

    /// Counts a failed attempt, and keeps the state unless a timeout has passed.
    pub fn try_again(self, timeouts: &Timeouts, now: OffsetDateTime) -> Change {
        let state = self.state;
        self.try_again_in(state, timeouts, now)
    }

    fn advance(self, trigger: Trigger, notice: Notice, now: OffsetDateTime) -> Result<Change, Box<Self>> {
        match self.state.on(trigger) {
            Transition::To(state) => Ok(self.to(state, now).change(Some(notice))),
            Transition::Ignored | Transition::Invalid => Err(self.into()),
        }
    }

    fn settle_refund(
        self,
        refund: Refund,
        status: RefundStatus,
        now: OffsetDateTime,
    ) -> Result<Change, Box<Self>> {
        let Ok(pending) = self.refund_pending.minus(refund.amount) else { return Err(self.into()) };
        let done = status == RefundStatus::Succeeded;
        let refunded = if done { self.refunded.plus(refund.amount) } else { Ok(self.refunded) };
        let Ok(refunded) = refunded else { return Err(self.into()) };
        let trigger = match () {
            () if !pending.is_zero() => Trigger::MoreRefunds,
            () if refunded.is_zero() => Trigger::NothingRefunded,
            () if refunded == self.amount => Trigger::AllRefunded,
            () => Trigger::PartRefunded,
        };
        let Transition::To(state) = self.state.on(trigger) else { return Err(self.into()) };
        let mut payment = self.to(state, now);
        payment.0.refund_pending = pending;
        payment.0.refunded = refunded;
        let notice = match payment.state.status {
            _ if !payment.refund_all => None,
            Status::Refunded => Some(Notice::Refunded),
            _ if !done => Some(Notice::Stuck { operation: Intent::Refund, reason: "refund_refused" }),
            _ => None,
        };
        let transfer = done.then_some(Transfer { cause: Cause::Refund(refund.id), amount: refund.amount });
        Ok(Change { refund: Some(Refund { status, ..refund }), transfer, ..payment.change(notice) })
    }

    /// Counts a failed attempt. After its timeout an authorization is abandoned, and anything else is
    /// reported as stuck, once.
    fn try_again_in(mut self, state: State, timeouts: &Timeouts, now: OffsetDateTime) -> Change {
        self.0.state = state;
        self.0.attempts += 1;
        self.0.version += 1;
        self.0.updated_at = now;
        let waited = now - self.intended_at;
        let was_abandoned = state.status == Status::Declined;
        match state.intent {
            Some(Intent::Authorize) if waited >= timeouts.authorize => {
                let Transition::To(abandoned) = state.on(Trigger::AuthorizationAbandoned) else {
                    return self.change(None);
                };
                let mut payment = self.to(abandoned, now);
                payment.0.decline_code = Some(UNAVAILABLE.to_owned());
                payment.change(Some(Notice::Declined(UNAVAILABLE.to_owned())))
            }
            Some(operation) if waited >= timeouts.others && !self.stuck && !was_abandoned => {
                self.0.stuck = true;
                let reason = match operation {
                    Intent::Authorize => "authorize_unanswered",
                    Intent::Capture => "capture_unanswered",
                    Intent::Void => "void_unanswered",
                    Intent::Refund => "refund_unanswered",
                };
                self.change(Some(Notice::Stuck { operation, reason }))
            }
            _ => self.change(None),
        }
    }
}
