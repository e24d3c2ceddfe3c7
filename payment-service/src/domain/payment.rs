//! One payment: what there is to know of it, and how it stands.

mod asked; // by the order, or by an admin
mod hears; // from the card network

pub use asked::{Reaction, Refusal};
pub use hears::{Answer, Patience, Question, UNAVAILABLE};

use std::ops::Deref;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Intent, Money, Refund, State, Status, Transfer};

/// A payment. Anyone may read its [`Facts`]; they change only here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment(Facts);

/// What there is to know of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its id, chosen by who orders it, and what its keys at the card network are made of.
    pub id: Uuid,
    /// What is paid for.
    pub order_id: Uuid,
    /// Who pays.
    pub customer_id: Uuid,
    /// How much.
    pub amount: Money,
    /// How much went back.
    pub refunded: Money,
    /// How much is on its way back.
    pub refund_pending: Money,
    /// Whether the order wants all of it back, and to be told.
    pub refund_all: bool,
    /// What the card network knows the card by; forgotten once it has decided.
    pub token: Option<String>,
    /// Status and intent.
    pub state: State,
    /// Why the card network refused.
    pub decline_code: Option<String>,
    /// Since when the intent is there.
    pub intended_at: OffsetDateTime,
    /// How often the intent was tried in vain.
    pub attempts: i64,
    /// Whether it was said that this takes too long.
    pub stuck: bool,
    /// Grows with every change, and with every claim: who holds an older one has lost the payment.
    pub version: i64,
    /// When it was ordered.
    pub created_at: OffsetDateTime,
    /// When it changed.
    pub updated_at: OffsetDateTime,
}

/// What a payment is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// The payment's id.
    pub id: Uuid,
    /// What is paid for.
    pub order_id: Uuid,
    /// Who pays.
    pub customer_id: Uuid,
    /// How much.
    pub amount: Money,
}

/// What a change to a payment consists of; all of it is stored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The payment, changed.
    pub payment: Payment,
    /// A refund that is new or settled.
    pub refund: Option<Refund>,
    /// Money that moved.
    pub transfer: Option<Transfer>,
    /// What the order is told.
    pub notice: Option<Notice>,
}

/// What the order is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The money is held.
    Authorized,
    /// It is not, and will not be; or it was held and cannot be taken.
    Declined(String),
    /// The money is ours.
    Captured,
    /// It is not held any more.
    Voided,
    /// All of it went back.
    Refunded,
    /// This takes too long, or cannot be done; somebody should look.
    Stuck(&'static str),
}

impl Deref for Payment {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl Payment {
    /// The payment that a store kept.
    pub fn restored(facts: Facts) -> Self {
        Self(facts)
    }

    /// A new payment, to be authorized with the card behind `token`.
    pub fn authorize(purchase: Purchase, token: String, now: OffsetDateTime) -> Self {
        let state = State { status: Status::Authorizing, intent: Some(Intent::Authorize) };
        Self::new(purchase, Some(token), state, now)
    }

    /// A payment that was undone before it was ordered: what orders it later finds it voided.
    pub fn tombstone(purchase: Purchase, now: OffsetDateTime) -> Change {
        let state = State { status: Status::Voided, intent: None };
        Self::new(purchase, None, state, now).change(Some(Notice::Voided))
    }

    fn new(purchase: Purchase, token: Option<String>, state: State, now: OffsetDateTime) -> Self {
        let nothing = Money::zero(purchase.amount.currency());
        Self(Facts {
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
    /// What can still be given back.
    pub fn left(&self) -> Money {
        let captured = matches!(
            self.state.status,
            Status::Captured | Status::Refunding | Status::PartiallyRefunded | Status::Refunded
        );
        let spoken_for = self.refunded.plus(self.refund_pending);
        let left = spoken_for.and_then(|spoken_for| self.amount.minus(spoken_for));
        left.ok().filter(|_| captured).unwrap_or(Money::zero(self.amount.currency()))
    }

    /// How it stands, if nothing is under way: the answer to whoever asks again.
    pub fn standing(&self) -> Option<Notice> {
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
