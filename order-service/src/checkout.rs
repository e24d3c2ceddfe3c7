//! The checkout saga: from a cart to a paid order, or to a rejected, cancelled or refunded one.
//!
//! | step | action | compensation |
//! |---|---|---|
//! | 1 check | ask user-service whether the customer is active ([`crate::clients::users`]) | – |
//! | 2 reserve | `ReserveStock`, an effect of [`begin`] | `ReleaseStock` |
//! | 3 authorize | `Send(Authorize)` | `Send(Void)` |
//! | 4 capture | `Send(Capture)` | `Send(Refund)` |
//! | 5 confirm | `CommitStock` | `ReturnStock` |
//!
//! The event `Captured` is the pivot: the money is taken. Before it, every step can be undone and the customer pays
//! nothing. After it, the saga completes or refunds. Steps 3 and 4 are commands to payment-service. Its events may be
//! late, duplicated or out of order. [`handle`] defines the result of each event at each step.
//!
//! The type [`Step`] covers only the payment. Steps 1 and 2 run in the customer's request, and step 5 is part of the
//! transition on `Captured`. In the code, `enter(step)` sets the step and sends its command, if it has one.
//!
//! | timer | what it limits | when it expires |
//! |---|---|---|
//! | [`AUTHORIZE_TIMEOUT`](saga::AUTHORIZE_TIMEOUT) | step 3 | the order is rejected, its stock released, its payment voided |
//! | [`OVERALL_TIMEOUT`](saga::OVERALL_TIMEOUT) | steps 3 and 4 together; each void or refund gets the full time again | the saga becomes stuck |
//! | [`ANSWER_TIMEOUT`](saga::ANSWER_TIMEOUT) plus a backoff ([`RETRY`](saga::RETRY)) | one attempt of a capture, void or refund | the command is sent again |
//!
//! A stuck saga waits for a late event or an admin. If the order was cancelled during step 4, the saga continues to wait
//! for the result of the capture. When its deadline passes, it voids the payment instead of becoming stuck. The saga
//! cannot create `Authorize` a second time, because the order does not store the payment token. (The token is in the
//! command's row of the outbox until that row is pruned.)
//!
//! This module is pure. The store locks the order, calls [`handle`], and writes the changed order, its saga
//! and the effects in one transaction.

mod decision; // triggers, effects, and a builder of decisions
pub mod saga; // the state of a saga, and its time limits

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod race_tests;

pub use decision::{Command, Decision, Effect, Refusal, Transition, Trigger};
pub use saga::{Progress, Saga, Step};

use time::OffsetDateTime;

use crate::domain::{Order, PaymentToken, Reason, Status};
use decision::Draft;

/// The first transition of a new order. Its effects reserve the stock (step 2) and send `Authorize` (step 3).
pub fn begin(order: Order, token: PaymentToken, now: OffsetDateTime) -> Transition {
    let effects = vec![Effect::ReserveStock, Effect::Send(Command::Authorize(token))];
    Transition { order, saga: Saga::begin(now), effects }
}

