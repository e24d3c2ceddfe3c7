//! Property tests of the checkout with random histories.
//!
//! The first test applies arbitrary triggers. It checks that the status changes only as in [`TABLE`], and that
//! only requests of people are refused. The second test simulates a correct payment and a network that delays,
//! duplicates and reorders messages. It checks that stock and payment match the status of the settled order.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::{Line, Money};

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// The next statuses of each status. Written independently of [`Status::may_become`], which this table tests.
const TABLE: [(&str, &[&str]); 10] = [
    ("awaiting_payment", &["confirmed", "rejected", "cancelling", "needs_attention"]),
    ("confirmed", &["shipped", "refunding"]),
    ("shipped", &["delivered"]),
    ("delivered", &[]),
    ("rejected", &[]),
    ("cancelling", &["cancelled", "refunding", "needs_attention"]),
    ("cancelled", &[]),
    ("refunding", &["refunded", "needs_attention"]),
    ("refunded", &[]),
    ("needs_attention", &["confirmed", "rejected", "cancelling", "cancelled", "refunding", "refunded"]),
];

fn may_follow(from: Status, to: Status) -> bool {
    let row = TABLE.iter().find(|(status, _)| *status == from.as_str());
    row.is_some_and(|(_, next)| next.contains(&to.as_str()))
}

#[test]
fn the_transitions_are_those_of_the_table() {
    for (from, to) in Status::all().flat_map(|from| Status::all().map(move |to| (from, to))) {
        assert_eq!(from.may_become(to), may_follow(from, to), "{from:?} to {to:?}");
    }
}

/// The column of the order's stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    OnHand,
    Reserved,
    Sold,
}

/// An order, its saga, its stock and a clock.
struct Checkout {
    order: Order,
    saga: Saga,
    stock: Column,
    now: OffsetDateTime,
}

impl Checkout {
    /// A new checkout, and its first commands.
    fn place() -> (Self, Vec<Command>) {
        let line = Line {
            product_id: Uuid::from_u128(1),
            sku: "TEA".to_owned(),
            name: "Tea".to_owned(),
            quantity: 1.try_into().unwrap(),
            unit_price: Money::cents(350).unwrap(),
        };
        let order = Order::place(Uuid::from_u128(2), vec![line], START).unwrap();
        let begun = begin(order.clone(), "tok_visa".to_owned().try_into().unwrap(), START);
        let mut checkout = Self { order, saga: begun.saga.clone(), stock: Column::OnHand, now: START };
        let commands = checkout.apply(begun);
        (checkout, commands)
    }

    /// Applies `trigger`, and checks the invariants after it.
    fn on(&mut self, trigger: &Trigger) -> Vec<Command> {
        let before = self.order.clone();
        let next = match handle(&self.order, &self.saga, trigger, self.now) {
            Ok(Decision::Apply(next)) => next,
            Ok(Decision::Ignore) => return Vec::new(),
            Err(refusal) => {
                assert!(is_request_of_a_person(trigger), "{trigger:?}: {refusal}");
                return Vec::new();
            }
        };
        let (from, to) = (before.status(), next.order.status());
        assert!(from == to || may_follow(from, to), "{from:?} to {to:?} by {trigger:?}");
        assert_eq!(next.order.version(), before.version() + 1);
        let commands = self.apply(*next);
        assert_eq!(self.stock, self.stock_by_status(), "{to:?} by {trigger:?}");
        commands
    }

    /// Each move of stock must start in its current column.
    fn apply(&mut self, next: Transition) -> Vec<Command> {
        let mut commands = Vec::new();
        for effect in next.effects {
            let (from, to) = match effect {
                Effect::ReserveStock => (Column::OnHand, Column::Reserved),
                Effect::CommitStock => (Column::Reserved, Column::Sold),
                Effect::ReleaseStock => (Column::Reserved, Column::OnHand),
                Effect::ReturnStock => (Column::Sold, Column::OnHand),
                Effect::Send(command) => {
                    commands.push(command);
                    continue;
                }
            };
            assert_eq!(self.stock, from);
            self.stock = to;
        }
        (self.order, self.saga) = (next.order, next.saga);
        commands
    }

    fn stock_by_status(&self) -> Column {
        match self.order.status() {
            Status::AwaitingPayment => Column::Reserved,
            Status::NeedsAttention if self.saga.step == Step::Capture => Column::Reserved,
            Status::Confirmed | Status::Shipped | Status::Delivered => Column::Sold,
            _ => Column::OnHand,
        }
    }
}

fn is_request_of_a_person(trigger: &Trigger) -> bool {
    use Trigger::*;
    matches!(trigger, Cancel | Resume | Compensate | Ship | Deliver)
}

fn any_trigger() -> impl Strategy<Value = (Trigger, u64)> {
    let trigger = prop_oneof![
        Just(Trigger::Authorized),
        prop::sample::select(Reason::ALL.to_vec()).prop_map(Trigger::Declined),
        Just(Trigger::Captured),
        Just(Trigger::Voided),
        Just(Trigger::Refunded),
        Just(Trigger::PaymentStuck { operation: None, reason: "stuck".to_owned() }),
        Just(Trigger::Timer),
        Just(Trigger::Cancel),
        Just(Trigger::Resume),
        Just(Trigger::Compensate),
        Just(Trigger::Ship),
        Just(Trigger::Deliver),
    ];
    (trigger, 0..40u64)
}

