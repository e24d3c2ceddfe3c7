//! Order-service: the real decisions on a store in memory with the guarantees of the real one.
//!
//! One write changes an order, its saga, its goods and its messages, and only if the order's version is
//! unchanged since the read. Reads lock nothing here, so the version alone protects the order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use order_service::checkout::{self, Decision, Effect, Saga, Step, Transition, Trigger};
use order_service::domain::{Line, Money, Order, PaymentToken, Reason, Status, Stock, Terms};
use payment_service::domain::{Notice, Purchase};
use uuid::Uuid;

use super::messages::{Body, Message, Received};
use super::payments;
use super::people::Placed;
use super::random::Random;
use super::world::{World, name, short};

#[derive(Clone)]
pub(crate) struct Orders {
    pub(crate) rows: BTreeMap<Uuid, Row>,
    pub(crate) stock: Vec<Stock>,
    prices: Vec<Money>,
    /// The order that was placed with each idempotency key.
    pub(crate) keys: BTreeMap<Uuid, Uuid>,
    inbox: BTreeSet<Uuid>,
    /// Every status that an order reached.
    pub(crate) reached: Vec<&'static str>,
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) order: Order,
    pub(crate) saga: Saga,
    /// The idempotency key that it was placed with.
    pub(crate) key: Uuid,
}

/// The request of a customer.
#[derive(Debug, Clone)]
pub(crate) struct NewOrder {
    pub(crate) key: Uuid,
    /// Product and quantity.
    pub(crate) lines: Vec<(usize, i64)>,
    pub(crate) token: &'static str,
}

impl Orders {
    /// Three products with little stock; one is free.
    pub(crate) fn random(random: &mut Random) -> Self {
        let prices = [0, 350, 9_999].map(|cents| Money::cents(cents).unwrap());
        let stock = prices.map(|_| {
            let initial = 1 + random.below(4) as i64;
            Stock { product_id: random.id(), on_hand: initial, reserved: 0, sold: 0, initial, adjusted: 0 }
        });
        Self {
            rows: BTreeMap::new(),
            stock: stock.into(),
            prices: prices.into(),
            keys: BTreeMap::new(),
            inbox: BTreeSet::new(),
            reached: Vec::new(),
        }
    }

    /// The line for the product at this index.
    fn line(&self, (product, quantity): (usize, i64)) -> Line {
        Line {
            product_id: self.stock[product].product_id,
            sku: product.to_string(),
            name: "a product".to_owned(),
            quantity: quantity.try_into().unwrap(),
            unit_price: self.prices[product],
        }
    }

