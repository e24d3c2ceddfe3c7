//! Random histories of a checkout against two models.
//!
//! The first plays anything at all, and checks what must hold whatever payments say: the status changes
//! as [`TABLE`] has it, and only people are refused anything. The second plays a payment that keeps its
//! promises over a mail that delays, repeats and reorders, lets everything come to rest, and checks that
//! goods and money are where the order's status says.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::{Line, Money};

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// What may follow each status, as the design has it: written out once more, because
/// [`Status::may_become`] is what [`Order::change_to`] goes by and cannot be its own judge.
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
fn an_order_may_become_what_the_table_says_and_nothing_else() {
    for (from, to) in Status::all().flat_map(|from| Status::all().map(move |to| (from, to))) {
        assert_eq!(from.may_become(to), may_follow(from, to), "{from:?} to {to:?}");
    }
}

/// Where the goods of the order are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goods {
    OnHand,
    Reserved,
    Sold,
}

/// An order, its saga, its goods, and a clock.
struct Checkout {
    order: Order,
    saga: Saga,
    goods: Goods,
    now: OffsetDateTime,
}

impl Checkout {
    /// A new one, and the first command.
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
        let mut checkout = Self { order, saga: begun.saga.clone(), goods: Goods::OnHand, now: START };
        let commands = checkout.apply(begun);
        (checkout, commands)
    }

    /// Lets `event` happen; checks what must hold at every step.
    fn on(&mut self, event: &Trigger) -> Vec<Command> {
        let before = self.order.clone();
        let moved = match handle(&self.order, &self.saga, event, self.now) {
            Ok(Decision::Moves(moved)) => moved,
            Ok(Decision::Stays) => return Vec::new(),
            Err(refusal) => {
                assert!(is_asked_by_a_person(event), "{event:?}: {refusal}");
                return Vec::new();
            }
        };
        let (from, to) = (before.status(), moved.order.status());
        assert!(from == to || may_follow(from, to), "{from:?} to {to:?} by {event:?}");
        assert_eq!(moved.order.version(), before.version() + 1);
        let commands = self.apply(*moved);
        assert_eq!(self.goods, self.goods_by_status(), "{to:?} by {event:?}");
        commands
    }

    /// Moves goods only from where they are.
    fn apply(&mut self, moved: Move) -> Vec<Command> {
        let mut commands = Vec::new();
        for effect in moved.effects {
            let (from, to) = match effect {
                Effect::ReserveStock => (Goods::OnHand, Goods::Reserved),
                Effect::CommitStock => (Goods::Reserved, Goods::Sold),
                Effect::ReleaseStock => (Goods::Reserved, Goods::OnHand),
                Effect::ReturnStock => (Goods::Sold, Goods::OnHand),
                Effect::Send(command) => {
                    commands.push(command);
                    continue;
                }
            };
            assert_eq!(self.goods, from);
            self.goods = to;
        }
        (self.order, self.saga) = (moved.order, moved.saga);
        commands
    }

    fn goods_by_status(&self) -> Goods {
        match self.order.status() {
            Status::AwaitingPayment => Goods::Reserved,
            Status::NeedsAttention if self.saga.step == Step::Capture => Goods::Reserved,
            Status::Confirmed | Status::Shipped | Status::Delivered => Goods::Sold,
            _ => Goods::OnHand,
        }
    }
}

fn is_asked_by_a_person(event: &Trigger) -> bool {
    use Trigger::*;
    matches!(event, Cancel | Resume | Compensate | Ship | Deliver)
}

fn any_event() -> impl Strategy<Value = (Trigger, u64)> {
    let event = prop_oneof![
        Just(Trigger::Authorized),
        prop::sample::select(Reason::ALL.to_vec()).prop_map(Trigger::Declined),
        Just(Trigger::Captured),
        Just(Trigger::Voided),
        Just(Trigger::Refunded),
        Just(Trigger::Stuck { operation: None, reason: "stuck".to_owned() }),
        Just(Trigger::Timer),
        Just(Trigger::Cancel),
        Just(Trigger::Resume),
        Just(Trigger::Compensate),
        Just(Trigger::Ship),
        Just(Trigger::Deliver),
    ];
    (event, 0..40u64)
}

proptest! {
    #[test]
    fn no_history_moves_an_order_where_its_table_does_not_or_goods_from_where_they_are_not(
        history in prop::collection::vec(any_event(), 0..60),
    ) {
        let (mut checkout, _) = Checkout::place();
        for (event, seconds) in history {
            checkout.now += Duration::from_secs(seconds);
            let before = checkout.order.status();
            checkout.on(&event);
            prop_assert!(!before.is_final() || checkout.order.status() == before);
        }
    }

    #[test]
    fn at_rest_goods_and_money_are_where_the_status_says(dice in prop::collection::vec(any::<u8>(), 0..120)) {
        World::new().play(&dice);
    }
}

/// A payment as payment-service promises it: never twice, undone things stay undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payment {
    Unknown,
    Authorized,
    Captured,
    Declined,
    Voided,
    Refunded,
}