proptest! {
    #[test]
    fn every_history_follows_the_table_and_keeps_stock_in_step(
        history in prop::collection::vec(any_trigger(), 0..60),
    ) {
        let (mut checkout, _) = Checkout::place();
        for (trigger, seconds) in history {
            checkout.now += Duration::from_secs(seconds);
            let before = checkout.order.status();
            checkout.on(&trigger);
            prop_assert!(!before.is_final() || checkout.order.status() == before);
        }
    }

    #[test]
    fn stock_and_payment_match_the_status_of_a_settled_order(choices in prop::collection::vec(any::<u8>(), 0..120)) {
        World::new().play(&choices);
    }
}

/// A payment with the guarantees of payment-service: it is charged once, and a final status does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payment {
    Unknown,
    Authorized,
    Captured,
    Declined,
    Voided,
    Refunded,
}

/// A checkout, a payment, and the messages between them.
struct World {
    checkout: Checkout,
    payment: Payment,
    commands: VecDeque<Command>,
    events: VecDeque<Trigger>,
}

impl World {
    fn new() -> Self {
        let (checkout, commands) = Checkout::place();
        Self { checkout, payment: Payment::Unknown, commands: commands.into(), events: VecDeque::new() }
    }

    /// Runs the history that `choices` encodes, settles the order, and checks the result.
    fn play(mut self, choices: &[u8]) {
        for pair in choices.chunks_exact(2) {
            let (action, index) = (pair[0] % 10, usize::from(pair[1]));
            match action {
                0..=2 => self.deliver_command(index, action == 2),
                3..=5 => self.deliver_event(index, action == 5),
                6 => self.pass_time(Duration::from_secs(pair[1].into())),
                7 => self.trigger(&Trigger::Cancel),
                8 => self.trigger(&[Trigger::Resume, Trigger::Compensate][index % 2]),
                _ => self
                    .events
                    .push_back(Trigger::PaymentStuck { operation: None, reason: "slow".to_owned() }),
            }
        }
        self.settle();
        self.check();
    }

    fn trigger(&mut self, trigger: &Trigger) {
        let commands = self.checkout.on(trigger);
        self.commands.extend(commands);
    }

    /// Delivers any of the commands, and keeps it for a duplicate delivery if `duplicate`.
    fn deliver_command(&mut self, choice: usize, duplicate: bool) {
        let Some(index) = choice.checked_rem(self.commands.len()) else { return };
        let Some(command) = self.commands.remove(index) else { return };
        if duplicate {
            self.commands.push_back(command.clone());
        }
        self.pay(command, choice.is_multiple_of(3));
    }

    fn pay(&mut self, command: Command, declines: bool) {
        use Payment::*;
        let (payment, event) = match (command, self.payment) {
            (Command::Authorize(_), Unknown) if declines => {
                (Declined, Some(Trigger::Declined(Reason::CardDeclined)))
            }
            (Command::Authorize(_), Unknown) => (Authorized, Some(Trigger::Authorized)),
            (Command::Capture, Authorized) if declines => {
                (Authorized, Some(Trigger::Declined(Reason::CardDeclined)))
            }
            (Command::Capture, Authorized) => (Captured, Some(Trigger::Captured)),
            (Command::Void, Unknown | Authorized) => (Voided, Some(Trigger::Voided)),
            (Command::Refund, Captured) => (Refunded, Some(Trigger::Refunded)),
            // The command is too early. payment-service refuses it, so it is delivered again.
            (command @ (Command::Capture | Command::Refund), payment @ (Unknown | Authorized)) => {
                self.commands.push_back(command);
                (payment, None)
            }
            // A repeated command is answered with the current status.
            (_, payment) => (payment, settled_outcome(payment)),
        };
        self.payment = payment;
        self.events.extend(event);
    }

    fn deliver_event(&mut self, choice: usize, duplicate: bool) {
        let Some(index) = choice.checked_rem(self.events.len()) else { return };
        let Some(event) = self.events.remove(index) else { return };
        if duplicate {
            self.events.push_back(event.clone());
        }
        self.trigger(&event);
    }

    /// Time passes, and the timer is applied once.
    fn pass_time(&mut self, time: Duration) {
        self.checkout.now += time;
        self.trigger(&Trigger::Timer);
    }

    /// Delivers all messages, applies all timers and resumes a stuck saga until the saga is done.
    fn settle(&mut self) {
        for _ in 0..500 {
            match (self.commands.is_empty(), self.events.is_empty()) {
                (_, false) => self.deliver_event(0, false),
                (false, true) => self.deliver_command(1, false),
                (true, true) => match (self.checkout.saga.progress(), self.checkout.saga.wake_at) {
                    (Progress::Done, _) => return,
                    (_, Some(at)) => {
                        self.checkout.now = self.checkout.now.max(at);
                        self.trigger(&Trigger::Timer);
                    }
                    (_, None) => self.trigger(&Trigger::Resume),
                },
            }
        }
        panic!("not settled: {:?} {:?} {:?}", self.checkout.order, self.checkout.saga, self.payment);
    }

    fn check(&self) {
        let status = self.checkout.order.status();
        let expected: &[Payment] = match status {
            Status::Confirmed | Status::Shipped | Status::Delivered => &[Payment::Captured],
            Status::Refunded => &[Payment::Refunded],
            Status::Cancelled | Status::Rejected(_) => {
                &[Payment::Declined, Payment::Voided, Payment::Refunded]
            }
            other => panic!("{other:?} is not settled"),
        };
        assert!(expected.contains(&self.payment), "{status:?} with a payment {:?}", self.payment);
    }
}

fn settled_outcome(payment: Payment) -> Option<Trigger> {
    match payment {
        Payment::Unknown => None,
        Payment::Authorized => Some(Trigger::Authorized),
        Payment::Captured => Some(Trigger::Captured),
        Payment::Declined => Some(Trigger::Declined(Reason::CardDeclined)),
        Payment::Voided => Some(Trigger::Voided),
        Payment::Refunded => Some(Trigger::Refunded),
    }
}
