//! Races of a checkout: two triggers at nearly the same time, in both orders.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::{Line, Money};
use Effect::{CommitStock, ReleaseStock, ReturnStock, Send};

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// An order, its saga and a clock. Each method applies a trigger and asserts the result.
struct Scenario {
    order: Order,
    saga: Saga,
    now: OffsetDateTime,
}

fn placed() -> Scenario {
    let line = Line {
        product_id: Uuid::now_v7(),
        sku: "TEA".to_owned(),
        name: "Tea".to_owned(),
        quantity: 1.try_into().unwrap(),
        unit_price: Money::cents(350).unwrap(),
    };
    let order = Order::place(Uuid::now_v7(), vec![line], START).unwrap();
    let Transition { order, saga, effects } = begin(order, "tok_visa".to_owned().try_into().unwrap(), START);
    assert!(matches!(effects[..], [Effect::ReserveStock, Send(Command::Authorize(_))]));
    Scenario { order, saga, now: START }
}

impl Scenario {
    /// Applies `trigger`, and asserts its effects.
    fn on(mut self, trigger: Trigger, expected: &[Effect]) -> Self {
        let effects = match handle(&self.order, &self.saga, &trigger, self.now).unwrap() {
            Decision::Apply(next) => {
                assert_eq!(next.order.version(), self.order.version() + 1);
                (self.order, self.saga) = (next.order, next.saga);
                next.effects
            }
            Decision::Ignore => Vec::new(),
        };
        assert_eq!(effects, expected, "{trigger:?}");
        self
    }

    fn ignores(self, trigger: Trigger) -> Self {
        assert_eq!(handle(&self.order, &self.saga, &trigger, self.now), Ok(Decision::Ignore), "{trigger:?}");
        self
    }

    fn refuses(self, trigger: Trigger) -> Self {
        assert!(handle(&self.order, &self.saga, &trigger, self.now).is_err(), "{trigger:?}");
        self
    }

    /// Lets `pause` pass, and applies every timer that expires in this time.
    fn after(mut self, pause: Duration) -> Self {
        let end = self.now + pause;
        while let Some(at) = self.saga.wake_at.filter(|at| *at <= end) {
            self.now = at;
            let decision = handle(&self.order, &self.saga, &Trigger::Timer, at).unwrap();
            let Decision::Apply(next) = decision else { panic!("an expired timer is ignored") };
            (self.order, self.saga) = (next.order, next.saga);
        }
        self.now = end;
        self
    }

    fn is(self, status: Status, step: Step) -> Self {
        assert_eq!((self.order.status(), self.saga.step), (status, step));
        self
    }

    fn stuck(self) -> Self {
        assert!(self.saga.is_stuck() && self.saga.last_error.is_some());
        self
    }
}

fn capturing() -> Scenario {
    placed().on(Trigger::Authorized, &[Send(Command::Capture)]).is(Status::AwaitingPayment, Step::Capture)
}

fn confirmed() -> Scenario {
    capturing().on(Trigger::Captured, &[CommitStock]).is(Status::Confirmed, Step::Done)
}

fn stuck_in(step: Step) -> Trigger {
    Trigger::PaymentStuck { operation: Some(step), reason: "no answer".to_owned() }
}

#[test]
fn an_authorized_and_captured_order_is_confirmed() {
    confirmed().on(Trigger::Ship, &[]).on(Trigger::Deliver, &[]).is(Status::Delivered, Step::Done);
}

#[test]
fn a_declined_order_is_rejected_and_its_stock_released() {
    for reason in Reason::ALL {
        placed()
            .on(Trigger::Declined(reason), &[ReleaseStock])
            .is(Status::Rejected(reason), Step::Done)
            .refuses(Trigger::Cancel);
    }
}

#[test]
fn capture_declined_rejects_the_order_and_voids_the_authorization() {
    capturing()
        .on(Trigger::Declined(Reason::InsufficientFunds), &[ReleaseStock, Send(Command::Void)])
        .is(Status::Rejected(Reason::CardDeclined), Step::Void)
        .on(Trigger::Voided, &[])
        .is(Status::Rejected(Reason::CardDeclined), Step::Done);
}

#[test]
fn cancel_against_authorize_ends_cancelled_whichever_comes_first() {
    let cancelled = || {
        placed().on(Trigger::Cancel, &[ReleaseStock, Send(Command::Void)]).is(Status::Cancelling, Step::Void)
    };
    cancelled().ignores(Trigger::Authorized).on(Trigger::Voided, &[]).is(Status::Cancelled, Step::Done);
    let declined = Trigger::Declined(Reason::CardDeclined);
    cancelled().on(declined, &[]).is(Status::Cancelled, Step::Done).ignores(Trigger::Voided);
}

