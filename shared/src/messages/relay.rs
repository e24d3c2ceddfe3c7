//! The relay: claims events in the outbox, sends them with the transport, and marks them as sent.
//!
//! **Order.** Events with the same `subject` (the id of the aggregate) are sent one after the other; different
//! subjects in parallel. For this, the relay claims only the *head* of a subject, its oldest unsent event. If a
//! subject has no unsent event, [`Outbox::put`] inserts the new event and claims it for the relay of this process,
//! in one statement. This saves the transaction that would claim it. The column `next_at` is the time from which an
//! event may be claimed. A claim moves it to the end of the claim, so it also identifies the claim.
//!
//! **Several relays** (one per replica) share an outbox. A claim lasts [`LEASE`]. Claims of a dead relay
//! expire, and another relay claims the events.
//!
//! | result of a send | action |
//! |---|---|
//! | success | mark as sent |
//! | receiver or broker unavailable, or the receiver does not (yet) let this service send | retry within a second, without limit; after five such failures in a row, the circuit of the destination opens |
//! | failure at the receiver | retry with backoff; after ten failures a dead letter |
//! | rejected: the receiver will never accept it | a dead letter at once |
//!
//! **While the [circuit](circuit) of a destination is open**, the relay does not claim its events, except one
//! per second, which it sends as a probe. Any response of the receiver, even an error, closes the circuit. The
//! relay then sends the waiting events. Each probe uses another event. Otherwise one event that its receiver
//! never takes would keep the circuit open.
//!
//! Over HTTP, success means that the receiver has handled the event; with a broker, that the broker has
//! stored it. A dead letter does not block later events of its subject. When it is replayed it arrives after
//! them, so receivers must check their own state, and not rely on the order alone.

mod circuit; // a circuit breaker per destination
mod queue; // claimed events, until they are sent

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use self::queue::Queue;
use super::outbox::{LEASE, MAX_ATTEMPTS, Outbox, Outgoing, RETRY, UNAVAILABLE};
use super::{Nats, SendError, Transport, dead_letters};
use crate::db::{Db, DbError, Query, Tx, query};
use crate::stop::Stop;

/// How often the relay looks in the table for due events that [`Outbox::put`] did not hand to it: retries, events
/// that became heads later, and events whose relay has died.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long an event waits after it failed as a probe. Meanwhile, other events are used as probes.
const PROBE_PAUSE: Duration = Duration::from_millis(2500);

/// Sends the events of an outbox.
pub struct Relay {
    /// Unique. It stands in the column `claimed_by`.
    name: String,
    db: Db,
    transport: Rc<dyn Transport>,
    outbox: Outbox,
    /// The events that [`Outbox::put`] claimed for this relay. They arrive after their commit.
    claimed: UnboundedReceiver<Outgoing>,
}

struct Sending {
    outgoing: Outgoing,
    /// It finds out whether an unavailable destination is back.
    is_probe: bool,
}

/// A send that has succeeded or failed.
struct Finished {
    sending: Sending,
    result: Result<(), SendError>,
}

/// Which events to claim.
#[derive(Default)]
struct Wanted {
    /// How many heads at most, over all destinations that are not blocked.
    heads: usize,
    blocked: Vec<String>,
    /// One head of each of these.
    probes: Vec<String>,
}

