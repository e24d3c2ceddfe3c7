//! Messages between the two services, by the rules of `shared::messages`: the outbox is written with the
//! change, relays hold claims with an expiry and send at least once, the inbox recognises duplicates.

use std::time::Duration;

use order_service::checkout::Command;
use payment_service::domain::{Notice, Purchase};
use time::OffsetDateTime;
use uuid::Uuid;

use super::world::{Call, Service, World};

/// The duration of a claim, as in `shared::messages::outbox`.
const LEASE: Duration = Duration::from_secs(5);
/// A sender's time-out, as in `shared::client`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time between the first read of a group of messages and its commit.
const GROUP_TIME: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: Uuid,
    pub(crate) order: Uuid,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// A command to payment-service.
    Command(Purchase, Command),
    /// An event for order-service.
    Notice(Notice),
}

#[derive(Default, Clone)]
pub(crate) struct Outbox {
    /// Oldest first.
    unsent: Vec<Unsent>,
    /// All messages ever written.
    pub(crate) written: Vec<Message>,
}

#[derive(Clone)]
struct Unsent {
    message: Message,
    /// Until then no other relay sends it.
    next_at: OffsetDateTime,
}

/// The receiver's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// The effect is written, now or by an earlier delivery.
    Done,
    /// It can never be handled.
    Rejected,
}

/// A message at its receiver, and the call that waits for the answer.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    message: Message,
    from: Option<Call>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Claims the oldest unsent message of each order, unless another relay holds it. If `unordered`, claims
    /// all unsent messages that no relay holds.
    fn claim(&mut self, now: OffsetDateTime, unordered: bool) -> Vec<Message> {
        let mut claimed = Vec::new();
        for index in 0..self.unsent.len() {
            let (earlier, rest) = self.unsent.split_at_mut(index);
            let this = &mut rest[0];
            let is_head = unordered || earlier.iter().all(|one| one.message.order != this.message.order);
            if is_head && this.next_at <= now {
                this.next_at = now + LEASE;
                claimed.push(this.message.clone());
            }
        }
        claimed
    }
}

impl std::fmt::Display for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command(_, command) => write!(f, "{command:?}"),
            Self::Notice(notice) => write!(f, "{notice:?}"),
        }
    }
}

impl Body {
    fn to(&self) -> Service {
        match self {
            Self::Command(..) => Service::Payments,
            Self::Notice(_) => Service::Orders,
        }
    }
}

impl World {
    /// Writes a message in a transaction of `replica`. The replica sends it after the commit, unless an
    /// earlier message of the order is unsent.
    pub(crate) fn post(&mut self, replica: usize, order: Uuid, body: Body) {
        let message = Message { id: self.random.id(), order, body };
        self.log(|| format!("  writes {}", message.body));
        let (now, unordered) = (self.now, self.faults.unordered);
        let outbox = self.outbox(Service::of(replica));
        outbox.written.push(message.clone());
        let is_head = unordered || outbox.unsent.iter().all(|earlier| earlier.message.order != order);
        let next_at = if is_head { now + LEASE } else { now };
        outbox.unsent.push(Unsent { message: message.clone(), next_at });
        if is_head {
            self.on_commit(move |world| world.send(replica, message));
        }
    }

    /// Claims messages and sends them.
    pub(crate) fn send_unsent(&mut self, replica: usize) {
        let (now, unordered) = (self.now, self.faults.unordered);
        for message in self.outbox(Service::of(replica)).claim(now, unordered) {
            self.on(replica, Duration::ZERO, move |world| world.send(replica, message));
        }
    }

    /// Writes an old message again with a new id, so that the inbox does not recognise it.
    pub(crate) fn repeat(&mut self, replica: usize, message: &Message) {
        let (order, body) = (message.order, message.body.clone());
        let commit = move |world: &mut Self| {
            world.post(replica, order, body);
            Some(())
        };
        self.write(replica, commit, |_, _| {});
    }

