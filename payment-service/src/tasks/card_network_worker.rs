//! Carries out the intents of payments at the card network.
//!
//! ```text
//!            ┌── leased by this replica's own transactions, at their commit
//! jobs ◄─────┤
//!            └── claimed: due again after a pause, or left by a replica that died
//!   │
//!   └─► request to the card network ─► apply the response to the payment ─► record, unless fenced
//! ```
//!
//! While a transaction records responses, new responses wait. The next transaction records all of them. If it fails,
//! each response is recorded alone: again and again while the database is unavailable or the row is locked, until the
//! lease has expired. Meanwhile, other responses are recorded.
//!
//! A job may run twice: if its lease expires before its response is recorded, another replica takes over. The card
//! network recognises the second request by its idempotency key. (A void has none, because it is idempotent.) Only one
//! of the two responses is recorded.

use std::cell::Cell;
use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Fuse, FusedFuture as _, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use shared::db::{CommitDelay, DbError, Tx};
use shared::stop::Stop;
use shared::trace::{self, Current, SpanContext};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clients::card_network::{Answer, CardNetwork, charge_key};
use crate::config::Timing;
use crate::domain::{Change, Difference};
use crate::store::{Job, Recorded, Store};

/// At most this many jobs of a replica at a time: reserved for the running claim, running, or with a response that
/// waits to be recorded. Responses that a shared transaction is recording do not count.
const MAX_CONCURRENT: usize = 64;
/// Jobs of one claim. A claim may have to wait for the database; meanwhile, there is room for jobs that are leased to this
/// replica.
const MAX_CLAIMED: usize = MAX_CONCURRENT / 2;
/// Responses that are recorded alone at the same time.
const MAX_ALONE: usize = 4;
/// The pause before another attempt to record a response.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub struct CardNetworkWorker {
    store: Store,
    network: CardNetwork,
    timing: Timing,
    leased: UnboundedReceiver<Job>,
}

impl CardNetworkWorker {
    /// `leased` is the receiver that [`Store::new`] returned.
    pub fn new(store: Store, leased: UnboundedReceiver<Job>, network: CardNetwork, timing: Timing) -> Self {
        Self { store, network, timing, leased }
    }

    /// Runs until the service stops, and then finishes the jobs that are leased to this replica.
    pub async fn run(mut self, stop: Stop) {
        let (store, network, timing) = (self.store, self.network, self.timing);
        let (mut running, mut answered) = (FuturesUnordered::new(), Vec::new());
        // These run while other jobs run: they may wait for the database.
        let mut claiming = pin!(claim(&store, MAX_CLAIMED).fuse());
        // How many jobs the running claim may bring.
        let mut claim_limit = MAX_CLAIMED;
        let mut recording = pin!(Fuse::terminated());
        let (permits, is_given_up) = (Semaphore::new(MAX_ALONE), Cell::new(false));
        let mut recording_alone = FuturesUnordered::new();
        let (mut next_poll, mut delay) = (Instant::now() + timing.poll, CommitDelay::new(store.db()));
        loop {
            if recording.is_terminated() && !answered.is_empty() && (delay.is_over() || stop.is_requested()) {
                delay.started(answered.len());
                recording.set(record(&store, &timing, std::mem::take(&mut answered)).fuse());
            }
            let is_idle = running.is_empty() && recording_alone.is_empty() && self.leased.is_empty();
            if stop.is_requested() && is_idle && recording.is_terminated() && claiming.is_terminated() {
                return;
            }
            let taken = claim_limit + running.len() + answered.len() + recording_alone.len();
            let free = MAX_CONCURRENT.saturating_sub(taken);
            let claims = free > 0 && !stop.is_requested() && claiming.is_terminated();
            tokio::select! {
                () = stop.requested(), if !stop.is_requested() => {}
                Some(job) = self.leased.recv(), if free > 0 => running.push(ask(&store, &network, job)),
                Some(answer) = running.next() => {
                    answered.extend(answer);
                    while let Some(Some(answer)) = running.next().now_or_never() {
                        answered.extend(answer);
                    }
                }
                () = delay.wait(), if recording.is_terminated() && !answered.is_empty() => {}
                (recorded, failed) = &mut recording => {
                    delay.ended();
                    next_poll = next_poll.min(when_due(&store, &recorded).unwrap_or(next_poll));
                    let alone = |write| record_alone(&store, &permits, &stop, &is_given_up, write);
                    recording_alone.extend(failed.into_iter().map(alone));
                }
                Some(recorded) = recording_alone.next() => {
                    next_poll = next_poll.min(when_due(&store, &recorded).unwrap_or(next_poll));
                }
                jobs = &mut claiming => {
                    if jobs.len() == claim_limit {
                        // There may be more.
                        next_poll = Instant::now();
                    }
                    claim_limit = 0;
                    running.extend(jobs.into_iter().map(|job| ask(&store, &network, job)));
                }
                () = tokio::time::sleep_until(next_poll), if claims => {
                    next_poll = Instant::now() + timing.poll;
                    claim_limit = free.min(MAX_CLAIMED);
                    claiming.set(claim(&store, claim_limit).fuse());
                }
            }
        }
    }
}

