//! Payment-service: the real decisions, on a store and a worker with the guarantees of the real ones. A write
//! needs the version that was read. Work is leased; after the lease any replica may take it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use order_service::checkout::Command;
use payment_service::config::Timing;
use payment_service::domain::{
    Account, Change, Intent, Money, NetworkResponse, Payment, PaymentRecord, Purchase, Reaction, Refund,
    RefundStatus,
};
use payment_service::store::Job;
use time::OffsetDateTime;
use uuid::Uuid;

use super::messages::{Body, Message, Received};
use super::world::{Call, World, name, short};

#[derive(Default, Clone)]
pub(crate) struct Payments {
    pub(crate) rows: BTreeMap<Uuid, Row>,
    pub(crate) refunds: Vec<Refund>,
    /// The two entries of each transfer, by payment and cause.
    pub(crate) ledger: BTreeMap<(Uuid, String), [(Account, i64); 2]>,
    /// The idempotency keys of refunds.
    keys: BTreeSet<Uuid>,
    inbox: BTreeSet<Uuid>,
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) payment: Payment,
    /// When any replica may take the work. None if there is none.
    pub(crate) due_at: Option<OffsetDateTime>,
}

/// Recorded in the transaction of a change, so that a duplicate has no effect.
#[derive(Debug, Clone, Copy)]
enum Token {
    Message(Uuid),
    /// An idempotency key.
    Key(Uuid),
}

impl Payments {
    fn knows(&self, token: Token) -> bool {
        match token {
            Token::Message(id) => self.inbox.contains(&id),
            Token::Key(key) => self.keys.contains(&key),
        }
    }

    fn version(&self, id: Uuid) -> Option<i64> {
        self.rows.get(&id).map(|row| row.payment.version)
    }

    /// The oldest pending refund of `payment`, if refunding is its intent.
    fn next_refund(&self, payment: &Payment) -> Option<Refund> {
        let is_next =
            |refund: &&Refund| refund.payment_id == payment.id && refund.status == RefundStatus::Pending;
        let wanted = payment.state.intent == Some(Intent::Refund);
        self.refunds.iter().find(is_next).filter(|_| wanted).cloned()
    }
}

impl World {
    /// Handles a command of order-service.
    pub(crate) fn apply_command(
        &mut self,
        replica: usize,
        message: &Message,
        purchase: Purchase,
        command: Command,
        then: impl FnOnce(&mut Self, Option<Received>) + 'static,
    ) {
        let (now, id) = (self.now, purchase.id);
        let payment = self.payments.rows.get(&id).map(|row| row.payment.clone());
        let reaction = match (command, payment) {
            (Command::Authorize(token), None) => {
                Ok(created_payment(Payment::authorize(purchase, token.into(), now)))
            }
            (Command::Authorize(_), Some(payment)) => Ok(Reaction::Unchanged(payment.settled_outcome())),
            (Command::Void, None) => Ok(Reaction::Changed(Box::new(Payment::tombstone(purchase, now)))),
            (Command::Void, Some(payment)) => payment.void(now).map_err(drop),
            (Command::Capture, Some(payment)) => payment.capture(now).map_err(drop),
            (Command::Refund, Some(payment)) => payment.refund_rest("a test", now).map_err(drop),
            (Command::Capture | Command::Refund, None) => Err(()),
        };
        let (version, token) = (self.payments.version(id), Token::Message(message.id));
        let order = message.order;
        let commit = move |world: &mut Self| match reaction {
            // The first delivery was answered.
            _ if world.payments.knows(token) => Some(Received::Done),
            _ if world.payments.version(id) != version => None,
            Err(()) => Some(Received::Rejected),
            Ok(reaction) => {
                world.payments.note(token);
                match reaction {
                    Reaction::Unchanged(Some(notice)) => world.post(replica, order, Body::Notice(notice)),
                    Reaction::Unchanged(None) => {}
                    Reaction::Changed(change) => world.store_and_lease(replica, *change),
                }
                Some(Received::Done)
            }
        };
        self.write_message(replica, commit, then);
    }

    /// Handles an admin's `POST /api/payments/{id}/refunds`.
    pub(crate) fn refund(&mut self, replica: usize, key: Uuid, payment: Uuid, amount: Option<Money>) {
        let Some(Row { payment, .. }) = self.payments.rows.get(&payment).cloned() else { return };
        let (id, version, token) = (payment.id, payment.version, Token::Key(key));
        let Ok((change, _)) = payment.refund(amount, "a gift", self.now) else { return };
        let commit = move |world: &mut Self| {
            let is_fresh = !world.payments.knows(token) && world.payments.version(id) == Some(version);
            is_fresh.then(|| {
                world.log(|| format!("{} gets a request to refund {amount:?}", name(replica)));
                world.payments.note(token);
                world.store_and_lease(replica, change);
            })
        };
        self.write(replica, commit, |_, _: Option<()>| {});
    }

    /// Leases due work: retries, and the work of crashed replicas.
    pub(crate) fn poll_work(&mut self, replica: usize) {
        let now = self.now;
        let leased_until = now + timing().lease;
        let due = self.payments.rows.values_mut().filter(|row| row.due_at.is_some_and(|at| at <= now));
        let mut claimed = Vec::new();
        for row in due {
            let version = row.payment.version + 1;
            row.payment = Payment::from_record(PaymentRecord { version, ..(*row.payment).clone() });
            row.due_at = Some(leased_until);
            claimed.push(row.payment.clone());
        }
        for payment in claimed {
            let refund = self.payments.next_refund(&payment);
            let job = Job { payment, refund, traceparent: None, leased_until };
            self.on(replica, Duration::ZERO, move |world| world.carry_out(replica, job));
        }
    }

