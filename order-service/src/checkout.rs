//! The checkout saga: from a cart to a paid order, or all the way back.
//!
//! | step | do | undo |
//! |---|---|---|
//! | 1 ask | is the customer active? ([`crate::clients::customers`], before anything is written) | – |
//! | 2 reserve | price the lines and reserve them, with the order's row ([`begin`]) | `ReleaseStock` |
//! | 3 authorize | `Send(Authorize)` | `Send(Void)` |
//! | 4 capture | `Send(Capture)`: the pivot | `Send(Refund)` |
//! | 5 confirm | `CommitStock` | `ReturnStock` |
//!
//! Before the pivot every step can be undone without a trace on the customer's card. After it the saga
//! goes forward, or refunds. Steps 3 and 4 are commands to payment-service. Its answers are messages and
//! may come late, twice or in another order; [`handle`] is the table of what each means at each step.
//!
//! | timer | limits | when it runs out |
//! |---|---|---|
//! | [`AUTHORIZE`](saga::AUTHORIZE) | step 3, and with it the reservation | rejected, stock back, void |
//! | [`OVERALL`](saga::OVERALL) | steps 3 and 4, and again each undo | `needs_attention`; a late answer still completes it |
//! | [`RETRY`](saga::RETRY) | one attempt of capture, void or refund | the command is sent again |
//!
//! This module is pure. The store locks the order, asks for a decision, and writes order, saga and effects
//! in one transaction.

mod decision; // triggers, effects, and how a decision is put together
pub mod saga; // the state of a checkout, and its time limits

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod race_tests;

pub use decision::{Command, Decision, Effect, Move, Refusal, Trigger};
pub use saga::{Progress, Saga, Step};

use time::OffsetDateTime;

use crate::domain::{Order, PaymentToken, Reason, Status};
use decision::Draft;

/// Steps 2 and 3 of a new order.
pub fn begin(order: Order, token: PaymentToken, now: OffsetDateTime) -> Move {
    let effects = vec![Effect::ReserveStock, Effect::Send(Command::Authorize(token))];
    Move { order, saga: Saga::begin(now), effects }
}

/// What `trigger` means for an order and its saga at the time `now`.
///
/// # Errors
/// A [`Refusal`] answers a person whose request is impossible now. Events of payment-service are never
/// refused: a duplicate, late or early one changes nothing.
pub fn handle(
    order: &Order,
    saga: &Saga,
    trigger: &Trigger,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    use Effect::{CommitStock, ReleaseStock, ReturnStock};
    use Status::{AwaitingPayment, Cancelled, Cancelling, Confirmed, NeedsAttention, Refunding, Rejected};
    use Step::{Authorize, Capture, Done, Refund, Void};
    use Trigger::*;

    let status = order.status();
    let go = Draft::new(order, saga, now);
    let due = saga.is_due(now);
    let draft = match (saga.step, trigger) {
        // Step 3: nothing is paid, at most held.
        (Authorize, Authorized) => go.step(Capture),
        (Authorize, Declined(reason)) => go.status(Rejected(*reason)).with(ReleaseStock).step(Done),
        (Authorize, Timer) if due => {
            go.status(Rejected(Reason::PaymentTimeout)).with(ReleaseStock).step(Void)
        }
        (Authorize, Cancel | Compensate) => go.status(Cancelling).with(ReleaseStock).step(Void),

        // Step 4, the pivot. A cancel does not overtake the capture: its outcome says what to undo.
        (Capture, Captured) if status == Cancelling => go.status(Refunding).step(Refund),
        (Capture, Captured) => go.status(Confirmed).with(CommitStock).step(Done),
        (Capture, Declined(_)) if status == Cancelling => go.step(Void),
        (Capture, Declined(_)) => go.status(Rejected(Reason::CardDeclined)).with(ReleaseStock).step(Void),
        // The card network let the money go by itself.
        (Capture, Voided) if status == Cancelling => go.status(Cancelled).step(Done),
        (Capture, Voided) => go.status(Rejected(Reason::CardDeclined)).with(ReleaseStock).step(Done),
        (Capture, Cancel | Compensate) if status == AwaitingPayment => {
            go.status(Cancelling).with(ReleaseStock)
        }
        (Capture, Compensate) if status == NeedsAttention => {
            go.status(Cancelling).with(ReleaseStock).step(Void)
        }
        // The order is being cancelled, so the void may decide what the capture leaves open.
        (Capture, Stuck { .. } | Timer) if status == Cancelling && saga.is_over(trigger, now) => {
            go.step(Void)
        }

        // The way back. The stock is free already; a rejected order stays rejected.
        (Void, Voided | Declined(_) | Refunded) => go.status_unless_final(Cancelled).step(Done),
        (Void, Captured) => go.status_unless_final(Refunding).step(Refund),
        (Refund, Refunded) => go.status_unless_final(Status::Refunded).step(Done),

        // A step without an answer sends its command again, until its deadline.
        (Capture | Void | Refund, Stuck { .. } | Timer) if saga.is_over(trigger, now) => {
            go.status_unless_final(NeedsAttention).stuck(trigger)
        }
        (Capture | Void | Refund, Timer) if due => go.again(),
        (Capture | Void | Refund, Resume) if saga.is_stuck() => go.resumed(),
        (Void | Refund, Compensate) if saga.is_stuck() => go.resumed(),

        // Settled: only a person, or money that moved after all, starts it again.
        (Done, Cancel | Compensate) if status == Confirmed => {
            go.status(Refunding).with(ReturnStock).step(Refund)
        }
        (Done, Captured) if matches!(status, Rejected(_) | Cancelled) => go.step(Refund),
        (Done, Authorized) if matches!(status, Rejected(_) | Cancelled) => go.step(Void),

        (_, Ship) => go.status(Status::Shipped),
        (_, Deliver) => go.status(Status::Delivered),
        (_, Cancel | Compensate) => return decision::cancelled_before(status),
        (_, Resume) => return Err(Refusal::NotStuck),

        (Authorize, Captured | Voided | Refunded | Stuck { .. } | Timer)
        | (Capture, Authorized | Refunded | Stuck { .. } | Timer)
        | (Void, Authorized | Stuck { .. } | Timer)
        | (Refund, Authorized | Declined(_) | Captured | Voided | Stuck { .. } | Timer)
        | (Done, Authorized | Declined(_) | Captured | Voided | Refunded | Stuck { .. } | Timer) => {
            return Ok(Decision::Stays);
        }
    };
    draft.decide()
}
