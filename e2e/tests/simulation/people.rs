//! What customers, admins and bad luck do, at random times.

use std::time::Duration;

use order_service::checkout::Event;
use uuid::Uuid;

use super::orders::Wish;
use super::payments::eur;
use super::world::{Service, World};

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

impl World {
    /// Customers who compete for little stock, and change their minds; admins who ship, refund, resume
    /// and compensate, whether that makes sense or not.
    pub(crate) fn invite_people(&mut self, time: Duration) {
        // Together, or one after the other.
        let placing = if self.chance.per_mille(500) { time } else { Duration::from_secs(2) };
        for _ in 0..=self.chance.below(6) {
            let order = self.chance.id();
            self.wants(order, placing);
            let events = [Event::Cancel, Event::Ship, Event::Deliver, Event::Resume, Event::Compensate];
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
            self.ask(order, Event::Cancel);
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

    /// A customer orders, and sends the same request again and again, not knowing whether it arrived.
    fn wants(&mut self, key: Uuid, time: Duration) {
        let first = self.chance.below(3) as usize;
        let products = [first, (first + 1) % 3];
        let count = 1 + self.chance.below(2) as usize;
        let lines = products[..count].iter().map(|product| (*product, 1 + self.chance.below(2) as i64));
        let wish = Wish { key, lines: lines.collect(), token: self.chance.pick(&TOKENS) };
        let at = self.chance.within(time);
        for _ in 0..=self.chance.below(3) {
            let (wish, again) = (wish.clone(), self.chance.within(Duration::from_millis(200)));
            self.outside(at + again, move |world| {
                let Some(replica) = world.replica_of(Service::Orders) else { return };
                world.on(replica, Duration::ZERO, move |world| world.place(replica, wish));
            });
        }
    }

    fn ask(&mut self, order: Uuid, event: Event) {
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