/// Decides how `trigger` changes the order and its saga at the time `now`.
///
/// # Errors
/// A [`Refusal`] if a person asks for something that is impossible now. Events of payment-service are never
/// refused: one that changes nothing at the current step is ignored.
pub fn handle(
    order: &Order,
    saga: &Saga,
    trigger: &Trigger,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    use Effect::{CommitStock, ReleaseStock, ReturnStock};
    use Reason::{CardDeclined, PaymentTimeout};
    use Status::{AwaitingPayment, Cancelled, Cancelling, Confirmed, NeedsAttention, Refunding, Rejected};
    use Step::{Authorize, Capture, Done, Refund, Void};
    use Trigger::*;

    let status = order.status();
    let next = Draft::new(order, saga, now);
    let due = saga.is_due(now);
    let draft = match (saga.step, trigger) {
        // Step 3, authorize: no money has been taken.
        (Authorize, Authorized) => next.enter(Capture),
        (Authorize, Declined(reason)) => next.status(Rejected(*reason)).effect(ReleaseStock).enter(Done),
        (Authorize, Timer) if due => next.status(Rejected(PaymentTimeout)).effect(ReleaseStock).enter(Void),
        (Authorize, Cancel | Compensate) => next.status(Cancelling).effect(ReleaseStock).enter(Void),

        // Step 4, capture. Its event `Captured` is the pivot. A cancellation releases the stock immediately, but the
        // payment continues until the result of the capture is known.
        (Capture, Captured) if status == Cancelling => next.status(Refunding).enter(Refund),
        (Capture, Captured) => next.status(Confirmed).effect(CommitStock).enter(Done),
        (Capture, Declined(_)) if status == Cancelling => next.enter(Void),
        (Capture, Declined(_)) => next.status(Rejected(CardDeclined)).effect(ReleaseStock).enter(Void),
        // The card network has voided the authorization, without a command from us.
        (Capture, Voided) if status == Cancelling => next.status(Cancelled).enter(Done),
        (Capture, Voided) => next.status(Rejected(CardDeclined)).effect(ReleaseStock).enter(Done),
        (Capture, Cancel | Compensate) if status == AwaitingPayment => {
            next.status(Cancelling).effect(ReleaseStock)
        }
        // The capture is stuck, and an admin undoes it.
        (Capture, Compensate) if status == NeedsAttention => {
            next.status(Cancelling).effect(ReleaseStock).enter(Void)
        }
        // The capture has no result, and the customer has cancelled. payment-service answers the void with
        // `Voided`, or with `Captured` if the money was taken.
        (Capture, PaymentStuck { .. } | Timer) if status == Cancelling && gives_up(saga, trigger, now) => {
            next.enter(Void)
        }

        // Compensation. These steps move no stock: it was released or returned when the order was rejected or cancelled. A
        // rejected order stays rejected. Each of the three events in the next line means that the customer pays
        // nothing.
        (Void, Voided | Declined(_) | Refunded) => next.status_unless_final(Cancelled).enter(Done),
        (Void, Captured) => next.status_unless_final(Refunding).enter(Refund),
        (Refund, Refunded) => next.status_unless_final(Status::Refunded).enter(Done),

        // Without an answer, the command is sent again until the deadline. Then the saga is stuck.
        (Capture | Void | Refund, PaymentStuck { .. } | Timer) if gives_up(saga, trigger, now) => {
            next.status_unless_final(NeedsAttention).stuck(trigger)
        }
        (Capture | Void | Refund, Timer) if due => next.retry(),
        (Capture | Void | Refund, Resume) if saga.is_stuck() => next.resume(),
        (Void | Refund, Compensate) if saga.is_stuck() => next.resume(),

        // The saga is done. A confirmed order can be cancelled. A payment that succeeds late is undone.
        (Done, Cancel | Compensate) if status == Confirmed => {
            next.status(Refunding).effect(ReturnStock).enter(Refund)
        }
        (Done, Captured) if matches!(status, Rejected(_) | Cancelled) => next.enter(Refund),
        (Done, Authorized) if matches!(status, Rejected(_) | Cancelled) => next.enter(Void),

        // A person's request that no line above handles. `build` refuses `Ship` and `Deliver` if the order's current
        // status does not allow them.
        (_, Ship) => next.status(Status::Shipped),
        (_, Deliver) => next.status(Status::Delivered),
        (_, Cancel | Compensate) => return decision::ignore_or_refuse_cancel(status),
        (_, Resume) => return Err(Refusal::NotStuck),

        // Nothing else changes the saga: neither duplicates, nor events that do not belong to the current step, nor
        // timers that are not due. No result is lost when an event is ignored here, because payment-service gives the same
        // answer to a repeated command. Only `Authorize` is never repeated: if its result does not arrive, `Void` follows,
        // and the answer to `Void` says what has happened.
        (Authorize, Captured | Voided | Refunded | PaymentStuck { .. } | Timer)
        | (Capture, Authorized | Refunded | PaymentStuck { .. } | Timer)
        | (Void, Authorized | PaymentStuck { .. } | Timer)
        | (Refund, Authorized | Declined(_) | Captured | Voided | PaymentStuck { .. } | Timer)
        | (Done, Authorized | Declined(_) | Captured | Voided | Refunded | PaymentStuck { .. } | Timer) => {
            return Ok(Decision::Ignore);
        }
    };
    draft.build()
}

/// Whether the saga must stop repeating the command of its current step. There are two reasons: payment-service
/// reports [`Trigger::PaymentStuck`] for this step, or the saga's deadline has passed. A saga that is already stuck does
/// not give up again: it ignores further reports of this kind, and it has no timer.
fn gives_up(saga: &Saga, trigger: &Trigger, now: OffsetDateTime) -> bool {
    match trigger {
        Trigger::PaymentStuck { operation, .. } => {
            !saga.is_stuck() && operation.is_none_or(|operation| operation == saga.step)
        }
        _ => saga.is_due(now) && saga.deadline <= now,
    }
}
