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
//! A job may run twice: on a replica that was paused, and on the one that took over. The card network
//! recognises both by their idempotency key, and only one of the two responses is recorded.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{FusedFuture as _, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use shared::db::{DbError, Tx};
use shared::stop::Stop;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::clients::card_network::{Answer, CardNetwork, charge_key};
use crate::config::Timing;
use crate::domain::{Change, Charge, NetworkResponse};
use crate::store::{Job, Recorded, Store};

/// Jobs of one replica.
const MAX_CONCURRENT: usize = 64;

pub struct NetworkWorker {
    store: Store,
    network: CardNetwork,
    timing: Timing,
    leased: UnboundedReceiver<Job>,
}

impl NetworkWorker {
    /// `leased` is the receiver that [`Store::new`] returned.
    pub fn new(store: Store, leased: UnboundedReceiver<Job>, network: CardNetwork, timing: Timing) -> Self {
        Self { store, network, timing, leased }
    }

    /// Runs until the service stops, and then finishes the jobs that it has begun.
    pub async fn run(mut self, stop: Stop) {
        let (store, network, timing) = (self.store, self.network, self.timing);
        let mut running = FuturesUnordered::new();
        // Claims while the jobs run: the claim may wait for a connection that a job holds.
        let mut claiming = pin!(claim(&store, MAX_CONCURRENT).fuse());
        let mut next_poll = Instant::now() + timing.poll;
        while !stop.is_requested() {
            let free = MAX_CONCURRENT.saturating_sub(running.len());
            tokio::select! {
                () = stop.requested() => {}
                Some(job) = self.leased.recv(), if free > 0 => {
                    running.push(carry_out(&store, &network, &timing, job));
                }
                Some(recorded) = running.next() => {
                    if let Recorded::More(due) = recorded {
                        next_poll = next_poll.min(instant_of(due - store.db().now()));
                    }
                }
                jobs = &mut claiming => {
                    running.extend(jobs.into_iter().map(|job| carry_out(&store, &network, &timing, job)));
                }
                () = tokio::time::sleep_until(next_poll), if free > 0 && claiming.is_terminated() => {
                    next_poll = Instant::now() + timing.poll;
                    claiming.set(claim(&store, free).fuse());
                }
            }
        }
        while running.next().await.is_some() {}
    }
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

async fn carry_out(store: &Store, network: &CardNetwork, timing: &Timing, job: Job) -> Recorded {
    let id = job.payment.id.to_string();
    if store.db().now() >= job.leased_until {
        return Recorded::Fenced;
    }
    let Answer { response, charge } = network.send(&job).await;
    let logged = format!("{response:?}");
    match record(store, timing, &job, response, charge).await {
        Ok(recorded) => {
            log::info!(payment = id, response = logged, recorded:?; "card network request");
            recorded
        }
        Err(error) => {
            log::warn!(payment = id, response = logged, error:%; "a response cannot be recorded");
            Recorded::Fenced
        }
    }
}

async fn record(
    store: &Store,
    timing: &Timing,
    job: &Job,
    response: NetworkResponse,
    charge: Option<Charge>,
) -> Result<Recorded, DbError> {
    let apply = |response| job.payment.clone().apply_response(response, &timing.timeouts, store.db().now());
    let change = apply(response).or_else(|payment| {
        log::error!(payment = payment.id.to_string(); "a response contradicts the state of the payment");
        apply(NetworkResponse::Failed)
    });
    let Ok(change) = change else { return Ok(Recorded::Fenced) };
    let pause = pause(timing, &change);
    let key = charge_key(job.payment.id);
    let differences = charge.map(|charge| change.payment.differences(Some(&charge))).unwrap_or_default();
    let differences: Vec<_> =
        differences.into_iter().map(|differs| (key.clone(), Some(job.payment.id), differs)).collect();
    let recorded = async |tx: &mut Tx| {
        let recorded = store.record(tx, job, &change, pause).await?;
        if recorded != Recorded::Fenced {
            store.write_differences(tx, &differences).await?;
        }
        Ok(recorded)
    };
    store.db().transaction(recorded).await
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
