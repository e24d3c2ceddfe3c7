//! Waits until a stack has settled: every invariant holds, and nothing changes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::client_log::ClientLog;
use crate::deployment::Deployment;
use crate::invariants::snapshot::Snapshot;
use crate::invariants::{Invariant, check};
use crate::snapshot;

const POLL: Duration = Duration::from_millis(500);
/// Longer than any lease, also that of a replica in the registry (15 s), and than the broker waits before
/// it sends a message again (5 s): work that a dead replica had begun is taken up by then.
const STABLE_TIME: Duration = Duration::from_secs(16);

/// A stack that has settled, or has not in time.
pub struct Settled {
    /// How long it took until everything held.
    pub after: Duration,
    pub snapshot: Snapshot,
    pub invariants: Vec<Invariant>,
}

/// Takes snapshots until every invariant holds, for `timeout` at most; if they do, takes another one after
/// every lease has expired. `None` if no snapshot can be taken.
pub async fn wait_until_settled(
    deployment: &Deployment,
    log: &ClientLog,
    customers: &BTreeSet<String>,
    timeout: Duration,
) -> Option<Settled> {
    let begun = Instant::now();
    loop {
        let snapshot = snapshot::take(deployment).await;
        let after = begun.elapsed();
        let settled = snapshot.map(|snapshot| {
            let invariants = check(&snapshot, log, customers);
            Settled { after, snapshot, invariants }
        });
        match settled {
            Some(settled) if settled.holds() => {
                tokio::time::sleep(STABLE_TIME).await;
                let snapshot = snapshot::take(deployment).await?;
                let mut invariants = check(&snapshot, log, customers);
                invariants.push(unchanged(&settled.snapshot, &snapshot));
                return Some(Settled { after, snapshot, invariants });
            }
            settled if after > timeout => return settled,
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

impl Settled {
    pub fn holds(&self) -> bool {
        self.invariants.iter().all(Invariant::holds)
    }
}

fn unchanged(before: &Snapshot, after: &Snapshot) -> Invariant {
    let (before, after) = (versions(before), versions(after));
    Invariant::new(
        "unchanged",
        "no order and no payment changes in the 16 s after that",
        &before,
        |(id, version)| {
            let now = after.get(*id).copied();
            (now != Some(**version)).then(|| format!("{id} had version {version}, and has {now:?}"))
        },
    )
}

/// Of every order and payment, by id.
fn versions(snapshot: &Snapshot) -> BTreeMap<&str, &Value> {
    let all = snapshot.orders.iter().chain(&snapshot.payments);
    all.filter_map(|one| Some((one["id"].as_str()?, &one["version"]))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_settled_stack_changes_no_order_and_no_payment() {
        let snapshot = |order: i64, payment: i64| Snapshot {
            orders: vec![json!({ "id": "o", "version": order })],
            payments: vec![json!({ "id": "p", "version": payment })],
            ..Snapshot::default()
        };
        assert!(unchanged(&snapshot(3, 5), &snapshot(3, 5)).holds());
        assert!(!unchanged(&snapshot(3, 5), &snapshot(4, 5)).holds());
        assert!(!unchanged(&snapshot(3, 5), &snapshot(3, 6)).holds());
        assert!(!unchanged(&snapshot(3, 5), &Snapshot::default()).holds(), "gone");
    }
}