    fn send(&mut self, replica: usize, message: Message) {
        let call = self.call(replica);
        let unanswered = message.clone();
        self.answer(call, TIMEOUT, move |world| world.settle(replica, &unanswered, None));
        self.send_over_network(move |world, answers| {
            world.arrive(message.clone(), Some(call).filter(|_| answers))
        });
    }

    fn arrive(&mut self, message: Message, from: Option<Call>) {
        let Some(replica) = self.replica_of(message.body.to()) else {
            return self.reply(from, message, None);
        };
        let arrived = Arrived { message, from };
        self.on(replica, Duration::ZERO, move |world| {
            if world.groups.is_none() {
                return world.handle_alone(replica, arrived);
            }
            world.replicas[replica].inbox.push(arrived);
            if !world.replicas[replica].handles_group {
                world.handle_next_group(replica);
            }
        });
    }

    fn handle_alone(&mut self, replica: usize, Arrived { message, from }: Arrived) {
        let answered = message.clone();
        self.handle(replica, &message, move |world, received| world.reply(from, answered, received));
    }

    fn handle(
        &mut self,
        replica: usize,
        message: &Message,
        then: impl FnOnce(&mut Self, Option<Received>) + 'static,
    ) {
        match message.body.clone() {
            Body::Command(purchase, command) => self.apply_command(replica, message, purchase, command, then),
            Body::Notice(notice) => self.apply_event(replica, message, notice, then),
        }
    }

    /// Handles the messages that have arrived, as in `shared::messages::inbox::batches`: all in one write, or each
    /// alone if that fails.
    fn handle_next_group(&mut self, replica: usize) {
        let group = std::mem::take(&mut self.replicas[replica].inbox);
        self.replicas[replica].handles_group = !group.is_empty();
        if group.is_empty() {
            return;
        }
        let time = self.random.within(GROUP_TIME);
        self.on(replica, time, move |world| {
            if group.len() == 1 {
                group.into_iter().for_each(|arrived| world.handle_alone(replica, arrived));
                return world.handle_next_group(replica);
            }
            let messages = group.clone();
            let read = |world: &mut Self| {
                messages.iter().for_each(|arrived| world.handle(replica, &arrived.message, |_, _| {}));
            };
            world.write_group(replica, read, move |world, received| {
                let groups = world.groups.get_or_insert_default();
                match received {
                    Some(received) => {
                        assert_eq!(received.len(), group.len(), "each message has an answer");
                        groups.written += 1;
                        for (Arrived { message, from }, received) in group.into_iter().zip(received) {
                            world.reply(from, message, Some(received));
                        }
                    }
                    None => {
                        groups.failed += 1;
                        group.into_iter().for_each(|arrived| world.handle_alone(replica, arrived));
                    }
                }
                world.handle_next_group(replica);
            });
        });
    }

    fn reply(&mut self, from: Option<Call>, message: Message, received: Option<Received>) {
        assert_ne!(received, Some(Received::Rejected), "{message:?} becomes a dead letter");
        if let Some(call) = from {
            let delay = self.random.within(Duration::from_millis(10));
            self.answer(call, delay, move |world| world.settle(call.replica, &message, received));
        }
    }

    /// Marks the result of a send, and sends the next messages.
    fn settle(&mut self, replica: usize, message: &Message, received: Option<Received>) {
        let (now, pause) = (self.now, self.random.within(Duration::from_secs(1)));
        let unsent = &mut self.outbox(Service::of(replica)).unsent;
        match received {
            Some(_) => unsent.retain(|unsent| unsent.message.id != message.id),
            None => {
                let mine = unsent.iter_mut().find(|unsent| unsent.message.id == message.id);
                mine.into_iter().for_each(|unsent| unsent.next_at = now + pause);
            }
        }
        self.send_unsent(replica);
    }

    fn outbox(&mut self, service: Service) -> &mut Outbox {
        self.outboxes.entry(service).or_default()
    }
}
