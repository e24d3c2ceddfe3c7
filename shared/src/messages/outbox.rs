//! The outbox: events written with the change they tell of (the transactional outbox pattern).

use time::{Duration, OffsetDateTime};
use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::db::{DbError, Tx, now, query};
use crate::resilience::Backoff;

/// How long whoever claimed an event may take to send it before another relay may. Sending twice is
/// harmless: receivers notice.
pub(super) const LEASE: Duration = Duration::seconds(5);
/// An event that fails at the receiver so often becomes a dead letter.
pub(super) const ATTEMPTS: i64 = 10;
pub(super) const RETRY: Backoff =
    Backoff { first: std::time::Duration::from_millis(200), longest: std::time::Duration::from_secs(10) };
pub(super) const UNAVAILABLE: Backoff =
    Backoff { first: std::time::Duration::from_secs(1), longest: std::time::Duration::from_secs(1) };

/// Writes events to be sent. Clones share the relay.
#[derive(Clone, Debug)]
pub struct Outbox {
    relay: String,
    claimed: UnboundedSender<Outgoing>,
}

/// An event on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Its place in the order of writing.
    pub seq: i64,
    /// The service it goes to.
    pub destination: String,
    /// How often sending failed before.
    pub attempts: i64,
    /// When its claim runs out, which tells the claim from all others.
    pub claimed_until: OffsetDateTime,
    /// The event.
    pub event: Event,
}

impl Outbox {
    pub(super) fn new(relay: String, claimed: UnboundedSender<Outgoing>) -> Self {
        Self { relay, claimed }
    }

    /// Writes `event` in `tx`; it is sent to the service `destination` right after the commit, or by
    /// another replica if this one dies.
    ///
    /// The writer claims the event for its own relay, which saves a transaction, unless earlier
    /// events of the subject are still on their way: then the relay takes it when its turn comes.
    /// Writers of one subject must hold a lock on it, or the order among them is by chance.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn put(&self, tx: &mut Tx, destination: &str, event: Event) -> Result<(), DbError> {
        let now = now();
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
            // Without a relay the claim runs out, and another replica's relay sends the event.
            tx.on_commit(move || claimed.send(outgoing).unwrap_or_default());
        }
        Ok(())
    }
}