    /// Moves the goods of all lines, if there are enough.
    fn shift(&mut self, lines: &[Line], effect: &Effect) -> Result<(), OutOfStock> {
        for line in lines {
            let wanted = line.quantity.get();
            let stock = self.stock.iter_mut().find(|stock| stock.product_id == line.product_id).unwrap();
            let (from, to) = match effect {
                Effect::ReserveStock => (&mut stock.on_hand, &mut stock.reserved),
                Effect::CommitStock => (&mut stock.reserved, &mut stock.sold),
                Effect::ReleaseStock => (&mut stock.reserved, &mut stock.on_hand),
                Effect::ReturnStock => (&mut stock.sold, &mut stock.on_hand),
                Effect::Send(_) => return Ok(()),
            };
            if *from < wanted {
                return Err(OutOfStock);
            }
            *from -= wanted;
            *to += wanted;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OutOfStock;

impl World {
    /// Handles a customer's `POST /api/orders`.
    pub(crate) fn place(
        &mut self,
        replica: usize,
        new_order: NewOrder,
        then: impl FnOnce(&mut Self, Option<Placed>) + 'static,
    ) {
        let lines: Vec<_> = new_order.lines.iter().map(|line| self.orders.line(*line)).collect();
        let total = lines.iter().try_fold(Money::ZERO, |sum, line| sum.plus(line.total()?)).unwrap();
        let (now, key) = (self.now, new_order.key);
        let (id, payment_id) = (self.random.id(), self.random.id());
        let terms = Terms { id, customer_id: key, lines, total, payment_id, created_at: now };
        let order = Order::restored(terms, Status::AwaitingPayment, 1, now);
        let token = PaymentToken::try_from(new_order.token.to_owned()).unwrap();
        let begun = checkout::begin(order, token, now);
        self.write(replica, move |world| Some(world.commit_place(replica, key, begun)), then);
    }

    fn commit_place(&mut self, replica: usize, key: Uuid, begun: Transition) -> Placed {
        if let Some(before) = self.orders.keys.get(&key) {
            return Placed::Order(*before);
        }
        let before = self.orders.stock.clone();
        let reserves =
            begun.effects.iter().try_for_each(|effect| self.orders.shift(&begun.order.lines, effect));
        if reserves.is_err() {
            self.orders.stock = before;
            return Placed::OutOfStock;
        }
        self.log(|| {
            format!("{}: {} is placed, for {:?}", name(replica), short(begun.order.id), begun.order.total)
        });
        let placed = Placed::Order(begun.order.id);
        self.orders.keys.insert(key, begun.order.id);
        self.orders.reached.push(begun.order.status().as_str());
        self.send_commands(replica, &begun);
        self.orders.rows.insert(begun.order.id, Row { order: begun.order, saga: begun.saga, key });
        self.check();
        placed
    }

    /// Handles a request of a customer or an admin, if the order exists.
    pub(crate) fn apply_request(&mut self, replica: usize, key: Uuid, event: Trigger) {
        if let Some(order) = self.orders.keys.get(&key) {
            self.advance(replica, *order, event, None, |_, _| {});
        }
    }

    /// Handles a message from payment-service.
    pub(crate) fn apply_event(
        &mut self,
        replica: usize,
        message: &Message,
        notice: Notice,
        then: impl FnOnce(&mut Self, Option<Received>) + 'static,
    ) {
        self.advance(replica, message.order, trigger_of(notice), Some(message.id), then);
    }

    /// Handles expired timers. Another replica may find the same ones.
    pub(crate) fn poll_timers(&mut self, replica: usize) {
        let now = self.now;
        let due = self.orders.rows.values().filter(|row| row.saga.wake_at.is_some_and(|at| at <= now));
        for order in due.map(|row| row.order.id).collect::<Vec<_>>() {
            let delay = self.random.within(Duration::from_millis(5));
            self.on(replica, delay, move |world| {
                world.advance(replica, order, Trigger::Timer, None, |_, outcome| {
                    assert_ne!(outcome, Some(Received::Rejected), "a timer is refused");
                });
            });
        }
    }

    fn advance(
        &mut self,
        replica: usize,
        order: Uuid,
        event: Trigger,
        message: Option<Uuid>,
        then: impl FnOnce(&mut Self, Option<Received>) + 'static,
    ) {
        let Row { order, saga, .. } = &self.orders.rows[&order];
        let version = order.version();
        let id = order.id;
        match checkout::handle(order, saga, &event, self.now) {
            Err(_) => self.on(replica, Duration::ZERO, |world| then(world, Some(Received::Rejected))),
            Ok(decision) => {
                let moved = match decision {
                    Decision::Apply(moved) => Some(*moved),
                    Decision::Ignore => None,
                };
                let commit = move |world: &mut Self| {
                    world.commit_advance(replica, (id, version), &event, message, moved)
                };
                self.write_message(replica, commit, then);
            }
        }
    }

    /// Writes the decision, if the order's version is unchanged.
    fn commit_advance(
        &mut self,
        replica: usize,
        (order, version): (Uuid, i64),
        event: &Trigger,
        message: Option<Uuid>,
        moved: Option<Transition>,
    ) -> Option<Received> {
        if message.is_some_and(|id| self.orders.inbox.contains(&id)) {
            return Some(Received::Done);
        }
        if self.orders.rows[&order].order.version() != version {
            return None;
        }
        assert!(message.is_none_or(|id| self.orders.inbox.insert(id)), "a message has two effects");
        let Some(moved) = moved else { return Some(Received::Done) };
        let status = moved.order.status();
        self.log(|| format!("{}: {} is {status:?} by {event:?}", name(replica), short(order)));
        self.check_change(event, &moved);
        for effect in &moved.effects {
            self.orders.shift(&moved.order.lines, effect).expect("the stock agrees with the order");
        }
        self.send_commands(replica, &moved);
        let row = self.orders.rows.get_mut(&order).unwrap();
        if row.order.status() != status {
            self.orders.reached.push(status.as_str());
        }
        (row.order, row.saga) = (moved.order, moved.saga);
        self.check();
        Some(Received::Done)
    }

    fn send_commands(&mut self, replica: usize, Transition { order, effects, .. }: &Transition) {
        for effect in effects {
            let Effect::Send(command) = effect else { continue };
            let amount = payments::eur(order.total.amount());
            let purchase =
                Purchase { id: order.payment_id, order_id: order.id, customer_id: order.customer_id, amount };
            self.post(replica, order.id, Body::Command(purchase, command.clone()));
        }
    }

    /// Handles an admin's stock adjustment.
    pub(crate) fn adjust(&mut self, product: usize, delta: i64) {
        let stock = &mut self.orders.stock[product];
        stock.on_hand += delta;
        stock.adjusted += delta;
        self.check();
    }
}

/// The trigger of a message, as in `order_service::messages`.
fn trigger_of(notice: Notice) -> Trigger {
    match notice {
        Notice::Authorized => Trigger::Authorized,
        Notice::Declined(code) => Trigger::Declined(Reason::named(&code).unwrap_or(Reason::CardDeclined)),
        Notice::Captured => Trigger::Captured,
        Notice::Voided => Trigger::Voided,
        Notice::Refunded => Trigger::Refunded,
        Notice::Stuck { operation, reason } => {
            Trigger::PaymentStuck { operation: Step::named(operation.as_str()), reason: reason.to_owned() }
        }
    }
}