/// A job, and the response of the card network.
struct Answered {
    job: Job,
    answer: Answer,
}

async fn claim(store: &Store, limit: usize) -> Vec<Job> {
    let claimed = async {
        match store.has_due().await? {
            true => store.db().transaction(async |tx| store.claim_due(tx, limit as i64).await).await,
            false => Ok(Vec::new()),
        }
    };
    claimed.await.unwrap_or_else(|error: DbError| {
        log::warn!(error:%; "due work cannot be claimed");
        Vec::new()
    })
}

/// The trace of the message or request that caused the job.
fn trace_of(job: &Job) -> Current {
    let cause = job.traceparent.as_deref().and_then(|traceparent| trace::parse(traceparent, None));
    Current::new(None, cause.unwrap_or(SpanContext::NONE))
}

/// `None` if the lease has expired.
async fn ask(store: &Store, network: &CardNetwork, job: Job) -> Option<Answered> {
    if store.db().now() >= job.leased_until {
        return None;
    }
    let answer = trace_of(&job).scope(network.send(&job)).await;
    Some(Answered { job, answer })
}

/// A change to write, with the differences between the books and the card network.
struct Write {
    job: Job,
    /// The response as text, for the log.
    response: String,
    change: Change,
    pause: Duration,
    differences: Vec<(String, Option<Uuid>, Difference)>,
}

/// Records the answers, or returns them all as failed.
async fn record(store: &Store, timing: &Timing, answered: Vec<Answered>) -> (Vec<Recorded>, Vec<Write>) {
    let mut writes: Vec<_> =
        answered.into_iter().map(|answered| apply(timing, answered, store.db().now())).collect();
    // Locks rows in the order of the inbox, so that no two transactions deadlock.
    writes.sort_by_key(|write| write.job.payment.order_id);
    match write_together(store, &writes).await {
        Ok(recorded) => (recorded, Vec::new()),
        Err(error) => {
            log::info!(count = writes.len(), error:%; "each response is recorded alone");
            (Vec::new(), writes)
        }
    }
}

/// Records one answer. While that may succeed later, it is tried again until the lease expires or the service stops:
/// then another replica repeats the request. A service that stops does not wait for an unavailable database once for
/// each answer: `is_given_up` is set by the first.
async fn record_alone(
    store: &Store,
    permits: &Semaphore,
    stop: &Stop,
    is_given_up: &Cell<bool>,
    write: Write,
) -> Vec<Recorded> {
    loop {
        let permit = permits.acquire().await;
        if is_given_up.get() || store.db().now() >= write.job.leased_until {
            not_recorded(&write, &"it took too long");
            return Vec::new();
        }
        let error = match write_together(store, std::slice::from_ref(&write)).await {
            Ok(recorded) => return recorded,
            Err(error) => error,
        };
        drop(permit);
        if stop.is_requested() && matches!(error, DbError::Unavailable(_)) {
            is_given_up.set(true);
        }
        let is_transient = matches!(error, DbError::Unavailable(_) | DbError::Locked(_));
        if !is_transient || stop.is_requested() || store.db().now() + RETRY_PAUSE >= write.job.leased_until {
            not_recorded(&write, &error);
            return Vec::new();
        }
        stop.sleep(RETRY_PAUSE).await;
    }
}

