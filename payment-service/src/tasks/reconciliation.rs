//! Compares the card network's statement with the books, at the start and once in a while.
//!
//! ```text
//! page of payments ─► page of the statement ─► the payments again ─► differences
//! ```
//!
//! A payment that changed in the meantime is left to the next time; one that is under way may have either
//! figure. Every replica does this: the result is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use shared::db::{DbError, Tx};
use shared::metrics::Readings;
use shared::stop::Stop;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clients::card_network::{CardNetwork, StatementError, charge_key, payment_of};
use crate::domain::{AmountKind, Charge, Difference, Payment};
use crate::store::Store;

const PAGE: usize = 500;
/// The interval between two counts of the open differences, which other replicas find too.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a comparison that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// The values for `/metrics`. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicI64,
    /// The sum of all balances of the ledger.
    sum: AtomicI64,
    /// Unix time of the last comparison that succeeded.
    succeeded_at: AtomicI64,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Compares every `interval`, until `stop`.
pub async fn run(store: Store, network: CardNetwork, interval: Duration, progress: Progress, stop: Stop) {
    let mut due = Instant::now();
    while !stop.is_requested() {
        if Instant::now() >= due {
            due = Instant::now() + interval;
            let reconciled = tokio::select! {
                reconciled = reconcile(&store, &network, PAGE) => reconciled,
                () = stop.requested() => return,
            };
            match reconciled {
                Ok(()) => progress.0.succeeded_at.store(store.db().now().unix_timestamp(), Ordering::Relaxed),
                Err(error) => {
                    log::warn!(error:%; "the statement of the card network cannot be compared");
                    due = Instant::now() + RETRY_PAUSE.min(interval);
                }
            }
        }
        match store.count_open_differences().await {
            Ok(open) => progress.0.open.store(open, Ordering::Relaxed),
            Err(error) => log::warn!(error:%; "the differences cannot be counted"),
        }
        match store.ledger().await {
            Ok(ledger) => progress.0.sum.store(ledger.sum(), Ordering::Relaxed),
            Err(error) => log::warn!(error:%; "the ledger cannot be summed"),
        }
        stop.sleep(COUNT_INTERVAL.min(due - Instant::now())).await;
    }
}

/// Compares all payments and charges, `page` of each at a time, and records each difference that is found or gone.
pub async fn reconcile(store: &Store, network: &CardNetwork, page: usize) -> Result<(), Failure> {
    let known = store.open_differences().await?;
    let (mut found, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    let (mut last_payment, mut last_key) = (None, None);
    loop {
        let mut before = store.payments_after(last_payment, page).await?;
        let mut charges = network.statement(last_key.as_deref(), page).await?;
        let end = end_of_page(&before, &charges, page);
        if let Some(end) = &end {
            before.retain(|payment| charge_key(payment.id) <= *end);
            charges.retain(|key, _| key <= end);
        }
        let versions: BTreeMap<_, _> = before.iter().map(|payment| (payment.id, payment.version)).collect();
        let ids = versions.keys().copied().chain(charges.keys().filter_map(|key| payment_of(key))).collect();
        let mut differences: Vec<(String, Option<Uuid>, Difference)> = Vec::new();
        for payment in store.payments_of(&ids).await? {
            let key = charge_key(payment.id);
            let charge = charges.remove(&key);
            if versions.get(&payment.id) == Some(&payment.version) {
                let differing = payment.differences(charge.as_ref()).into_iter();
                differences.extend(differing.map(|differs| (key.clone(), Some(payment.id), differs)));
            } else {
                skipped.insert(key);
            }
        }
        for (key, charge) in charges {
            differences.extend(
                charge.differences_without_payment().into_iter().map(|differs| (key.clone(), None, differs)),
            );
        }
        found.extend(differences.iter().map(|(key, _, differs)| (key.clone(), differs.figure)));
        if !differences.is_empty() {
            let write = async |tx: &mut Tx| {
                store.write_differences(tx, &differences);
                Ok::<_, DbError>(())
            };
            store.db().transaction(write).await?;
        }
        if end.is_none() {
            break;
        }
        (last_payment, last_key) = (before.last().map(|payment| payment.id).or(last_payment), end);
    }
    let gone: BTreeSet<(String, AmountKind)> =
        known.difference(&found).filter(|(key, _)| !skipped.contains(key)).cloned().collect();
    if !gone.is_empty() {
        store.db().transaction(async |tx| store.resolve_differences(tx, &gone).await).await?;
    }
    Ok(())
}

/// The last key that both lists cover, of which each ends at `page` items; `None` if both have ended.
fn end_of_page(payments: &[Payment], charges: &BTreeMap<String, Charge>, page: usize) -> Option<String> {
    let payment = payments.last().filter(|_| payments.len() >= page).map(|payment| charge_key(payment.id));
    let charge = charges.keys().next_back().filter(|_| charges.len() >= page).cloned();
    payment.into_iter().chain(charge).min()
}

impl Progress {
    pub fn measure(&self, readings: &mut Readings) {
        let tell = |value: &AtomicI64| value.load(Ordering::Relaxed) as f64;
        let help = "Figures in which the card network contradicts our books.";
        readings.gauge("payment_differences", help, &[], tell(&self.0.open));
        let help = "Sum of all balances: anything but 0 is a bookkeeping error.";
        readings.gauge("ledger_sum", help, &[], tell(&self.0.sum));
        let help =
            "When the statement of the card network was compared last; 0 if it was not since the start.";
        readings.gauge("reconciliation_success_timestamp_seconds", help, &[], tell(&self.0.succeeded_at));
    }
}
