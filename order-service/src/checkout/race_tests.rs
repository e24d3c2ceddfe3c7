//! Each race of a checkout, and the outcome it has: two things happen at nearly the same time, and
//! the tests play both orders.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::{Line, Money};
use Effect::{CommitStock, ReleaseStock, ReturnStock, Send};

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// An order and its saga, and a clock.
struct Checkout {
    order: Order,
    saga: Saga,
    now: OffsetDateTime,
}

fn placed() -> Checkout {
    let line = Line {
        product_id: Uuid::now_v7(),
        sku: "TEA".to_owned(),
        name: "Tea".to_owned(),
        quantity: 1.try_into().unwrap(),
        unit_price: Money::cents(350).unwrap(),
    };
    let order = Order::place(Uuid::now_v7(), vec![line], START).unwrap();
    let Move { order, saga, effects } = begin(order, "tok_visa".to_owned().try_into().unwrap(), START);
    assert!(matches!(effects[..], [Effect::ReserveStock, Send(Command::Authorize(_))]));
    Checkout { order, saga, now: START }
}

impl Checkout {
    /// Something happens that has these effects.
    fn on(mut self, event: Event, expected: &[Effect]) -> Self {
        let effects = match handle(&self.order, &self.saga, &event, self.now).unwrap() {
            Decision::Moves(moved) => {
                assert_eq!(moved.order.version(), self.order.version() + 1);
                (self.order, self.saga) = (moved.order, moved.saga);
                moved.effects
            }
            Decision::Stays => Vec::new(),
        };
        assert_eq!(effects, expected, "{event:?}");
        self
    }

    /// Something happens that changes nothing.
    fn ignores(self, event: Event) -> Self {
        assert_eq!(handle(&self.order, &self.saga, &event, self.now), Ok(Decision::Stays), "{event:?}");
        self
    }

    fn refuses(self, event: Event) -> Self {
        assert!(handle(&self.order, &self.saga, &event, self.now).is_err(), "{event:?}");
        self
    }

    /// Time passes, with all the timers that run out in it.
    fn after(mut self, pause: Duration) -> Self {
        let end = self.now + pause;
        while let Some(at) = self.saga.wake_at.filter(|at| *at <= end) {
            self.now = at;
            let decision = handle(&self.order, &self.saga, &Event::Timer, at).unwrap();
            let Decision::Moves(moved) = decision else { panic!("a due timer is dealt with") };
            (self.order, self.saga) = (moved.order, moved.saga);
        }
        self.now = end;
        self
    }

    fn is(self, status: Status, step: Step) -> Self {
        assert_eq!((self.order.status(), self.saga.step), (status, step));
        self
    }

    fn has_got_stuck(self) -> Self {
        assert!(self.saga.is_stuck() && self.saga.last_error.is_some());
        self
    }
}

fn capturing() -> Checkout {
    placed().on(Event::Authorized, &[Send(Command::Capture)]).is(Status::AwaitingPayment, Step::Capture)
}

fn confirmed() -> Checkout {
    capturing().on(Event::Captured, &[CommitStock]).is(Status::Confirmed, Step::Done)
}

#[test]
fn an_authorized_and_captured_order_is_confirmed() {
    confirmed().on(Event::Ship, &[]).on(Event::Deliver, &[]).is(Status::Delivered, Step::Done);
}

#[test]
fn a_declined_order_is_rejected_and_its_stock_is_free() {
    for reason in Reason::ALL {
        placed()
            .on(Event::Declined(reason), &[ReleaseStock])
            .is(Status::Rejected(reason), Step::Done)
            .refuses(Event::Cancel);
    }
}

#[test]
fn capture_declined_rejects_the_order_and_voids_the_authorization() {
    capturing()
        .on(Event::Declined(Reason::InsufficientFunds), &[ReleaseStock, Send(Command::Void)])
        .is(Status::Rejected(Reason::CardDeclined), Step::Void)
        .on(Event::Voided, &[])
        .is(Status::Rejected(Reason::CardDeclined), Step::Done);
}

#[test]
fn cancel_against_authorize_ends_cancelled_whichever_comes_first() {
    let cancelled = || {
        placed().on(Event::Cancel, &[ReleaseStock, Send(Command::Void)]).is(Status::Cancelling, Step::Void)
    };
    cancelled().ignores(Event::Authorized).on(Event::Voided, &[]).is(Status::Cancelled, Step::Done);
    let declined = Event::Declined(Reason::CardDeclined);
    cancelled().on(declined, &[]).is(Status::Cancelled, Step::Done).ignores(Event::Voided);
}

