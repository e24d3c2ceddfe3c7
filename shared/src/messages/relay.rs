//! The relay: takes events from the outbox and hands them to the transport.
//!
//! Only the *head* of a subject, its oldest unsent event, is ever claimed, so that events of one
//! subject arrive in order; many subjects are sent at once. What came of the sends so far is marked,
//! and the next heads are claimed, in one transaction. Several relays share an outbox by their claims:
//! each holds for a while and is then free for another.
//!
//! | sending | then |
//! |---|---|
//! | succeeds | marked as sent |
//! | finds nobody, or somebody who cannot work now | tried again within a second, for ever |
//! | fails at the receiver | tried again later and later; after ten times a dead letter |
//! | is rejected | a dead letter at once |
//!
//! By HTTP sending succeeds when the receiver has handled the event, with a broker when that has it.
//! A dead letter lets the subject's next events pass. When it is replayed it arrives after them, so
//! receivers guard their state, not the order alone.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use super::outbox::{ATTEMPTS, LEASE, Outbox, Outgoing, RETRY, UNAVAILABLE};
use super::{Nats, SendError, Transport, dead_letters};
use crate::db::{Db, DbError, Tx, now, query};
use crate::stop::Stop;

const MAX_IN_FLIGHT: usize = 32;
/// How often to look for events that no commit in this process told of.
const POLL: Duration = Duration::from_secs(1);

/// Sends what is in an outbox.
pub struct Relay {
    name: String,
    db: Db,
    transport: Rc<dyn Transport>,
    outbox: Outbox,
    claimed: UnboundedReceiver<Outgoing>,
}

struct Sent {
    outgoing: Outgoing,
    result: Result<(), SendError>,
}

impl Relay {
    /// A relay, and the outbox whose writers wake it.
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

    /// The broker that events are fetched from, if they are not pushed.
    pub(super) fn broker(&self) -> Option<Nats> {
        self.transport.broker()
    }

    /// Sends events until told to stop, and then finishes those it is sending.
    pub async fn run(mut self, stop: Stop) {
        let (results, mut finished) = unbounded_channel::<Sent>();
        let mut waiting = VecDeque::new();
        let mut sending = 0;
        let mut poll = tokio::time::interval(POLL);
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
            let woken_to_send = !waiting.is_empty();
            sending -= sent.len();
            if !sent.is_empty() || !woken_to_send {
                let room = MAX_IN_FLIGHT.saturating_sub(sending + waiting.len());
                let wanted = if stop.is_requested() { 0 } else { room };
                match self.settle(sent, wanted).await {
                    Ok(heads) => waiting.extend(heads),
                    // Nothing is lost: the claims run out, and the events are sent again.
                    Err(error) => log::warn!(error:%; "the outbox cannot be read or marked"),
                }
            }
            // What waited for longer than its claim is somebody else's by now.
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
            // The receiver lives as long as the relay, which waits for every send.
            results.send(Sent { outgoing, result }).unwrap_or_default();
        });
    }

    /// Marks what came of `sent`, and claims up to `wanted` heads.
    async fn settle(&self, sent: Vec<Sent>, wanted: usize) -> Result<Vec<Outgoing>, DbError> {
        if sent.is_empty() && !self.is_any_due().await? {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        for Sent { outgoing, result } in sent {
            self.mark(&mut tx, &outgoing, result).await?;
        }
        let heads = if wanted > 0 { self.claim(&mut tx, wanted).await? } else { Vec::new() };
        tx.commit().await?;
        Ok(heads)
    }

    /// A look that locks nothing, because mostly there is nothing to do.
    async fn is_any_due(&self) -> Result<bool, DbError> {
        let due = query("SELECT seq FROM outbox WHERE sent_at IS NULL AND next_at <= $1 LIMIT 1").bind(now());
        Ok(due.fetch_optional(&self.db).await?.is_some())
    }

    async fn mark(
        &self,
        tx: &mut Tx,
        outgoing: &Outgoing,
        result: Result<(), SendError>,
    ) -> Result<(), DbError> {
        let attempts = outgoing.attempts + 1;
        let (error, pause) = match result {
            Ok(()) => return done(tx, outgoing).await,
            Err(error @ SendError::Unavailable(_)) => (error, UNAVAILABLE.delay(1)),
            Err(error @ SendError::Failed(_)) if attempts < ATTEMPTS => {
                let pause = RETRY.delay(attempts.try_into().unwrap_or(u32::MAX));
                (error, pause)
            }
            Err(error) => return self.give_up(tx, outgoing, attempts, &error).await,
        };
        let counted = if matches!(error, SendError::Failed(_)) { attempts } else { outgoing.attempts };
        log::info!(seq = outgoing.seq, kind = outgoing.event.kind, error:%; "a message is tried again");
        query(
            "UPDATE outbox SET attempts = $2, last_error = $3, next_at = $4, claimed_by = NULL \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $5 AND next_at = $6",
        )
        .bind(outgoing.seq)
        .bind(counted)
        .bind(error.to_string())
        .bind(now() + pause)
        .bind(self.name.as_str())
        .bind(outgoing.claimed_until)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Makes a dead letter of the event, unless its claim is somebody else's by now, who may yet send it.
    async fn give_up(
        &self,
        tx: &mut Tx,
        outgoing: &Outgoing,
        attempts: i64,
        error: &SendError,
    ) -> Result<(), DbError> {
        let Outgoing { seq, destination, event, claimed_until, .. } = outgoing;
        let ours = query(
            "UPDATE outbox SET sent_at = $2 \
             WHERE seq = $1 AND sent_at IS NULL AND claimed_by = $3 AND next_at = $4",
        );
        let ours = ours.bind(*seq).bind(now()).bind(self.name.as_str()).bind(*claimed_until);
        if ours.execute(&mut *tx).await? == 1 {
            log::error!(seq, destination, kind = event.kind, error:%; "a message becomes a dead letter");
            dead_letters::keep(tx, destination, event, attempts, &error.to_string()).await?;
        }
        Ok(())
    }

    /// The heads that nobody holds now.
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
                // Only a hand in the database can do this; the claim keeps it from blocking others.
                Err(error) => log::error!(seq, error:%; "an event in the outbox cannot be read"),
            }
        }
        Ok(heads)
    }
}

async fn done(tx: &mut Tx, outgoing: &Outgoing) -> Result<(), DbError> {
    query("UPDATE outbox SET sent_at = $2 WHERE seq = $1 AND sent_at IS NULL")
        .bind(outgoing.seq)
        .bind(now())
        .execute(tx)
        .await?;
    Ok(())
}
