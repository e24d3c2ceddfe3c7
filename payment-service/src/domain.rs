//! What a payment is and how it changes: types, transitions and sums; no I/O.
//!
//! A payment has a *status* (what is known) and an *intent* (what is still to be done at the card
//! network). A command only sets the intent. A background task sends the
//! [request](Payment::next_request) to the card network and
//! [applies the response](Payment::apply_response). [`state`] holds the transition table.

pub mod ledger;
pub mod money;
pub mod payment;
pub mod reconciliation;
pub mod refund;
pub mod state;

#[cfg(test)]
mod model_tests;

pub use ledger::{Account, Cause, Transfer};
pub use money::{Currency, Money, MoneyError};
pub use payment::{
    Change, NetworkRequest, NetworkResponse, Notice, Payment, PaymentRecord, Purchase, Reaction, Refusal,
    Timeouts,
};
pub use reconciliation::{Amount, AmountKind, Charge, Difference};
pub use refund::{Refund, RefundStatus};
pub use state::{Intent, State, Status, Transition, Trigger};