#[test]
fn cancel_against_capture_is_refunded_if_the_capture_wins() {
    capturing()
        .on(Trigger::Cancel, &[ReleaseStock])
        .is(Status::Cancelling, Step::Capture)
        .on(Trigger::Captured, &[Send(Command::Refund)])
        .is(Status::Refunding, Step::Refund)
        .on(Trigger::Refunded, &[])
        .is(Status::Refunded, Step::Done);
}

#[test]
fn cancel_against_capture_is_cancelled_if_the_capture_is_declined() {
    capturing()
        .on(Trigger::Cancel, &[ReleaseStock])
        .on(Trigger::Declined(Reason::CardDeclined), &[Send(Command::Void)])
        .is(Status::Cancelling, Step::Void)
        .on(Trigger::Voided, &[])
        .is(Status::Cancelled, Step::Done);
}

#[test]
fn cancel_against_a_stuck_capture_lets_the_void_decide() {
    let voiding = || {
        capturing()
            .on(Trigger::Cancel, &[ReleaseStock])
            .on(
                Trigger::PaymentStuck { operation: None, reason: "no answer".to_owned() },
                &[Send(Command::Void)],
            )
            .is(Status::Cancelling, Step::Void)
    };
    voiding().on(Trigger::Voided, &[]).is(Status::Cancelled, Step::Done);
    voiding().on(Trigger::Captured, &[Send(Command::Refund)]).is(Status::Refunding, Step::Refund);
}

#[test]
fn cancel_twice_is_cancel_once() {
    placed().on(Trigger::Cancel, &[ReleaseStock, Send(Command::Void)]).ignores(Trigger::Cancel);
    capturing().on(Trigger::Cancel, &[ReleaseStock]).ignores(Trigger::Cancel);
    confirmed()
        .on(Trigger::Cancel, &[ReturnStock, Send(Command::Refund)])
        .ignores(Trigger::Cancel)
        .on(Trigger::Refunded, &[])
        .is(Status::Refunded, Step::Done)
        .ignores(Trigger::Cancel);
}

#[test]
fn an_order_that_is_shipped_delivered_or_needs_attention_cannot_be_cancelled() {
    let shipped = || confirmed().on(Trigger::Ship, &[]);
    shipped().refuses(Trigger::Cancel).refuses(Trigger::Compensate).refuses(Trigger::Ship);
    shipped().on(Trigger::Deliver, &[]).refuses(Trigger::Cancel).refuses(Trigger::Deliver);
    capturing()
        .after(saga::OVERALL_TIMEOUT)
        .is(Status::NeedsAttention, Step::Capture)
        .refuses(Trigger::Cancel);
}

#[test]
fn a_late_authorization_is_voided() {
    placed()
        .after(saga::AUTHORIZE_TIMEOUT)
        .is(Status::Rejected(Reason::PaymentTimeout), Step::Void)
        .ignores(Trigger::Authorized)
        .on(Trigger::Voided, &[])
        .is(Status::Rejected(Reason::PaymentTimeout), Step::Done)
        .on(Trigger::Authorized, &[Send(Command::Void)]);
}

#[test]
fn a_late_capture_is_refunded() {
    let refunding = |order: Scenario| {
        order
            .on(Trigger::Captured, &[Send(Command::Refund)])
            .is(Status::Rejected(Reason::PaymentTimeout), Step::Refund)
            .on(Trigger::Refunded, &[])
            .is(Status::Rejected(Reason::PaymentTimeout), Step::Done);
    };
    refunding(placed().after(saga::AUTHORIZE_TIMEOUT));
    refunding(placed().after(saga::AUTHORIZE_TIMEOUT).on(Trigger::Voided, &[]));
}

#[test]
fn a_timer_that_expires_together_with_an_answer_is_ignored_after_it() {
    let mut order = placed().after(saga::AUTHORIZE_TIMEOUT - Duration::from_millis(1));
    order = order.on(Trigger::Authorized, &[Send(Command::Capture)]);
    order.now = START + saga::AUTHORIZE_TIMEOUT;
    order.ignores(Trigger::Timer).is(Status::AwaitingPayment, Step::Capture);
}

#[test]
fn a_capture_without_an_answer_is_sent_again_and_then_needs_attention() {
    let sent = capturing();
    let first = sent.saga.wake_at.unwrap();
    let again = sent.after((first - START).unsigned_abs()).is(Status::AwaitingPayment, Step::Capture);
    assert_eq!(again.saga.attempts, 2);
    again.after(saga::OVERALL_TIMEOUT).is(Status::NeedsAttention, Step::Capture).stuck();
}

