//! The transactional outbox: a service writes an event in the same transaction as the change it announces.
//! The [relay](super::relay) sends it after the commit.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::Event;
use crate::db::{DbError, DeferredWrite, Tx, placeholders, query};
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
    committed: UnboundedSender<Committed>,
}

/// The events of a committed transaction, for the relay of this process.
#[derive(Debug)]
pub(super) struct Committed {
    /// The insert has claimed these for the relay.
    pub heads: Vec<Outgoing>,
    /// Others wait for earlier events of their subjects.
    pub others_wait: bool,
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
    pub(super) fn new(relay: String, committed: UnboundedSender<Committed>) -> Self {
        Self { relay, committed }
    }

    /// Writes `event` at the end of `tx`. The relay sends it to the service `destination` immediately after the commit. If
    /// this replica dies, another replica's relay sends it.
    ///
    /// The insert also claims the event for this process's relay, which saves a transaction. If earlier
    /// events of the subject are unsent, the event stays unclaimed until they are sent. Concurrent writers of events
    /// with one subject must hold a common lock. Otherwise, the order of their events is undefined.
    pub fn put(&self, tx: &mut Tx, destination: &str, event: Event) {
        let new = tx.deferred::<NewEvents>();
        new.outbox.get_or_insert_with(|| self.clone());
        new.events.push((destination.to_owned(), event));
    }
}

/// The events of one transaction, with their destinations. One statement inserts all.
#[derive(Default)]
struct NewEvents {
    outbox: Option<Outbox>,
    events: Vec<(String, Event)>,
}

#[async_trait(?Send)]
impl DeferredWrite for NewEvents {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let Self { outbox: Some(Outbox { relay, committed }), events } = *self else { return Ok(()) };
        let now = tx.now();
        let claimed_until = now + LEASE;
        // The head of a subject is the first of these events, if no earlier one is unsent. PostgreSQL looks each subject up in
        // the index; with NOT EXISTS it may read all unsent events instead.
        let insert = query(format!(
            "INSERT INTO outbox (id, destination, subject, event, created_at, claimed_by, next_at) \
             WITH new_events (id, destination, subject, event, is_first) AS (VALUES {}) \
             SELECT id, destination, subject, event, $1, \
                CASE WHEN is_head THEN $2 END, CASE WHEN is_head THEN $3 ELSE $1 END \
             FROM (SELECT new_events.*, is_first AND ( \
                SELECT 1 FROM outbox WHERE outbox.subject = new_events.subject AND sent_at IS NULL LIMIT 1 \
                ) IS NULL AS is_head FROM new_events) AS new_events \
             RETURNING id, destination, seq, claimed_by",
            placeholders(4, 5, events.len())
        ));
        let (mut subjects, count) = (BTreeSet::new(), events.len());
        let mut insert = insert.bind(now).bind(relay).bind(claimed_until);
        for (destination, event) in &events {
            let is_first = subjects.insert(event.subject.as_str());
            let place = insert.bind(event.id).bind(destination.as_str()).bind(event.subject.as_str());
            insert = place.bind(event.to_json()).bind(is_first);
        }
        let mut heads = BTreeMap::new();
        for row in insert.fetch_all(&mut *tx).await? {
            if row.get::<Option<String>>("claimed_by")?.is_some() {
                heads.insert((row.get::<Uuid>("id")?, row.get::<String>("destination")?), row.get("seq")?);
            }
        }
        let heads = events.into_iter().filter_map(|(destination, event)| {
            let seq = heads.remove(&(event.id, destination.clone()))?;
            Some(Outgoing { seq, destination, attempts: 0, claimed_until, event })
        });
        let heads: Vec<_> = heads.collect();
        let events = Committed { others_wait: heads.len() < count, heads };
        // If the relay has ended, the claims expire and another replica's relay sends the events.
        tx.on_commit(move || committed.send(events).unwrap_or_default());
        Ok(())
    }

    fn locks_contended_rows(&self) -> bool {
        false
    }
}
