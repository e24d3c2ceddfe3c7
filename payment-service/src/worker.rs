//! Carries out at the card network what payments intend.
//!
//! ```text
//!            ┌── leased by this replica's own transactions, at their commit
//! jobs ◄─────┤
//!            └── claimed: due again after a pause, or left behind by a replica that died
//!   │
//!   └─► ask the card network ─► what the payment makes of the answer ─► recorded, unless fenced
//! ```
//!
//! A job may be carried out twice, by a replica that was paused and by the one that took over: the
//! card network knows each operation by its key, and only one of the two answers is recorded.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{FusedFuture as _, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use shared::db::{DbError, now};
use shared::stop::Stop;
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::clients::card_network::CardNetwork;
use crate::config::Timing;
use crate::domain::{Answer, Change};
use crate::store::{Job, Recorded, Store};

/// Jobs carried out at once by one replica.
const AT_ONCE: usize = 64;

/// Carries out jobs.
pub struct Worker {
    store: Store,
    network: CardNetwork,
    timing: Timing,
    leased: UnboundedReceiver<Job>,
}

impl Worker {
    /// A worker for `store`, whose own work arrives at `leased`.
    pub fn new(store: Store, leased: UnboundedReceiver<Job>, network: CardNetwork, timing: Timing) -> Self {
        Self { store, network, timing, leased }
    }

    /// Works until told to stop, and then finishes what it is at.
    pub async fn run(mut self, stop: Stop) {
        let (store, network, timing) = (self.store, self.network, self.timing);
        let mut running = FuturesUnordered::new();
        // Looked for beside the work that runs, not in its place: what runs may hold the connection that
        // looking waits for.
        let mut claiming = pin!(claimed(&store, AT_ONCE).fuse());
        let mut look_at = Instant::now() + timing.poll;
        while !stop.is_requested() {
            let free = AT_ONCE.saturating_sub(running.len());
            tokio::select! {
                () = stop.requested() => {}
                Some(job) = self.leased.recv(), if free > 0 => {
                    running.push(carry_out(&store, &network, &timing, job));
                }
                Some(recorded) = running.next() => {
                    if let Recorded::More(due) = recorded {
                        look_at = look_at.min(instant_of(due));
                    }
                }
                jobs = &mut claiming => {
                    running.extend(jobs.into_iter().map(|job| carry_out(&store, &network, &timing, job)));
                }
                () = tokio::time::sleep_until(look_at), if free > 0 && claiming.is_terminated() => {
                    look_at = Instant::now() + timing.poll;
                    claiming.set(claimed(&store, free).fuse());
                }
            }
        }
        while running.next().await.is_some() {}
    }
}

async fn claimed(store: &Store, limit: usize) -> Vec<Job> {
    store.claim_due(limit as i64).await.unwrap_or_else(|error| {
        log::warn!(error:%; "work that is due cannot be claimed");
        Vec::new()
    })
}

async fn carry_out(store: &Store, network: &CardNetwork, timing: &Timing, job: Job) -> Recorded {
    let id = job.payment.id.to_string();
    if now() >= job.leased_until {
        return Recorded::Fenced;
    }
    let answer = network.ask(&job).await;
    let said = format!("{answer:?}");
    match record(store, timing, &job, answer).await {
        Ok(recorded) => {
            log::info!(payment = id, said, recorded:?; "the card network was asked");
            recorded
        }
        Err(error) => {
            log::warn!(payment = id, said, error:%; "an answer cannot be recorded");
            Recorded::Fenced
        }
    }
}

async fn record(store: &Store, timing: &Timing, job: &Job, answer: Answer) -> Result<Recorded, DbError> {
    let hears = |answer| job.payment.clone().hears(answer, &timing.patience, now());
    let change = hears(answer).or_else(|payment| {
        log::error!(payment = payment.id.to_string(); "the card network contradicts what is known");
        hears(Answer::Failed)
    });
    match change {
        Ok(change) => store.record(job, change.clone(), pause(timing, &change)).await,
        Err(_) => Ok(Recorded::Fenced),
    }
}

fn pause(timing: &Timing, change: &Change) -> Duration {
    match u32::try_from(change.payment.attempts).unwrap_or(u32::MAX) {
        0 => Duration::ZERO,
        attempts => timing.backoff.delay(attempts),
    }
}

fn instant_of(due: OffsetDateTime) -> Instant {
    Instant::now() + Duration::try_from(due - now()).unwrap_or_default()
}
