//! The relay: claims events in the outbox, sends them with the transport, and marks them as sent.
//!
//! **Order.** Only the *head* of a subject, its oldest unsent event, can be claimed. So the events of one
//! subject are sent one after the other, and different subjects in parallel. If a subject has no
//! unsent event, [`Outbox::put`] inserts the event already claimed for the relay of its own process. This saves
//! the transaction that would claim it.
//!
//! **Several relays** (one per replica) share an outbox. A claim lasts [`LEASE`]. Claims of a dead relay
//! expire, and another relay claims the events.
//!
//! | result of a send | action |
//! |---|---|
//! | success | mark as sent |
//! | receiver or broker unavailable, or the receiver does not (yet) let this service send | retry within a second, without limit |
//! | failure at the receiver | retry with backoff; after ten failures a dead letter |
//! | rejected: the receiver will never accept it | a dead letter at once |
//!
//! Over HTTP, success means that the receiver has handled the event; with a broker, that the broker has
//! stored it. A dead letter does not block later events of its subject. When it is replayed it arrives after
//! them, so receivers must check their own state, and not rely on the order alone.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use super::outbox::{LEASE, MAX_ATTEMPTS, Outbox, Outgoing, RETRY, UNAVAILABLE};
use super::{Nats, SendError, Transport, dead_letters};
use crate::db::{Db, DbError, Tx, query};
use crate::stop::Stop;

/// Concurrent sends.
const MAX_IN_FLIGHT: usize = 32;
/// How often the relay looks in the table for due events that [`Outbox::put`] did not hand to it: retries, events
/// that became heads later, and events whose relay has died.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

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

/// A send that has succeeded or failed.
struct Finished {
    outgoing: Outgoing,
    result: Result<(), SendError>,
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

    /// Sends events until `stop`. Then it claims nothing more, and sends what is already claimed.
    pub async fn run(mut self, stop: Stop) {
        let (results, mut arriving) = unbounded_channel::<Finished>();
        let mut waiting = VecDeque::new();
        let mut in_flight = 0;
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while in_flight > 0 || !stop.is_requested() {
            let mut finished = Vec::new();
            tokio::select! {
                Some(outgoing) = self.claimed.recv() => waiting.push_back(outgoing),
                Some(first) = arriving.recv() => {
                    finished.push(first);
                    while let Ok(more) = arriving.try_recv() {
                        finished.push(more);
                    }
                }
                _ = poll.tick() => {}
                () = stop.requested(), if !stop.is_requested() => {}
            }
            in_flight -= finished.len();
            // An event that was just committed is sent before the database is asked for more.
            if !finished.is_empty() || waiting.is_empty() {
                let room = MAX_IN_FLIGHT.saturating_sub(in_flight + waiting.len());
                let wanted = if stop.is_requested() { 0 } else { room };
                match self.record_and_claim(finished, wanted).await {
                    Ok(heads) => waiting.extend(heads),
                    // No event is lost: the claims expire, and the events are sent again.
                    Err(error) => log::warn!(error:%; "the outbox cannot be read or updated"),
                }
            }
            // A claim may have expired while its event waited: then another relay may have it.
            waiting.retain(|outgoing: &Outgoing| outgoing.claimed_until > self.db.now());
            while in_flight < MAX_IN_FLIGHT {
                let Some(outgoing) = waiting.pop_front() else { break };
                in_flight += 1;
                self.send(outgoing, results.clone());
            }
        }
    }

    fn send(&self, outgoing: Outgoing, results: UnboundedSender<Finished>) {
        let transport = self.transport.clone();
        actix_web::rt::spawn(async move {
            let result = transport.send(&outgoing).await;
            // Cannot fail: the relay receives until the last send has ended.
            results.send(Finished { outgoing, result }).unwrap_or_default();
        });
    }

    /// Records the results of `finished` and claims up to `wanted` heads, in one transaction.
    async fn record_and_claim(
        &self,
        finished: Vec<Finished>,
        wanted: usize,
    ) -> Result<Vec<Outgoing>, DbError> {
        if finished.is_empty() && !self.is_any_due().await? {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        for Finished { outgoing, result } in finished {
            self.record(&mut tx, &outgoing, result).await?;
        }
        let heads = if wanted > 0 { self.claim(&mut tx, wanted).await? } else { Vec::new() };
        tx.commit().await?;
        Ok(heads)
    }

    /// Whether any event is due. Usually none is; this read saves a write transaction at every poll.
    async fn is_any_due(&self) -> Result<bool, DbError> {
        let due = query("SELECT seq FROM outbox WHERE sent_at IS NULL AND next_at <= $1 LIMIT 1");
        let due = due.bind(self.db.now());
        Ok(due.fetch_optional(&self.db).await?.is_some())
    }

    /// Marks an event as sent, schedules its retry, or makes it a dead letter.
    async fn record(
        &self,
        tx: &mut Tx,
        outgoing: &Outgoing,
        result: Result<(), SendError>,
    ) -> Result<(), DbError> {
        let attempts = outgoing.attempts + 1;
        let (error, pause) = match result {
            Ok(()) => return mark_sent(tx, outgoing).await,
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
        let ended = query(
            "UPDATE outbox SET sent_at = $2 \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $3 AND next_at = $4",
        );
        let ended = ended.bind(*seq).bind(tx.now()).bind(self.name.as_str()).bind(*claimed_until);
        if ended.execute(&mut *tx).await? == 1 {
            log::error!(seq, destination, kind = event.kind, error:%; "an event becomes a dead letter");
            dead_letters::keep(tx, destination, event, attempts, &error.to_string()).await?;
        }
        Ok(())
    }

    /// Claims up to `wanted` heads whose `next_at` has passed: new ones, retries, and expired claims.
    async fn claim(&self, tx: &mut Tx, wanted: usize) -> Result<Vec<Outgoing>, DbError> {
        let now = tx.now();
        let claimed_until = now + LEASE;
        let rows = query(
            "UPDATE outbox SET claimed_by = $1, next_at = $2 WHERE seq IN ( \
                SELECT seq FROM outbox AS head WHERE sent_at IS NULL AND next_at <= $3 AND NOT EXISTS ( \
                    SELECT 1 FROM outbox AS earlier WHERE earlier.subject = head.subject \
                    AND earlier.sent_at IS NULL AND earlier.seq < head.seq) \
                ORDER BY seq LIMIT $4 FOR UPDATE SKIP LOCKED) \
             RETURNING seq, destination, attempts, event",
        )
        .bind(self.name.as_str())
        .bind(claimed_until)
        .bind(now)
        .bind(wanted as i64)
        .fetch_all(&mut *tx)
        .await?;
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

/// Marks an event as sent even if its claim has expired, because it was delivered.
async fn mark_sent(tx: &mut Tx, outgoing: &Outgoing) -> Result<(), DbError> {
    query("UPDATE outbox SET sent_at = $2 WHERE seq = $1 AND sent_at IS NULL")
        .bind(outgoing.seq)
        .bind(tx.now())
        .execute(tx)
        .await?;
    Ok(())
}