impl Relay {
    /// An outbox, and the relay that it wakes after each commit.
    pub fn new(db: Db, transport: Rc<dyn Transport>) -> (Outbox, Self) {
        let name = Uuid::now_v7().to_string();
        let (sender, claimed) = unbounded_channel();
        let outbox = Outbox::new(name.clone(), sender);
        (outbox.clone(), Self { name, db, transport, outbox, claimed })
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The broker from which events are consumed; `None` if the transport pushes them to the receiver.
    pub(super) fn broker(&self) -> Option<Nats> {
        self.transport.broker()
    }

    /// Sends events until `stop`. Then it claims nothing more, and sends what is already claimed, unless its
    /// destination is unavailable.
    pub async fn run(mut self, stop: Stop) {
        let (results, mut finished_sends) = unbounded_channel();
        let mut queue = Queue::default();
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for sending in queue.take(self.db.now()) {
                self.send(sending, results.clone());
            }
            // The last transactions of this process may have left events that are not in the queue yet.
            if stop.is_requested() && queue.is_idle() && self.claimed.is_empty() {
                return;
            }
            let (mut finished, mut is_poll) = (Vec::new(), false);
            tokio::select! {
                Some(outgoing) = self.claimed.recv() => queue.push(outgoing),
                Some(first) = finished_sends.recv() => {
                    finished.push(first);
                    while let Ok(more) = finished_sends.try_recv() {
                        finished.push(more);
                    }
                }
                _ = poll.tick() => is_poll = true,
                () = stop.requested(), if !stop.is_requested() => {}
            }
            if is_poll {
                queue.allow_probes();
            }
            queue.finish(&finished);
            // A newly committed event is sent first: this turn of the loop does not query the database.
            if is_poll || !finished.is_empty() {
                let wanted = if stop.is_requested() { Wanted::default() } else { queue.wanted() };
                match self.record_and_claim(finished, wanted).await {
                    Ok(heads) => heads.into_iter().for_each(|head| queue.push(head)),
                    // No event is lost: the claims expire, and the events are sent again.
                    Err(error) => log::warn!(error:%; "the outbox cannot be read or updated"),
                }
            }
        }
    }

    fn send(&self, sending: Sending, results: UnboundedSender<Finished>) {
        let transport = self.transport.clone();
        actix_web::rt::spawn(async move {
            let result = transport.send(&sending.outgoing).await;
            // Cannot fail: the relay receives until the last send has ended.
            results.send(Finished { sending, result }).unwrap_or_default();
        });
    }

