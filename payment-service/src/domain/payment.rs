//! A payment, and what a change to it consists of.

mod commands; // of the order, or of an admin
mod network_response;

pub use commands::{Reaction, Refusal};
pub use network_response::{NetworkRequest, NetworkResponse, Timeouts, UNAVAILABLE};

use std::ops::Deref;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Intent, Money, Refund, State, Status, Transfer};

/// A payment. Its [record](PaymentRecord) can be read anywhere, and changes only here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment(PaymentRecord);

/// The data of a payment, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRecord {
    /// Chosen by order-service. The idempotency keys of the authorization and the capture are derived from it.
    pub id: Uuid,
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount: Money,
    pub refunded: Money,
    /// The sum of the refunds that the card network has not confirmed yet.
    pub refund_pending: Money,
    /// Whether order-service wants everything refunded. It gets an event when that is done.
    pub refund_all: bool,
    /// Stands for the card at the card network. Deleted when the authorization has a result, or is given up.
    pub token: Option<String>,
    pub state: State,
    pub decline_code: Option<String>,
    /// When the intent was set.
    pub intended_at: OffsetDateTime,
    /// Failed attempts to carry out the intent.
    pub attempts: i64,
    /// Whether [`Notice::Stuck`] was sent for this intent.
    pub stuck: bool,
    /// Grows with every change and every claim by a worker; a write with an older version is refused.
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// The request of order-service to start a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// The id of the payment.
    pub id: Uuid,
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount: Money,
}

/// The result of a transition. All parts are stored in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub payment: Payment,
    /// A refund that is new or settled.
    pub refund: Option<Refund>,
    pub transfer: Option<Transfer>,
    pub notice: Option<Notice>,
}

/// An event for order-service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Authorized,
    /// The authorization or the capture was declined, with this code.
    Declined(String),
    Captured,
    Voided,
    /// All of the money was given back.
    Refunded,
    /// The operation has taken too long, or was refused. It may still succeed.
    Stuck {
        operation: Intent,
        reason: &'static str,
    },
}

impl Deref for Payment {
    type Target = PaymentRecord;

    fn deref(&self) -> &PaymentRecord {
        &self.0
    }
}

impl Payment {
    /// A payment from the database.
    pub fn from_record(record: PaymentRecord) -> Self {
        Self(record)
    }

    /// A new payment, to be authorized with the card behind `token`.
    pub fn authorize(purchase: Purchase, token: String, now: OffsetDateTime) -> Self {
        let state = State { status: Status::Authorizing, intent: Some(Intent::Authorize) };
        Self::new(purchase, Some(token), state, now)
    }

    /// A payment whose void came before its authorization. The late authorization finds it voided.
    pub fn tombstone(purchase: Purchase, now: OffsetDateTime) -> Change {
        let state = State { status: Status::Voided, intent: None };
        Self::new(purchase, None, state, now).change(Some(Notice::Voided))
    }

    fn new(purchase: Purchase, token: Option<String>, state: State, now: OffsetDateTime) -> Self {
        let nothing = Money::zero(purchase.amount.currency());
        Self(PaymentRecord {
            id: purchase.id,
            order_id: purchase.order_id,
            customer_id: purchase.customer_id,
            amount: purchase.amount,
            refunded: nothing,
            refund_pending: nothing,
            refund_all: false,
            token,
            state,
            decline_code: None,
            intended_at: now,
            attempts: 0,
            stuck: false,
            version: 1,
            created_at: now,
            updated_at: now,
        })
    }

    /// Captured, and neither refunded nor about to be; zero before the capture.
    pub fn refundable(&self) -> Money {
        let captured = matches!(
            self.state.status,
            Status::Captured | Status::Refunding | Status::PartiallyRefunded | Status::Refunded
        );
        let requested = self.refunded.plus(self.refund_pending);
        let rest = requested.and_then(|requested| self.amount.minus(requested));
        rest.ok().filter(|_| captured).unwrap_or(Money::zero(self.amount.currency()))
    }

    /// The answer to a repeated command; `None` while the outcome is open.
    pub fn settled_outcome(&self) -> Option<Notice> {
        match self.state.status {
            Status::Authorized if self.state.intent.is_none() => Some(Notice::Authorized),
            Status::Authorizing | Status::Authorized | Status::Unknown => None,
            Status::Declined => {
                Some(Notice::Declined(self.decline_code.clone().unwrap_or_else(|| UNAVAILABLE.to_owned())))
            }
            Status::Voided => Some(Notice::Voided),
            Status::Captured | Status::Refunding | Status::PartiallyRefunded | Status::Refunded => {
                Some(Notice::Captured)
            }
        }
    }

    fn to(mut self, state: State, now: OffsetDateTime) -> Self {
        if state.intent != Some(Intent::Authorize) {
            self.0.token = None;
        }
        self.0.state = state;
        self.0.intended_at = now;
        self.0.attempts = 0;
        self.0.stuck = false;
        self.0.version += 1;
        self.0.updated_at = now;
        self
    }

    fn change(self, notice: Option<Notice>) -> Change {
        Change { payment: self, refund: None, transfer: None, notice }
    }
}
