//! Customers and admins, who act at random times, and outages. Also the answers that customers have got.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use order_service::checkout::Trigger;
use uuid::Uuid;

use super::orders::NewOrder;
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

#[derive(Default)]
pub(crate) struct People {
    /// The orders to place, by idempotency key.
    new_orders: BTreeMap<Uuid, NewOrder>,
    /// The order in the answer to a customer, by idempotency key.
    pub(crate) acknowledged: BTreeMap<Uuid, Uuid>,
    /// The idempotency keys of requests that were answered with "out of stock".
    pub(crate) refused: BTreeSet<Uuid>,
    pub(crate) unanswered: BTreeSet<Request>,
}

/// An idempotency key, and the number of the request among those with this key.
pub(crate) type Request = (Uuid, u64);

/// The answer to `POST /api/orders`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Placed {
    /// Placed now, or by an earlier request with the same key.
    Order(Uuid),
    OutOfStock,
}

impl World {
    /// Plans the requests of customers, who compete for little stock and cancel, and of admins, who ship,
    /// refund, resume and compensate, in any state of the order.
    pub(crate) fn plan_requests(&mut self, time: Duration) {
        // At the same time, or one after the other.
        let placing = if self.random.per_mille(500) { time } else { Duration::from_secs(2) };
        for _ in 0..=self.random.below(6) {
            let order = self.random.id();
            self.start_customer(order, placing);
            let events =
                [Trigger::Cancel, Trigger::Ship, Trigger::Deliver, Trigger::Resume, Trigger::Compensate];
            for event in events {
                for _ in 0..self.random.below(3) {
                    let (at, event) = (self.random.within(2 * time), event.clone());
                    self.schedule(at, move |world| world.request_change(order, event));
                }
            }
            for _ in 0..self.random.below(3) {
                let (at, key) = (self.random.within(2 * time), self.random.id());
                let amount = self.random.pick(&[None, Some(1), Some(350), Some(10_000)]);
                let is_repeated = self.random.per_mille(300);
                self.schedule(at, move |world| world.request_refund(order, key, amount));
                if is_repeated {
                    self.schedule(at, move |world| world.request_refund(order, key, amount));
                }
            }
        }
        if self.random.per_mille(300) {
            let (at, product) = (self.random.within(time), self.random.below(3) as usize);
            self.schedule(at, move |world| world.adjust(product, 2));
        }
    }

    /// Plans outages of both replicas of a service, or of the card network.
    pub(crate) fn plan_outages(&mut self, time: Duration) {
        for replicas in [[0, 1], [2, 3]] {
            if self.random.per_mille(100) {
                let at = self.random.within(time);
                for replica in replicas {
                    let long = self.random.within(Duration::from_secs(90));
                    self.schedule(at, move |world| world.crash(replica, long));
                }
            }
        }
        if self.random.per_mille(300) {
            let (from, to) = (self.random.within(time), self.random.within(time));
            self.schedule(from.min(to), |world| world.network.is_down = true);
            self.schedule(from.max(to), |world| world.network.is_down = false);
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        for order in self.orders.keys.keys().copied().collect::<Vec<_>>() {
            self.request_change(order, Trigger::Cancel);
        }
    }

    /// Sends old messages again, after the inbox has forgotten them.
    pub(crate) fn repeat_messages(&mut self) {
        for service in [Service::Orders, Service::Payments] {
            for message in self.outboxes[&service].written.clone() {
                let Some(replica) = self.replica_of(service).filter(|_| self.random.per_mille(500)) else {
                    continue;
                };
                let at = self.random.within(Duration::from_secs(30));
                self.schedule(at, move |world| world.repeat(replica, &message));
            }
        }
    }

    /// Repeats the request of every customer who has got an answer with an order.
    pub(crate) fn repeat_requests(&mut self) {
        for key in self.people.acknowledged.keys().copied().collect::<Vec<_>>() {
            self.request((key, u64::MAX));
        }
    }

    /// Plans the order of a customer, perhaps with several simultaneous requests.
    fn start_customer(&mut self, key: Uuid, time: Duration) {
        let first = self.random.below(3) as usize;
        let products = [first, (first + 1) % 3];
        let count = 1 + self.random.below(2) as usize;
        let lines = products[..count].iter().map(|product| (*product, 1 + self.random.below(2) as i64));
        let new_order = NewOrder { key, lines: lines.collect(), token: self.random.pick(&TOKENS) };
        self.people.new_orders.insert(key, new_order);
        let at = self.random.within(time);
        for copy in 0..=self.random.below(3) {
            let later = self.random.within(Duration::from_millis(200));
            self.schedule(at + later, move |world| world.request((key, copy)));
        }
    }

    /// Sends a customer's request, and repeats it with the same key until there is an answer.
    fn request(&mut self, request: Request) {
        self.people.unanswered.insert(request);
        let timeout = Duration::from_secs(1) + self.random.within(Duration::from_secs(4));
        self.schedule(timeout, move |world| {
            if world.people.unanswered.contains(&request) {
                world.request(request);
            }
        });
        self.send_over_network(move |world, answers| {
            let Some(replica) = world.replica_of(Service::Orders) else { return };
            let new_order = world.people.new_orders[&request.0].clone();
            world.on(replica, Duration::ZERO, move |world| {
                world.place(replica, new_order, move |world, placed| {
                    let Some(placed) = placed.filter(|_| answers) else { return };
                    let delay = world.random.within(Duration::from_millis(10));
                    world.schedule(delay, move |world| world.receive_answer(request, placed));
                });
            });
        });
    }

    /// Records an answer to a customer.
    fn receive_answer(&mut self, request: Request, placed: Placed) {
        self.people.unanswered.remove(&request);
        let key = request.0;
        match placed {
            Placed::Order(order) => {
                self.log(|| format!("a customer gets an answer with {}", short(order)));
                let before = self.people.acknowledged.insert(key, order);
                assert!(
                    before.is_none_or(|before| before == order),
                    "two answers to one key have different orders"
                );
            }
            Placed::OutOfStock => drop(self.people.refused.insert(key)),
        }
    }

    fn request_change(&mut self, order: Uuid, event: Trigger) {
        let Some(replica) = self.replica_of(Service::Orders) else { return };
        self.on(replica, Duration::ZERO, move |world| world.apply_request(replica, order, event));
    }

    fn request_refund(&mut self, order: Uuid, key: Uuid, amount: Option<i64>) {
        let payment = self.orders.keys.get(&order).map(|order| self.orders.rows[order].order.payment_id);
        let Some((replica, payment)) = self.replica_of(Service::Payments).zip(payment) else { return };
        let amount = amount.map(eur);
        self.on(replica, Duration::ZERO, move |world| world.refund(replica, key, payment, amount));
    }
}