    /// Records the results of `finished` and claims what is `wanted`, in one transaction.
    async fn record_and_claim(
        &self,
        finished: Vec<Finished>,
        wanted: Wanted,
    ) -> Result<Vec<Outgoing>, DbError> {
        if finished.is_empty() && !self.is_any_due(&wanted).await? {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        for Finished { sending, result } in finished {
            self.record(&mut tx, &sending, result).await?;
        }
        let mut heads = Vec::new();
        if wanted.heads > 0 {
            heads = self.claim(&mut tx, Destinations::AllBut(&wanted.blocked), wanted.heads).await?;
        }
        for probe in &wanted.probes {
            heads.extend(self.claim(&mut tx, Destinations::Only(probe), 1).await?);
        }
        tx.commit().await?;
        Ok(heads)
    }

    /// Whether any wanted event is due. Usually none is; this read saves a write transaction at every poll.
    async fn is_any_due(&self, wanted: &Wanted) -> Result<bool, DbError> {
        let probes = wanted.probes.iter().map(|probe| Destinations::Only(probe));
        for destinations in [Destinations::AllBut(&wanted.blocked)].into_iter().chain(probes) {
            let and_destination = destinations.condition("destination", 2);
            let due = query(format!(
                "SELECT seq FROM outbox WHERE sent_at IS NULL AND next_at <= $1{and_destination} LIMIT 1"
            ));
            if destinations.bind(due.bind(self.db.now())).fetch_optional(&self.db).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Marks an event as sent, schedules its retry, or makes it a dead letter.
    async fn record(
        &self,
        tx: &mut Tx,
        Sending { outgoing, is_probe }: &Sending,
        result: Result<(), SendError>,
    ) -> Result<(), DbError> {
        let attempts = outgoing.attempts + 1;
        let (error, pause) = match result {
            Ok(()) => return mark_sent(tx, outgoing).await,
            Err(error @ SendError::Unavailable(_)) if *is_probe => (error, PROBE_PAUSE),
            Err(error @ SendError::Unavailable(_)) => (error, UNAVAILABLE.delay(1)),
            Err(error @ SendError::Failed(_)) if attempts < MAX_ATTEMPTS => {
                let pause = RETRY.delay(attempts.try_into().unwrap_or(u32::MAX));
                (error, pause)
            }
            Err(error) => return self.give_up(tx, outgoing, attempts, &error).await,
        };
        let failures = if matches!(error, SendError::Failed(_)) { attempts } else { outgoing.attempts };
        log::info!(seq = outgoing.seq, kind = outgoing.event.kind, error:%; "an event was not delivered and will be sent again");
        query(
            "UPDATE outbox SET attempts = $2, last_error = $3, next_at = $4, claimed_by = NULL \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $5 AND next_at = $6",
        )
        .bind(outgoing.seq)
        .bind(failures)
        .bind(error.to_string())
        .bind(tx.now() + pause)
        .bind(self.name.as_str())
        .bind(outgoing.claimed_until)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Makes the event a dead letter if this relay still has the claim. Otherwise the relay that has it decides.
    async fn give_up(
        &self,
        tx: &mut Tx,
        outgoing: &Outgoing,
        attempts: i64,
        error: &SendError,
    ) -> Result<(), DbError> {
        let Outgoing { seq, destination, event, claimed_until, .. } = outgoing;
        // A dead letter counts as sent: it leaves the outbox.
        let closed = query(
            "UPDATE outbox SET sent_at = $2 \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $3 AND next_at = $4",
        );
        let closed = closed.bind(*seq).bind(tx.now()).bind(self.name.as_str()).bind(*claimed_until);
        if closed.execute(&mut *tx).await? == 1 {
            log::error!(seq, destination, kind = event.kind, error:%; "an event becomes a dead letter");
            dead_letters::keep(tx, destination, event, attempts, &error.to_string()).await?;
        }
        Ok(())
    }

    /// Claims up to `limit` heads whose `next_at` has passed: new ones, retries, and expired claims.
    async fn claim(
        &self,
        tx: &mut Tx,
        destinations: Destinations<'_>,
        limit: usize,
    ) -> Result<Vec<Outgoing>, DbError> {
        let now = tx.now();
        let claimed_until = now + LEASE;
        let and_destination = destinations.condition("head.destination", 5);
        let order = destinations.order();
        let claim = query(format!(
            "UPDATE outbox SET claimed_by = $1, next_at = $2 WHERE seq IN ( \
                SELECT seq FROM outbox AS head WHERE sent_at IS NULL AND next_at <= $3{and_destination} AND NOT EXISTS ( \
                    SELECT 1 FROM outbox AS earlier WHERE earlier.subject = head.subject \
                    AND earlier.sent_at IS NULL AND earlier.seq < head.seq) \
                ORDER BY {order} LIMIT $4 FOR UPDATE SKIP LOCKED) \
             RETURNING seq, destination, attempts, event",
        ));
        let claim = claim.bind(self.name.as_str()).bind(claimed_until).bind(now).bind(limit as i64);
        let rows = destinations.bind(claim).fetch_all(&mut *tx).await?;
        let mut heads = Vec::with_capacity(rows.len());
        for row in rows {
            let seq = row.get("seq")?;
            match serde_json::from_value(row.get("event")?) {
                Ok(event) => heads.push(Outgoing {
                    seq,
                    destination: row.get("destination")?,
                    attempts: row.get("attempts")?,
                    claimed_until,
                    event,
                }),
                // Such an event blocks its subject, and is logged at each claim, until somebody repairs the row.
                Err(error) => log::error!(seq, error:%; "an event in the outbox cannot be read"),
            }
        }
        Ok(heads)
    }
}

/// The destinations whose events may be claimed.
#[derive(Clone, Copy)]
enum Destinations<'a> {
    AllBut(&'a [String]),
    Only(&'a str),
}

impl Destinations<'_> {
    /// `AND …` for a WHERE clause. `first` is the number of its first parameter.
    fn condition(self, column: &str, first: usize) -> String {
        match self {
            Self::Only(_) => format!(" AND {column} = ${first}"),
            Self::AllBut(blocked) => {
                (first..).zip(blocked).map(|(number, _)| format!(" AND {column} <> ${number}")).collect()
            }
        }
    }

    /// The ORDER BY clause. Among probes, the event that became due first comes first: an event that has just
    /// failed waits behind all others.
    fn order(self) -> &'static str {
        match self {
            Self::Only(_) => "next_at, seq",
            Self::AllBut(_) => "seq",
        }
    }

    fn bind(self, query: Query) -> Query {
        match self {
            Self::Only(destination) => query.bind(destination),
            Self::AllBut(blocked) => blocked.iter().fold(query, |query, one| query.bind(one.as_str())),
        }
    }
}

/// Marks an event as sent even if its claim has expired, because it was delivered.
async fn mark_sent(tx: &mut Tx, outgoing: &Outgoing) -> Result<(), DbError> {
    query("UPDATE outbox SET sent_at = $2 WHERE seq = $1 AND sent_at IS NULL")
        .bind(outgoing.seq)
        .bind(tx.now())
        .execute(tx)
        .await?;
    Ok(())
}