fn not_recorded(write: &Write, why: &dyn Display) {
    let (id, response) = (write.job.payment.id.to_string(), &*write.response);
    let log_it = || log::warn!(payment_id = id, response, error:% = why; "a response cannot be recorded");
    trace_of(&write.job).sync_scope(log_it);
}

/// When the first payment is due again.
fn when_due(store: &Store, recorded: &[Recorded]) -> Option<Instant> {
    let due = |recorded: &Recorded| if let Recorded::DueAgain(due) = recorded { Some(*due) } else { None };
    recorded.iter().filter_map(due).min().map(|due| instant_of(due - store.db().now()))
}

/// Applies an answer to its payment. An answer that contradicts the state of the payment counts as a failure.
fn apply(timing: &Timing, Answered { job, answer }: Answered, now: OffsetDateTime) -> Write {
    let Answer { response, charge } = answer;
    let logged = format!("{response:?}");
    let applied = job.payment.clone().apply_response(response, &timing.timeouts, now);
    let change = applied.unwrap_or_else(|payment| {
        log::error!(payment_id = payment.id.to_string(); "a response contradicts the state of the payment");
        payment.try_again(&timing.timeouts, now)
    });
    let pause = pause(timing, &change);
    let key = charge_key(job.payment.id);
    let differences = charge.map(|charge| change.payment.differences(Some(&charge))).unwrap_or_default();
    let differences =
        differences.into_iter().map(|differs| (key.clone(), Some(job.payment.id), differs)).collect();
    Write { response: logged, change, pause, differences, job }
}

/// Writes all changes in one transaction, except those of fenced jobs.
async fn write_together(store: &Store, writes: &[Write]) -> Result<Vec<Recorded>, DbError> {
    // The transaction is in the trace of the first, and linked to the others.
    let mut traces = writes.iter().map(|write| trace_of(&write.job));
    let Some(first) = traces.next() else { return Ok(Vec::new()) };
    // A locked row holds up the others only for a moment.
    let written = store.db().transaction_with_short_lock_timeout(async |tx: &mut Tx| {
        tx.link(traces.map(|trace| trace.context().clone()).filter(SpanContext::is_valid));
        let mut written = Vec::with_capacity(writes.len());
        for Write { job, change, pause, differences, .. } in writes {
            let record = async {
                let recorded = store.record(tx, job, change, *pause).await?;
                if recorded != Recorded::Fenced {
                    store.write_differences(tx, differences);
                }
                Ok::<_, DbError>(recorded)
            };
            written.push(trace_of(job).scope(record).await?);
        }
        Ok::<_, DbError>(written)
    });
    let written = first.scope(written).await?;
    for (Write { job, response, .. }, recorded) in writes.iter().zip(&written) {
        let log_it = || {
            let id = job.payment.id.to_string();
            log::info!(payment_id = id, response, outcome:? = recorded; "card network request");
        };
        trace_of(job).sync_scope(log_it);
    }
    Ok(written)
}

fn pause(timing: &Timing, change: &Change) -> Duration {
    match u32::try_from(change.payment.attempts).unwrap_or(u32::MAX) {
        0 => Duration::ZERO,
        attempts => timing.backoff.delay(attempts),
    }
}

fn instant_of(pause: time::Duration) -> Instant {
    Instant::now() + Duration::try_from(pause).unwrap_or_default()
}