#[test]
fn cancel_against_capture_is_refunded_if_the_capture_wins() {
    capturing()
        .on(Event::Cancel, &[ReleaseStock])
        .is(Status::Cancelling, Step::Capture)
        .on(Event::Captured, &[Send(Command::Refund)])
        .is(Status::Refunding, Step::Refund)
        .on(Event::Refunded, &[])
        .is(Status::Refunded, Step::Done);
}

#[test]
fn cancel_against_capture_is_cancelled_if_the_capture_is_declined() {
    capturing()
        .on(Event::Cancel, &[ReleaseStock])
        .on(Event::Declined(Reason::CardDeclined), &[Send(Command::Void)])
        .is(Status::Cancelling, Step::Void)
        .on(Event::Voided, &[])
        .is(Status::Cancelled, Step::Done);
}

#[test]
fn cancel_against_a_capture_that_gets_nowhere_lets_the_void_decide() {
    let voiding = || {
        capturing()
            .on(Event::Cancel, &[ReleaseStock])
            .on(Event::Stuck("no answer".to_owned()), &[Send(Command::Void)])
            .is(Status::Cancelling, Step::Void)
    };
    voiding().on(Event::Voided, &[]).is(Status::Cancelled, Step::Done);
    voiding().on(Event::Captured, &[Send(Command::Refund)]).is(Status::Refunding, Step::Refund);
}

#[test]
fn cancel_twice_is_cancel_once() {
    placed().on(Event::Cancel, &[ReleaseStock, Send(Command::Void)]).ignores(Event::Cancel);
    capturing().on(Event::Cancel, &[ReleaseStock]).ignores(Event::Cancel);
    confirmed()
        .on(Event::Cancel, &[ReturnStock, Send(Command::Refund)])
        .ignores(Event::Cancel)
        .on(Event::Refunded, &[])
        .is(Status::Refunded, Step::Done)
        .ignores(Event::Cancel);
}

#[test]
fn what_is_shipped_delivered_or_needs_attention_is_not_cancelled() {
    let shipped = || confirmed().on(Event::Ship, &[]);
    shipped().refuses(Event::Cancel).refuses(Event::Compensate).refuses(Event::Ship);
    shipped().on(Event::Deliver, &[]).refuses(Event::Cancel).refuses(Event::Deliver);
    capturing().after(saga::OVERALL).is(Status::NeedsAttention, Step::Capture).refuses(Event::Cancel);
}

#[test]
fn a_late_authorization_is_voided() {
    placed()
        .after(saga::AUTHORIZE)
        .is(Status::Rejected(Reason::PaymentTimeout), Step::Void)
        .ignores(Event::Authorized)
        .on(Event::Voided, &[])
        .is(Status::Rejected(Reason::PaymentTimeout), Step::Done)
        .on(Event::Authorized, &[Send(Command::Void)]);
}

#[test]
fn a_late_capture_is_refunded() {
    let refunding = |order: Checkout| {
        order
            .on(Event::Captured, &[Send(Command::Refund)])
            .is(Status::Rejected(Reason::PaymentTimeout), Step::Refund)
            .on(Event::Refunded, &[])
            .is(Status::Rejected(Reason::PaymentTimeout), Step::Done);
    };
    refunding(placed().after(saga::AUTHORIZE));
    refunding(placed().after(saga::AUTHORIZE).on(Event::Voided, &[]));
}

#[test]
fn a_timer_that_runs_out_at_the_time_of_an_answer_changes_nothing_after_it() {
    let mut order = placed().after(saga::AUTHORIZE - Duration::from_millis(1));
    order = order.on(Event::Authorized, &[Send(Command::Capture)]);
    order.now = START + saga::AUTHORIZE;
    order.ignores(Event::Timer).is(Status::AwaitingPayment, Step::Capture);
}

#[test]
fn a_capture_without_an_answer_is_asked_for_again_and_then_needs_attention() {
    let asked = capturing();
    let first = asked.saga.wake_at.unwrap();
    let again = asked.after((first - START).unsigned_abs()).is(Status::AwaitingPayment, Step::Capture);
    assert_eq!(again.saga.attempts, 2);
    again.after(saga::OVERALL).is(Status::NeedsAttention, Step::Capture).has_got_stuck();
}

