//! The relay: claims events in the outbox, sends them with the transport, and marks them as sent.
//!
//! **Order.** A relay claims only the *head* of a subject: its oldest unsent event. So the events of one
//! subject are sent one after the other, and different subjects in parallel.
//!
//! **Several relays** (one per replica) share an outbox. A claim lasts [`LEASE`]; if the relay dies, another
//! relay claims the event after that. One transaction records the results of finished sends and claims the
//! next heads.
//!
//! | result of a send | action |
//! |---|---|
//! | success | mark as sent |
//! | receiver or broker unavailable | retry within a second, without limit |
//! | failure at the receiver | retry with backoff; after ten failures a dead letter |
//! | rejected | a dead letter at once |
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
use crate::db::{Db, DbError, Tx, now, query};
use crate::stop::Stop;

/// Concurrent sends.
const MAX_IN_FLIGHT: usize = 32;
/// Finds events that no commit in this process announced: retries, and events of other replicas.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Sends the events of an outbox.
pub struct Relay {
    /// Unique; the owner of this relay's claims.
    name: String,
    db: Db,
    transport: Rc<dyn Transport>,
    outbox: Outbox,
    /// Events that [`Outbox::put`] claimed for this relay, after their commit.
    claimed: UnboundedReceiver<Outgoing>,
}

/// A finished send.
struct Sent {
    outgoing: Outgoing,
    result: Result<(), SendError>,
}

impl Relay {
    /// A relay, and the outbox that wakes it after each commit.
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

    /// The broker to consume events from; `None` if the transport pushes them.
    pub(super) fn broker(&self) -> Option<Nats> {
        self.transport.broker()
    }

    /// Sends events until `stop`; then finishes the sends in flight.
    pub async fn run(mut self, stop: Stop) {
        let (results, mut finished) = unbounded_channel::<Sent>();
        let mut waiting = VecDeque::new();
        let mut sending = 0;
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while sending > 0 || !stop.is_requested() {
            let mut sent = Vec::new();
            tokio::select! {
                Some(outgoing) = self.claimed.recv() => waiting.push_back(outgoing),
                Some(first) = finished.recv() => {
                    sent.push(first);
                    while let Ok(more) = finished.try_recv() {
                        sent.push(more);
                    }
                }
                _ = poll.tick() => {}
                () = stop.requested(), if !stop.is_requested() => {}
            }
            let has_claimed = !waiting.is_empty();
            sending -= sent.len();
            if !sent.is_empty() || !has_claimed {
                let room = MAX_IN_FLIGHT.saturating_sub(sending + waiting.len());
                let wanted = if stop.is_requested() { 0 } else { room };
                match self.settle(sent, wanted).await {
                    Ok(heads) => waiting.extend(heads),
                    // No event is lost: the claims expire, and the events are sent again.
                    Err(error) => log::warn!(error:%; "the outbox cannot be read or updated"),
                }
            }
            // Another relay may have claimed an event whose claim has expired here.
            waiting.retain(|outgoing: &Outgoing| outgoing.claimed_until > now());
            while sending < MAX_IN_FLIGHT {
                let Some(outgoing) = waiting.pop_front() else { break };
                sending += 1;
                self.send(outgoing, results.clone());
            }
        }
    }

    fn send(&self, outgoing: Outgoing, results: UnboundedSender<Sent>) {
        let transport = self.transport.clone();
        actix_web::rt::spawn(async move {
            let result = transport.send(&outgoing).await;
            // Cannot fail: the relay receives until the last send has ended.
            results.send(Sent { outgoing, result }).unwrap_or_default();
        });
    }

    /// Records the results of `sent`, and claims up to `wanted` heads.
    async fn settle(&self, sent: Vec<Sent>, wanted: usize) -> Result<Vec<Outgoing>, DbError> {
        if sent.is_empty() && !self.is_any_due().await? {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        for Sent { outgoing, result } in sent {
            self.record(&mut tx, &outgoing, result).await?;
        }
        let heads = if wanted > 0 { self.claim(&mut tx, wanted).await? } else { Vec::new() };
        tx.commit().await?;
        Ok(heads)
    }

    /// Reads without a lock, because mostly nothing is due.
    async fn is_any_due(&self) -> Result<bool, DbError> {
        let due = query("SELECT seq FROM outbox WHERE sent_at IS NULL AND next_at <= $1 LIMIT 1").bind(now());
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
        log::info!(seq = outgoing.seq, kind = outgoing.event.kind, error:%; "a message is tried again");
        query(
            "UPDATE outbox SET attempts = $2, last_error = $3, next_at = $4, claimed_by = NULL \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $5 AND next_at = $6",
        )
        .bind(outgoing.seq)
        .bind(failures)
        .bind(error.to_string())
        .bind(now() + pause)
        .bind(self.name.as_str())
        .bind(outgoing.claimed_until)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Makes the event a dead letter, unless the claim has expired: then another relay may still deliver it.
    async fn give_up(
        &self,
        tx: &mut Tx,
        outgoing: &Outgoing,
        attempts: i64,
        error: &SendError,
    ) -> Result<(), DbError> {
        let Outgoing { seq, destination, event, claimed_until, .. } = outgoing;
        let claimed = query(
            "UPDATE outbox SET sent_at = $2 \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $3 AND next_at = $4",
        );
        let claimed = claimed.bind(*seq).bind(now()).bind(self.name.as_str()).bind(*claimed_until);
        if claimed.execute(&mut *tx).await? == 1 {
            log::error!(seq, destination, kind = event.kind, error:%; "a message becomes a dead letter");
            dead_letters::keep(tx, destination, event, attempts, &error.to_string()).await?;
        }
        Ok(())
    }

    /// Claims up to `wanted` heads that are due and that no other relay holds.
    async fn claim(&self, tx: &mut Tx, wanted: usize) -> Result<Vec<Outgoing>, DbError> {
        let now = now();
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
                // Only a manual change of the row can cause this. The claim keeps it out of the next polls.
                Err(error) => log::error!(seq, error:%; "an event in the outbox cannot be read"),
            }
        }
        Ok(heads)
    }
}

/// Also if the claim has expired: the event was delivered.
async fn mark_sent(tx: &mut Tx, outgoing: &Outgoing) -> Result<(), DbError> {
    query("UPDATE outbox SET sent_at = $2 WHERE seq = $1 AND sent_at IS NULL")
        .bind(outgoing.seq)
        .bind(now())
        .execute(tx)
        .await?;
    Ok(())
}