#[test]
fn a_stuck_capture_completes_when_its_answer_arrives() {
    let stuck = || {
        capturing()
            .on(Trigger::PaymentStuck { operation: None, reason: "500 five times".to_owned() }, &[])
            .stuck()
    };
    stuck()
        .ignores(Trigger::PaymentStuck { operation: None, reason: "again".to_owned() })
        .ignores(Trigger::Timer);
    stuck().on(Trigger::Captured, &[CommitStock]).is(Status::Confirmed, Step::Done);
    stuck()
        .on(Trigger::Declined(Reason::CardDeclined), &[ReleaseStock, Send(Command::Void)])
        .is(Status::Rejected(Reason::CardDeclined), Step::Void);
}

#[test]
fn a_late_report_about_the_capture_does_not_end_the_void() {
    let void = &[Send(Command::Void)];
    let voiding = capturing().on(Trigger::Cancel, &[ReleaseStock]).on(stuck_in(Step::Capture), void);
    voiding
        .ignores(stuck_in(Step::Capture))
        .on(stuck_in(Step::Void), &[])
        .is(Status::NeedsAttention, Step::Void);
}

#[test]
fn an_authorization_that_the_card_network_releases_rejects_the_order() {
    let rejected = Status::Rejected(Reason::CardDeclined);
    capturing().on(Trigger::Voided, &[ReleaseStock]).is(rejected, Step::Done);
    capturing()
        .after(saga::OVERALL_TIMEOUT)
        .stuck()
        .on(Trigger::Voided, &[ReleaseStock])
        .is(rejected, Step::Done);
    let cancelled = capturing().on(Trigger::Cancel, &[ReleaseStock]).on(Trigger::Voided, &[]);
    cancelled.is(Status::Cancelled, Step::Done);
}

#[test]
fn an_admin_resumes_or_compensates_a_stuck_saga() {
    let stuck = || capturing().after(saga::OVERALL_TIMEOUT).is(Status::NeedsAttention, Step::Capture).stuck();
    let resumed = stuck().on(Trigger::Resume, &[Send(Command::Capture)]);
    assert!(!resumed.saga.is_stuck());
    resumed.refuses(Trigger::Resume).on(Trigger::Captured, &[CommitStock]).is(Status::Confirmed, Step::Done);
    stuck()
        .on(Trigger::Compensate, &[ReleaseStock, Send(Command::Void)])
        .is(Status::Cancelling, Step::Void)
        .on(Trigger::Voided, &[])
        .is(Status::Cancelled, Step::Done);
}

#[test]
fn a_refund_without_an_answer_needs_attention_until_it_is_done() {
    confirmed()
        .on(Trigger::Cancel, &[ReturnStock, Send(Command::Refund)])
        .after(saga::OVERALL_TIMEOUT)
        .is(Status::NeedsAttention, Step::Refund)
        .stuck()
        .on(Trigger::Compensate, &[Send(Command::Refund)])
        .on(Trigger::Refunded, &[])
        .is(Status::Refunded, Step::Done);
}

#[test]
fn a_void_without_an_answer_does_not_change_a_final_status() {
    let rejected = Status::Rejected(Reason::PaymentTimeout);
    placed()
        .after(saga::AUTHORIZE_TIMEOUT + saga::OVERALL_TIMEOUT)
        .is(rejected, Step::Void)
        .stuck()
        .on(Trigger::Resume, &[Send(Command::Void)])
        .on(Trigger::Voided, &[])
        .is(rejected, Step::Done);
}

#[test]
fn duplicate_messages_change_nothing() {
    capturing().ignores(Trigger::Authorized);
    confirmed().ignores(Trigger::Captured).ignores(Trigger::Authorized);
    let declined = Trigger::Declined(Reason::CardDeclined);
    placed().on(declined.clone(), &[ReleaseStock]).ignores(declined);
    confirmed()
        .on(Trigger::Cancel, &[ReturnStock, Send(Command::Refund)])
        .on(Trigger::Refunded, &[])
        .ignores(Trigger::Refunded)
        .ignores(Trigger::Captured);
}

#[test]
fn early_messages_change_nothing() {
    placed().ignores(Trigger::Captured).ignores(Trigger::Voided).ignores(Trigger::Refunded);
    capturing().ignores(Trigger::Refunded);
    confirmed().ignores(Trigger::Voided).ignores(Trigger::Refunded).ignores(Trigger::Timer);
}

#[test]
fn a_refund_by_an_admin_changes_nothing() {
    confirmed().ignores(Trigger::Refunded).is(Status::Confirmed, Step::Done);
}
