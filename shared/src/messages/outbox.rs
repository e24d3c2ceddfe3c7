//! The transactional outbox: a service writes an event in the same transaction as the change it announces.
//! The [relay](super::relay) sends it after the commit.

use time::{Duration, OffsetDateTime};
use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::db::{DbError, Tx, query};
use crate::resilience::Backoff;

/// The duration of a relay's claim on an event. After it, another relay may send the event. Sending an event twice is
/// harmless, because the receiver's inbox detects duplicates.
pub(super) const LEASE: Duration = Duration::seconds(5);
/// After this number of failures at the receiver, an event becomes a dead letter.
pub(super) const MAX_ATTEMPTS: i64 = 10;
/// The pause after a failure at the receiver.
pub(super) const RETRY: Backoff =
    Backoff { first: std::time::Duration::from_millis(200), longest: std::time::Duration::from_secs(10) };
/// The pause after a send to an unavailable receiver.
pub(super) const UNAVAILABLE: Backoff =
    Backoff { first: std::time::Duration::from_secs(1), longest: std::time::Duration::from_secs(1) };

/// Writes events to the outbox table, and hands them to this process's relay.
#[derive(Clone, Debug)]
pub struct Outbox {
    relay: String,
    claimed: UnboundedSender<Outgoing>,
}

/// An event claimed by a relay.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Position in the outbox.
    pub seq: i64,
    /// Name of the receiving service.
    pub destination: String,
    /// Failures at the receiver so far.
    pub attempts: i64,
    /// End of the claim. It also identifies the claim: a relay updates the row only if this is unchanged.
    pub claimed_until: OffsetDateTime,
    pub event: Event,
}

impl Outbox {
    pub(super) fn new(relay: String, claimed: UnboundedSender<Outgoing>) -> Self {
        Self { relay, claimed }
    }

    /// Writes `event` in `tx`. The relay sends it to the service `destination` immediately after the commit. If this
    /// replica dies, another replica's relay sends it.
    ///
    /// The insert also claims the event for this process's relay, which saves a transaction. If earlier
    /// events of the subject are unsent, the event stays unclaimed until they are sent. Concurrent writers of events
    /// with one subject must hold a common lock. Otherwise, the order of their events is undefined.
    pub async fn put(&self, tx: &mut Tx, destination: &str, event: Event) -> Result<(), DbError> {
        let now = tx.now();
        let claimed_until = now + LEASE;
        let row = query(
            "INSERT INTO outbox (id, destination, subject, event, created_at, claimed_by, next_at) \
             SELECT $1, $2, $3, $4, $5, \
                CASE WHEN earlier.pending THEN NULL ELSE $6 END, \
                CASE WHEN earlier.pending THEN $5 ELSE $7 END \
             FROM (SELECT EXISTS (SELECT 1 FROM outbox WHERE subject = $3 AND sent_at IS NULL) AS pending) \
                AS earlier \
             RETURNING seq, claimed_by",
        )
        .bind(event.id)
        .bind(destination)
        .bind(event.subject.as_str())
        .bind(event.to_json())
        .bind(now)
        .bind(self.relay.as_str())
        .bind(claimed_until)
        .fetch_one(&mut *tx)
        .await?;
        if row.get::<Option<String>>("claimed_by")?.is_some() {
            let destination = destination.to_owned();
            let outgoing = Outgoing { seq: row.get("seq")?, destination, attempts: 0, claimed_until, event };
            let claimed = self.claimed.clone();
            // If the relay has ended, the claim expires and another replica's relay sends the event.
            tx.on_commit(move || claimed.send(outgoing).unwrap_or_default());
        }
        Ok(())
    }
}
