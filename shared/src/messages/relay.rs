//! The relay: claims events in the outbox, sends them with the transport, and marks them as sent.
//!
//! **Order.** Events with the same `subject` (the id of the aggregate) are sent one after the other. Events of
//! different subjects are sent in parallel. To keep this order, the relay claims only the *head* of a subject: its oldest
//! unsent event. [`Outbox::put`] inserts the events of a transaction with one statement. This statement also claims the
//! heads, on behalf of the relay of this process. This saves a second transaction.
//!
//! **Claim.** An event may be claimed at the time `next_at` or later. A claim sets `next_at` to the time when the claim
//! expires, and `claimed_by` to the relay. After a failed send, the relay updates the row only if both are unchanged.
//! If one has changed, another claim has replaced this one.
//!
//! **Mark.** One statement marks all events that were delivered, and tells whether a later event of one of their subjects
//! waits. It needs no transaction, because it may run twice. The relay then searches the table only if an event may
//! wait there: such a later one, one behind a full last claim, or after a failure. Once a second it searches anyway.
//!
//! **Batches.** If the transport can, the relay sends several events for one destination in one request. While a
//! request to a destination has no answer, new events for it gather for the next one, for [`GATHER_TIME`]. So an event
//! in an idle system is sent immediately and alone. The result of each event is its own. An event that has failed at
//! the receiver is sent alone, and so is a probe.
//!
//! **Several relays** (one per replica) share an outbox. A claim lasts [`LEASE`]. Claims of a dead relay expire, and
//! then another relay claims the events.
//!
//! | result of a send | action |
//! |---|---|
//! | success | mark as sent |
//! | unavailable: no connection, the sender is not authorized, or a status that says nothing about the event (429, 503 and others, see `http.rs`) | retry within a second, without limit; after five such failures in a row, the circuit of the destination opens |
//! | failure at the receiver | retry with backoff; after ten failures a dead letter |
//! | rejected: the receiver will never accept it | a dead letter immediately |
//!
//! **While the [circuit](circuit) of a destination is open**, the relay sends this destination only one event per
//! second, as a probe. Apart from the probe, the relay claims none of this destination's events from the table. While
//! the circuits of all receivers are open, it searches only for probes, so the work of a poll does not grow with the
//! backlog. (If one of several receivers is away, a search for the others reads past its events.)
//! [`Outbox::put`] still claims new events and hands them over. These wait in memory until the circuit closes or their
//! claims expire. Any result except "unavailable" closes the circuit, even a failure at the receiver. The relay then sends
//! the events in memory, and claims the others from the table. An event that has failed as a probe waits for
//! [`PROBE_PAUSE`], so that the next probe is another event. Without this pause, one event that the receiver always
//! answers with 503 could be chosen for every probe, and the circuit would never close.
//!
//! Each event is delivered at least once; the receiver's [inbox](super::inbox) removes duplicates. Over HTTP, success
//! means that the receiver has handled the event. With a broker, it means that the broker has stored the event. A dead
//! letter does not block later events of its subject. A replayed dead letter arrives after them. So receivers must check
//! their own state, and not rely on the order alone.
//!
//! [`GATHER_TIME`]: queue::GATHER_TIME
//! [`LEASE`]: super::outbox::LEASE
//! [`PROBE_PAUSE`]: table::PROBE_PAUSE

mod circuit; // a circuit breaker per destination
mod queue; // claimed events, until they are sent
mod table; // claims events and records the results of sends

use std::pin::pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture as _, FutureExt as _};
use prometheus::{Histogram, register_histogram};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use self::queue::{GATHER_TIME, Queue};
use self::table::Table;
use super::outbox::{Committed, Outbox, Outgoing};
use super::{Nats, SendResult, Transport, tracing};
use crate::db::{CommitDelay, Db};
use crate::stop::Stop;

/// How often, at least, the relay searches the table for due events: retries, events that waited for an earlier event of
/// their subject, and events of dead relays. All others come from [`Outbox::put`].
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
static SIZES: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Events that the relay sent at once.";
    register_histogram!("relay_batch_events", help, vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        .expect("the name is unique")
});

/// Sends the events of an outbox.
pub struct Relay {
    /// Unique. The column `claimed_by` holds it.
    name: String,
    db: Db,
    transport: Rc<dyn Transport>,
    /// The services to which it sends.
    receivers: Vec<String>,
    outbox: Outbox,
    /// The events of transactions that this process has committed.
    committed: UnboundedReceiver<Committed>,
}

/// An event that is being sent.
#[cfg_attr(test, derive(Clone))]
struct Sending {
    outgoing: Outgoing,
    /// This send tests whether an unavailable destination is available again.
    is_probe: bool,
}

/// A send that has succeeded or failed.
#[cfg_attr(test, derive(Clone))]
struct Finished {
    sending: Sending,
    result: SendResult,
}

/// The events that the relay should claim next.
#[derive(Default)]
struct Wanted {
    /// How many heads to claim in total, for the destinations with a closed circuit. 0 if the queue is full, or if all
    /// receivers are away.
    heads: usize,
    /// The destinations with an open or half-open circuit: of their events, only probes are claimed.
    blocked: Vec<String>,
    /// The blocked destinations that need a probe. The relay claims one head for each.
    probes: Vec<String>,
}

/// The result of a search in the table.
struct Claimed {
    heads: Vec<Outgoing>,
    /// Other events may wait.
    more_wait: bool,
}

