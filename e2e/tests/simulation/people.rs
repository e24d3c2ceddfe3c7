//! What customers, admins and bad luck do, at random times; and what customers are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use order_service::checkout::Trigger;
use uuid::Uuid;

use super::orders::Wish;
use super::payments::eur;
use super::world::{Service, World, short};

const TOKENS: [&str; 9] = [
    "tok_visa",
    "tok_visa",
    "tok_declined",
    "tok_insufficient_funds",
    "tok_slow",
    "tok_flaky",
    "tok_timeout_after_charge",
    "tok_capture_declined",
    "tok_capture_flaky",
];

/// What customers want, and what they know.
#[derive(Default)]
pub(crate) struct People {
    /// What was asked for with each idempotency key.
    wishes: BTreeMap<Uuid, Wish>,
    /// The order that came of a key, as its customer was told.
    pub(crate) told: BTreeMap<Uuid, Uuid>,
    /// The keys of customers who were told that there is not enough.
    pub(crate) refused: BTreeSet<Uuid>,
    /// The requests without an answer.
    pub(crate) waiting: BTreeSet<Request>,
}

/// A request with an idempotency key, and which of those with the same key it is.
pub(crate) type Request = (Uuid, u64);

/// What `POST /api/orders` answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Placed {
    /// The order, placed now or before.
    Order(Uuid),
    /// There are not enough goods.
    OutOfStock,
}

impl World {
    /// Customers who compete for little stock, and change their minds; admins who ship, refund, resume
    /// and compensate, whether that makes sense or not.
    pub(crate) fn invite_people(&mut self, time: Duration) {
        // Together, or one after the other.
        let placing = if self.chance.per_mille(500) { time } else { Duration::from_secs(2) };
        for _ in 0..=self.chance.below(6) {
            let order = self.chance.id();
            self.want(order, placing);
            let events =
                [Trigger::Cancel, Trigger::Ship, Trigger::Deliver, Trigger::Resume, Trigger::Compensate];
            for event in events {
                for _ in 0..self.chance.below(3) {
                    let (at, event) = (self.chance.within(2 * time), event.clone());
                    self.outside(at, move |world| world.ask(order, event));
                }
            }
            for _ in 0..self.chance.below(3) {
                let (at, key) = (self.chance.within(2 * time), self.chance.id());
                let amount = self.chance.pick(&[None, Some(1), Some(350), Some(10_000)]);
                let is_repeated = self.chance.per_mille(300);
                self.outside(at, move |world| world.wants_back(order, key, amount));
                if is_repeated {
                    self.outside(at, move |world| world.wants_back(order, key, amount));
                }
            }
        }
        if self.chance.per_mille(300) {
            let (at, product) = (self.chance.within(time), self.chance.below(3) as usize);
            self.outside(at, move |world| world.adjust(product, 2));
        }
    }

    /// Both replicas of a service are down for a while, or nobody reaches the card network.
    pub(crate) fn plan_outages(&mut self, time: Duration) {
        for replicas in [[0, 1], [2, 3]] {
            if self.chance.per_mille(100) {
                let at = self.chance.within(time);
                for replica in replicas {
                    let long = self.chance.within(Duration::from_secs(90));
                    self.outside(at, move |world| world.crash(replica, long));
                }
            }
        }
        if self.chance.per_mille(300) {
            let (from, to) = (self.chance.within(time), self.chance.within(time));
            self.outside(from.min(to), |world| world.network.is_away = true);
            self.outside(from.max(to), |world| world.network.is_away = false);
        }
    }

    /// Every customer cancels.
    pub(crate) fn everybody_cancels(&mut self) {
        for order in self.orders.keys.keys().copied().collect::<Vec<_>>() {
            self.ask(order, Trigger::Cancel);
        }
    }

    /// Messages that were sent long ago arrive once more, when no inbox remembers them.
    pub(crate) fn history_repeats(&mut self) {
        for service in [Service::Orders, Service::Payments] {
            for letter in self.outboxes[&service].written.clone() {
                let Some(replica) = self.replica_of(service).filter(|_| self.chance.per_mille(500)) else {
                    continue;
                };
                let at = self.chance.within(Duration::from_secs(30));
                self.outside(at, move |world| world.repeat(replica, &letter));
            }
        }
    }

    /// Customers who know of their order ask for it once more.
    pub(crate) fn requests_repeat(&mut self) {
        for key in self.people.told.keys().copied().collect::<Vec<_>>() {
            self.request((key, u64::MAX));
        }
    }

    /// A customer orders, perhaps by several requests at once.
    fn want(&mut self, key: Uuid, time: Duration) {
        let first = self.chance.below(3) as usize;
        let products = [first, (first + 1) % 3];
        let count = 1 + self.chance.below(2) as usize;
        let lines = products[..count].iter().map(|product| (*product, 1 + self.chance.below(2) as i64));
        let wish = Wish { key, lines: lines.collect(), token: self.chance.pick(&TOKENS) };
        self.people.wishes.insert(key, wish);
        let at = self.chance.within(time);
        for copy in 0..=self.chance.below(3) {
            let later = self.chance.within(Duration::from_millis(200));
            self.outside(at + later, move |world| world.request((key, copy)));
        }
    }

    /// Sends a customer's request, and again with the same key until there is an answer.
    fn request(&mut self, request: Request) {
        self.people.waiting.insert(request);
        let patience = Duration::from_secs(1) + self.chance.within(Duration::from_secs(4));
        self.outside(patience, move |world| {
            if world.people.waiting.contains(&request) {
                world.request(request);
            }
        });
        self.carry(move |world, answers| {
            let Some(replica) = world.replica_of(Service::Orders) else { return };
            let wish = world.people.wishes[&request.0].clone();
            world.on(replica, Duration::ZERO, move |world| {
                world.place(replica, wish, move |world, placed| {
                    let Some(placed) = placed.filter(|_| answers) else { return };
                    let delay = world.chance.within(Duration::from_millis(10));
                    world.outside(delay, move |world| world.learn(request, placed));
                });
            });
        });
    }

    /// An answer reaches the customer.
    fn learn(&mut self, request: Request, placed: Placed) {
        self.people.waiting.remove(&request);
        let key = request.0;
        match placed {
            Placed::Order(order) => {
                self.tell(|| format!("a customer is told of {}", short(order)));
                let before = self.people.told.insert(key, order);
                assert!(before.is_none_or(|before| before == order), "one key, and two orders are told of");
            }
            Placed::OutOfStock => drop(self.people.refused.insert(key)),
        }
    }

    fn ask(&mut self, order: Uuid, event: Trigger) {
        let Some(replica) = self.replica_of(Service::Orders) else { return };
        self.on(replica, Duration::ZERO, move |world| world.take_on(replica, order, event));
    }

    fn wants_back(&mut self, order: Uuid, key: Uuid, amount: Option<i64>) {
        let payment = self.orders.keys.get(&order).map(|order| self.orders.rows[order].order.payment_id);
        let Some((replica, payment)) = self.replica_of(Service::Payments).zip(payment) else { return };
        let amount = amount.map(eur);
        self.on(replica, Duration::ZERO, move |world| world.refund(replica, key, payment, amount));
    }
}
