//! Messages between the two services, by the rules of `shared::messages`: an outbox that is written with
//! the change, relays that claim for a while and send at least once, an inbox that notices what it has.

use std::time::Duration;

use order_service::checkout::Command;
use payment_service::domain::{Notice, Purchase};
use time::OffsetDateTime;
use uuid::Uuid;

use super::world::{Call, Service, World};

/// How long a claim holds; as in `shared::messages::outbox`.
const LEASE: Duration = Duration::from_secs(5);
/// How long a sender waits for an answer; as in `shared::client`.
const PATIENCE: Duration = Duration::from_secs(5);

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Letter {
    pub(crate) id: Uuid,
    pub(crate) order: Uuid,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// To payment-service.
    Command(Purchase, Command),
    /// To order-service.
    Notice(Notice),
}

/// What one service has to send, oldest first.
#[derive(Default)]
pub(crate) struct Outbox {
    unsent: Vec<Unsent>,
    /// All that was ever written.
    pub(crate) written: Vec<Letter>,
}

struct Unsent {
    letter: Letter,
    /// Nobody else sends it until then.
    next_at: OffsetDateTime,
}

/// What became of a letter where it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Its effect is written, now or before.
    Done,
    /// It cannot be handled, ever.
    Rejected,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Claims the oldest unsent letter of each order, if nobody holds it; or any, in disorder.
    fn claim(&mut self, now: OffsetDateTime, disorder: bool) -> Vec<Letter> {
        let mut claimed = Vec::new();
        for index in 0..self.unsent.len() {
            let (earlier, rest) = self.unsent.split_at_mut(index);
            let this = &mut rest[0];
            let is_head = disorder || earlier.iter().all(|one| one.letter.order != this.letter.order);
            if is_head && this.next_at <= now {
                this.next_at = now + LEASE;
                claimed.push(this.letter.clone());
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
    /// Writes a letter in a transaction of `replica`, which sends it after the commit, unless earlier
    /// ones of its order are still on their way.
    pub(crate) fn post(&mut self, replica: usize, order: Uuid, body: Body) {
        let letter = Letter { id: self.chance.id(), order, body };
        self.tell(|| format!("  writes {}", letter.body));
        let (now, disorder) = (self.now, self.weather.disorder);
        let outbox = self.outbox(Service::of(replica));
        outbox.written.push(letter.clone());
        let is_head = disorder || outbox.unsent.iter().all(|earlier| earlier.letter.order != order);
        let next_at = if is_head { now + LEASE } else { now };
        outbox.unsent.push(Unsent { letter: letter.clone(), next_at });
        if is_head {
            self.on_commit(move |world| world.send(replica, letter));
        }
    }

    /// Sends what nobody else is sending.
    pub(crate) fn send_unsent(&mut self, replica: usize) {
        let (now, disorder) = (self.now, self.weather.disorder);
        for letter in self.outbox(Service::of(replica)).claim(now, disorder) {
            self.on(replica, Duration::ZERO, move |world| world.send(replica, letter));
        }
    }

    /// Writes a letter that was written long ago once more, when no inbox remembers it.
    pub(crate) fn repeat(&mut self, replica: usize, letter: &Letter) {
        let (order, body) = (letter.order, letter.body.clone());
        let commit = move |world: &mut Self| {
            world.post(replica, order, body);
            Some(())
        };
        self.write(replica, commit, |_, _| {});
    }

    fn send(&mut self, replica: usize, letter: Letter) {
        let call = self.call(replica);
        let unanswered = letter.clone();
        self.answer(call, PATIENCE, move |world| world.settle(replica, &unanswered, None));
        self.carry(move |world, answers| world.arrive(letter.clone(), Some(call).filter(|_| answers)));
    }

    fn arrive(&mut self, letter: Letter, from: Option<Call>) {
        let Some(replica) = self.replica_of(letter.body.to()) else { return self.reply(from, letter, None) };
        self.on(replica, Duration::ZERO, move |world| {
            let answered = letter.clone();
            let then = move |world: &mut Self, received| world.reply(from, answered, received);
            match letter.body.clone() {
                Body::Command(purchase, command) => world.obey(replica, &letter, purchase, command, then),
                Body::Notice(notice) => world.hear(replica, &letter, notice, then),
            }
        });
    }

    fn reply(&mut self, from: Option<Call>, letter: Letter, received: Option<Received>) {
        assert_ne!(received, Some(Received::Rejected), "{letter:?} becomes a dead letter");
        if let Some(call) = from {
            let delay = self.chance.within(Duration::from_millis(10));
            self.answer(call, delay, move |world| world.settle(call.replica, &letter, received));
        }
    }

    /// Marks what came of sending, and sends what may be sent now.
    fn settle(&mut self, replica: usize, letter: &Letter, received: Option<Received>) {
        let (now, pause) = (self.now, self.chance.within(Duration::from_secs(1)));
        let unsent = &mut self.outbox(Service::of(replica)).unsent;
        match received {
            Some(_) => unsent.retain(|unsent| unsent.letter.id != letter.id),
            None => {
                let mine = unsent.iter_mut().find(|unsent| unsent.letter.id == letter.id);
                mine.into_iter().for_each(|unsent| unsent.next_at = now + pause);
            }
        }
        self.send_unsent(replica);
    }

    fn outbox(&mut self, service: Service) -> &mut Outbox {
        self.outboxes.entry(service).or_default()
    }
}