#[test]
fn a_capture_that_was_stuck_heals_when_its_answer_comes() {
    let stuck = || capturing().on(Event::Stuck("500 five times".to_owned()), &[]).has_got_stuck();
    stuck().ignores(Event::Stuck("again".to_owned())).ignores(Event::Timer);
    stuck().on(Event::Captured, &[CommitStock]).is(Status::Confirmed, Step::Done);
    stuck()
        .on(Event::Declined(Reason::CardDeclined), &[ReleaseStock, Send(Command::Void)])
        .is(Status::Rejected(Reason::CardDeclined), Step::Void);
}

#[test]
fn what_was_said_of_the_capture_does_not_end_the_patience_with_the_void() {
    let void = &[Send(Command::Void)];
    let voiding = capturing().on(Event::Cancel, &[ReleaseStock]).on(Event::Stuck("capture".to_owned()), void);
    voiding
        .ignores(Event::Stuck("capture_unanswered".to_owned()))
        .on(Event::Stuck("void_unanswered".to_owned()), &[])
        .is(Status::NeedsAttention, Step::Void);
}

#[test]
fn money_that_the_card_network_lets_go_by_itself_rejects_the_order() {
    let lost = Status::Rejected(Reason::CardDeclined);
    capturing().on(Event::Voided, &[ReleaseStock]).is(lost, Step::Done);
    capturing().after(saga::OVERALL).has_got_stuck().on(Event::Voided, &[ReleaseStock]).is(lost, Step::Done);
    let cancelled = capturing().on(Event::Cancel, &[ReleaseStock]).on(Event::Voided, &[]);
    cancelled.is(Status::Cancelled, Step::Done);
}

#[test]
fn an_admin_resumes_or_compensates_what_is_stuck() {
    let stuck = || capturing().after(saga::OVERALL).is(Status::NeedsAttention, Step::Capture).has_got_stuck();
    let resumed = stuck().on(Event::Resume, &[Send(Command::Capture)]);
    assert!(!resumed.saga.is_stuck());
    resumed.refuses(Event::Resume).on(Event::Captured, &[CommitStock]).is(Status::Confirmed, Step::Done);
    stuck()
        .on(Event::Compensate, &[ReleaseStock, Send(Command::Void)])
        .is(Status::Cancelling, Step::Void)
        .on(Event::Voided, &[])
        .is(Status::Cancelled, Step::Done);
}

#[test]
fn a_refund_that_gets_nowhere_needs_attention_until_it_is_done() {
    confirmed()
        .on(Event::Cancel, &[ReturnStock, Send(Command::Refund)])
        .after(saga::OVERALL)
        .is(Status::NeedsAttention, Step::Refund)
        .has_got_stuck()
        .on(Event::Compensate, &[Send(Command::Refund)])
        .on(Event::Refunded, &[])
        .is(Status::Refunded, Step::Done);
}

#[test]
fn a_void_that_gets_nowhere_does_not_change_what_the_customer_was_told() {
    let rejected = Status::Rejected(Reason::PaymentTimeout);
    placed()
        .after(saga::AUTHORIZE + saga::OVERALL)
        .is(rejected, Step::Void)
        .has_got_stuck()
        .on(Event::Resume, &[Send(Command::Void)])
        .on(Event::Voided, &[])
        .is(rejected, Step::Done);
}

#[test]
fn duplicate_messages_change_nothing() {
    capturing().ignores(Event::Authorized);
    confirmed().ignores(Event::Captured).ignores(Event::Authorized);
    let declined = Event::Declined(Reason::CardDeclined);
    placed().on(declined.clone(), &[ReleaseStock]).ignores(declined);
    confirmed()
        .on(Event::Cancel, &[ReturnStock, Send(Command::Refund)])
        .on(Event::Refunded, &[])
        .ignores(Event::Refunded)
        .ignores(Event::Captured);
}

#[test]
fn reordered_messages_change_nothing_before_their_time() {
    placed().ignores(Event::Captured).ignores(Event::Voided).ignores(Event::Refunded);
    capturing().ignores(Event::Refunded);
    confirmed().ignores(Event::Voided).ignores(Event::Refunded).ignores(Event::Timer);
}

#[test]
fn a_refund_that_an_admin_made_leaves_the_order_as_it_is() {
    confirmed().ignores(Event::Refunded).is(Status::Confirmed, Step::Done);
}