    /// Writes a change, and leases its work to the writing replica.
    fn store_and_lease(&mut self, replica: usize, change: Change) {
        let leased_until = self.now + timing().lease;
        let payment = change.payment.clone();
        let due = payment.next_request().map(|_| leased_until);
        self.store_change(replica, change, due);
        if due.is_some() {
            let refund = self.payments.next_refund(&payment);
            let job = Job { payment, refund, traceparent: None, leased_until };
            self.on_commit(move |world| world.carry_out(replica, job));
        }
    }

    /// Sends the request of a job to the card network, unless the lease has expired.
    fn carry_out(&mut self, replica: usize, job: Job) {
        if self.now >= job.leased_until {
            return;
        }
        self.check_request(&job.payment);
        let call = self.call(replica);
        let unanswered = job.clone();
        self.answer(call, timing().request_timeout, move |world| {
            world.record(replica, unanswered, NetworkResponse::Missing)
        });
        if self.network.is_down {
            return self.network_responds(call, job, NetworkResponse::Failed, Duration::ZERO);
        }
        self.send_over_network(move |world, answers| {
            let response = world.network.respond(&job);
            world.log(|| {
                let answer = response.as_ref().map(|(answer, _)| format!("{answer:?}")).unwrap_or_default();
                let answer = answer.split('(').next().unwrap_or_default();
                format!(
                    "the card network on {}: {:?}: {answer}",
                    short(job.payment.order_id),
                    job.payment.next_request()
                )
            });
            world.check();
            if let Some((answer, delay)) = response.filter(|_| answers) {
                world.network_responds(call, job.clone(), answer, delay);
            }
        });
    }

    fn network_responds(&mut self, call: Call, job: Job, answer: NetworkResponse, delay: Duration) {
        let delay = delay + self.random.within(Duration::from_millis(10));
        self.answer(call, delay, move |world| world.record(call.replica, job, answer));
    }

    /// Writes the card network's response, if the payment's version is unchanged.
    fn record(&mut self, replica: usize, job: Job, answer: NetworkResponse) {
        let (now, timeouts) = (self.now, timing().timeouts);
        let (id, version) = (job.payment.id, job.payment.version);
        let applied = job.payment.clone().apply_response(answer.clone(), &timeouts, now);
        let contradicts = applied.is_err();
        let again = |payment: Box<Payment>| payment.apply_response(NetworkResponse::Failed, &timeouts, now);
        let change = applied.or_else(again).unwrap();
        let attempts = u32::try_from(change.payment.attempts).unwrap();
        let pause = if attempts == 0 { Duration::ZERO } else { timing().backoff.ceiling(attempts) };
        let pause = self.random.within(pause + Duration::from_micros(1));
        let commit = move |world: &mut Self| {
            if world.payments.version(id) != Some(version) {
                return Some(());
            }
            assert!(!contradicts, "{answer:?} contradicts {:?}", job.payment);
            let due = change.payment.next_request().map(|_| world.now + pause);
            world.store_change(replica, change, due);
            if due.is_some() {
                world.on_commit(move |world| {
                    world.on(replica, pause, move |world| world.poll_work(replica));
                });
            }
            Some(())
        };
        self.write(replica, commit, |_, _| {});
    }

    /// Writes a change: the payment, its refund, the ledger entries and the message to order-service.
    fn store_change(&mut self, replica: usize, change: Change, due_at: Option<OffsetDateTime>) {
        let Change { payment, refund, transfer, notice } = change;
        self.log(|| {
            let state = payment.state;
            format!(
                "{}: {}'s payment is {:?}, {:?}",
                name(replica),
                short(payment.order_id),
                state.status,
                state.intent
            )
        });
        self.check_payment(&payment);
        if let Some(refund) = refund {
            match self.payments.refunds.iter_mut().find(|known| known.id == refund.id) {
                Some(known) => known.status = refund.status,
                None => self.payments.refunds.push(refund),
            }
        }
        if let Some(transfer) = transfer {
            let key = (payment.id, transfer.cause.to_string());
            let before = self.payments.ledger.insert(key, transfer.entries());
            assert_eq!(before, None, "{:?} moves money twice", transfer.cause);
        }
        if let Some(notice) = notice {
            self.post(replica, payment.order_id, Body::Notice(notice));
        }
        self.payments.rows.insert(payment.id, Row { payment, due_at });
        self.check();
    }
}

impl Payments {
    fn note(&mut self, token: Token) {
        let is_new = match token {
            Token::Message(id) => self.inbox.insert(id),
            Token::Key(key) => self.keys.insert(key),
        };
        assert!(is_new, "a message or a request has two effects");
    }
}

pub(crate) fn eur(amount: i64) -> Money {
    Money::new(amount, "EUR".try_into().unwrap()).unwrap()
}

fn created_payment(payment: Payment) -> Reaction {
    Reaction::Changed(Box::new(Change { payment, refund: None, transfer: None, notice: None }))
}

fn timing() -> Timing {
    Timing::default()
}