/// A checkout, a payment, and the mail between them.
struct World {
    checkout: Checkout,
    payment: Payment,
    commands: VecDeque<Command>,
    answers: VecDeque<Trigger>,
}

impl World {
    fn new() -> Self {
        let (checkout, commands) = Checkout::place();
        Self { checkout, payment: Payment::Unknown, commands: commands.into(), answers: VecDeque::new() }
    }

    /// Plays by `dice`, then lets everything come to rest, and checks.
    fn play(mut self, dice: &[u8]) {
        for pair in dice.chunks_exact(2) {
            let (what, which) = (pair[0] % 10, usize::from(pair[1]));
            match what {
                0..=2 => self.deliver_command(which, what == 2),
                3..=5 => self.deliver_answer(which, what == 5),
                6 => self.pass(Duration::from_secs(pair[1].into())),
                7 => self.happen(&Trigger::Cancel),
                8 => self.happen(&[Trigger::Resume, Trigger::Compensate][which % 2]),
                _ => self.answers.push_back(Trigger::Stuck { operation: None, reason: "slow".to_owned() }),
            }
        }
        self.settle();
        self.check();
    }

    fn happen(&mut self, event: &Trigger) {
        let commands = self.checkout.on(event);
        self.commands.extend(commands);
    }

    /// Any command arrives, not only the oldest; perhaps it will arrive again.
    fn deliver_command(&mut self, which: usize, again: bool) {
        let Some(index) = which.checked_rem(self.commands.len()) else { return };
        let Some(command) = self.commands.remove(index) else { return };
        if again {
            self.commands.push_back(command.clone());
        }
        self.pay(command, which.is_multiple_of(3));
    }

    fn pay(&mut self, command: Command, refuses: bool) {
        use Payment::*;
        let (payment, answer) = match (command, self.payment) {
            (Command::Authorize(_), Unknown) if refuses => {
                (Declined, Some(Trigger::Declined(Reason::CardDeclined)))
            }
            (Command::Authorize(_), Unknown) => (Authorized, Some(Trigger::Authorized)),
            (Command::Capture, Authorized) if refuses => {
                (Authorized, Some(Trigger::Declined(Reason::CardDeclined)))
            }
            (Command::Capture, Authorized) => (Captured, Some(Trigger::Captured)),
            (Command::Void, Unknown | Authorized) => (Voided, Some(Trigger::Voided)),
            (Command::Refund, Captured) => (Refunded, Some(Trigger::Refunded)),
            // Too early: refused, and so sent again.
            (command @ (Command::Capture | Command::Refund), payment @ (Unknown | Authorized)) => {
                self.commands.push_back(command);
                (payment, None)
            }
            // Asked again, it says how it stands.
            (_, payment) => (payment, standing(payment)),
        };
        self.payment = payment;
        self.answers.extend(answer);
    }

    fn deliver_answer(&mut self, which: usize, again: bool) {
        let Some(index) = which.checked_rem(self.answers.len()) else { return };
        let Some(answer) = self.answers.remove(index) else { return };
        if again {
            self.answers.push_back(answer.clone());
        }
        self.happen(&answer);
    }

    /// Time passes; timers run out, or are late.
    fn pass(&mut self, time: Duration) {
        self.checkout.now += time;
        self.happen(&Trigger::Timer);
    }

    /// Everything arrives, every timer runs out, and an admin resumes what is stuck, until there is
    /// nothing left to do.
    fn settle(&mut self) {
        for _ in 0..500 {
            match (self.commands.is_empty(), self.answers.is_empty()) {
                (_, false) => self.deliver_answer(0, false),
                (false, true) => self.deliver_command(1, false),
                (true, true) => match (self.checkout.saga.progress(), self.checkout.saga.wake_at) {
                    (Progress::Done, _) => return,
                    (_, Some(at)) => {
                        self.checkout.now = self.checkout.now.max(at);
                        self.happen(&Trigger::Timer);
                    }
                    (_, None) => self.happen(&Trigger::Resume),
                },
            }
        }
        panic!("never at rest: {:?} {:?} {:?}", self.checkout.order, self.checkout.saga, self.payment);
    }

    fn check(&self) {
        let status = self.checkout.order.status();
        let expected: &[Payment] = match status {
            Status::Confirmed | Status::Shipped | Status::Delivered => &[Payment::Captured],
            Status::Refunded => &[Payment::Refunded],
            Status::Cancelled | Status::Rejected(_) => {
                &[Payment::Declined, Payment::Voided, Payment::Refunded]
            }
            other => panic!("{other:?} is not rest"),
        };
        assert!(expected.contains(&self.payment), "{status:?} with a payment {:?}", self.payment);
    }
}

fn standing(payment: Payment) -> Option<Trigger> {
    match payment {
        Payment::Unknown => None,
        Payment::Authorized => Some(Trigger::Authorized),
        Payment::Captured => Some(Trigger::Captured),
        Payment::Declined => Some(Trigger::Declined(Reason::CardDeclined)),
        Payment::Voided => Some(Trigger::Voided),
        Payment::Refunded => Some(Trigger::Refunded),
    }
}
