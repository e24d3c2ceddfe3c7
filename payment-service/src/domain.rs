//! What a payment is and how it changes: types, transitions and sums; no I/O.
//!
//! A payment has a *status*, which is what is known, and an *intent*, which is what is still to be
//! carried out at the card network. Commands only form an intent; the [worker](crate::worker) carries
//! it out and [tells](Payment::hears) the payment what the network said. [`state`] holds the one table
//! of both.

pub mod ledger;
pub mod money;
pub mod payment;
pub mod refund;
pub mod state;

#[cfg(test)]
mod model_tests;

pub use ledger::{Account, Cause, Transfer};
pub use money::{Currency, Money, MoneyError};
pub use payment::{Answer, Change, Facts, Notice, Patience, Payment, Purchase, Question, Reaction, Refusal};
pub use refund::{Refund, RefundStatus};
pub use state::{Intent, Next, State, Status, Step};