impl Wanted {
    fn is_any(&self) -> bool {
        self.heads > 0 || !self.probes.is_empty()
    }
}

impl Relay {
    /// A new outbox, and the relay that gets its events after each commit. It sends them to the services `receivers`.
    pub fn new(db: Db, transport: Rc<dyn Transport>, receivers: &[&str]) -> (Outbox, Self) {
        let name = Uuid::now_v7().to_string();
        let (sender, committed) = unbounded_channel();
        let outbox = Outbox::new(name.clone(), sender);
        let receivers = receivers.iter().map(|name| (*name).to_owned()).collect();
        (outbox.clone(), Self { name, db, transport, receivers, outbox, committed })
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Replaces the transport with `wrap(transport)`.
    pub(super) fn wrap_transport(
        mut self,
        wrap: impl FnOnce(Rc<dyn Transport>) -> Rc<dyn Transport>,
    ) -> Self {
        self.transport = wrap(self.transport);
        self
    }

    /// The broker from which events are consumed; `None` if the transport pushes them to the receiver.
    pub(super) fn broker(&self) -> Option<Nats> {
        self.transport.broker()
    }

    /// Sends events until `stop`. Then it claims no more events. It sends those that it has already claimed, unless
    /// their destination is unavailable.
    pub async fn run(self, stop: Stop) {
        let Self { name, db, transport, receivers, mut committed, .. } = self;
        let table = Table::new(name, db.clone());
        let (finished_tx, mut finished_rx) = unbounded_channel();
        let mut queue = Queue::new(receivers);
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // At most one transaction runs at a time. While it runs, the relay continues to send events. Their results wait in
        // `unrecorded` for the next transaction. `poll_is_due` starts a transaction without a delay: an event may wait for
        // an earlier event of its subject. With `more_wait`, the next one searches the table, too.
        let (mut unrecorded, mut delay) = (Vec::new(), CommitDelay::new(&db));
        let (mut poll_is_due, mut more_wait) = (false, false);
        let mut transaction = pin!(Fuse::terminated());
        loop {
            for batch in queue.take(db.now(), |destination| transport.max_batch(destination)) {
                send(&transport, batch, finished_tx.clone());
            }
            let record = !unrecorded.is_empty() && (delay.is_over() || stop.is_requested());
            if transaction.is_terminated() && (poll_is_due || record) {
                delay.started(unrecorded.len());
                let wanted = if stop.is_requested() { Wanted::default() } else { queue.wanted() };
                let (results, must_search) = (std::mem::take(&mut unrecorded), poll_is_due || more_wait);
                transaction.set(table.record_and_claim(results, wanted, must_search).fuse());
                poll_is_due = false;
            }
            // `committed` may still hold events of the last transactions of this process.
            if stop.is_requested() && queue.is_idle() && committed.is_empty() && transaction.is_terminated() {
                return;
            }
            tokio::select! {
                Some(first) = committed.recv() => {
                    let mut next = Some(first);
                    while let Some(Committed { heads, others_wait }) = next {
                        // These heads are claimed already, so the next iteration sends them without database access.
                        heads.into_iter().for_each(|head| queue.push(head));
                        // The other events wait for an earlier event of their subject. Another relay may have marked that
                        // event as sent before this transaction was committed. It then found no next event to claim, so
                        // this relay searches the table.
                        poll_is_due |= others_wait;
                        next = committed.try_recv().ok();
                    }
                }
                Some(first) = finished_rx.recv() => {
                    let mut next = Some(first);
                    while let Some(batch) = next {
                        queue.finish(&batch);
                        unrecorded.extend(batch);
                        next = finished_rx.try_recv().ok();
                    }
                }
                () = tokio::time::sleep(GATHER_TIME), if queue.is_gathering() => {}
                recorded = &mut transaction => {
                    delay.ended();
                    match recorded {
                        Ok(claimed) => {
                            claimed.heads.into_iter().for_each(|head| queue.push(head));
                            more_wait = claimed.more_wait;
                        }
                        // No event is lost: the claims expire, and the events are sent again.
                        Err(error) => {
                            log::warn!(error:%; "the outbox cannot be read or updated");
                            more_wait = true;
                        }
                    }
                }
                () = delay.wait(), if transaction.is_terminated() && !unrecorded.is_empty() => {}
                _ = poll.tick() => {
                    poll_is_due = true;
                    queue.allow_probes();
                }
                () = stop.requested(), if !stop.is_requested() => {}
            }
        }
    }
}

/// Sends one event, or a batch for one destination, and hands over the results.
fn send(transport: &Rc<dyn Transport>, batch: Vec<Sending>, finished: UnboundedSender<Vec<Finished>>) {
    let transport = transport.clone();
    actix_web::rt::spawn(async move {
        SIZES.observe(batch.len() as f64);
        let events: Vec<_> = batch.iter().map(|sending| &sending.outgoing).collect();
        let (spans, current) = tracing::sending(&events);
        let results = current.scope(transport.send_batch(&events)).await;
        for (mut span, result) in spans.into_iter().zip(&results) {
            if let Err(error) = result {
                span.record(|span| span.fail(error.kind()));
            }
        }
        let results = batch.into_iter().zip(results).map(|(sending, result)| Finished { sending, result });
        // This cannot fail, because the relay receives until the last send has ended.
        finished.send(results.collect()).unwrap_or_default();
    });
}
