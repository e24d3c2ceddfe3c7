//! Waits until a stack has settled: every invariant holds, and nothing changes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
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
    let mut settled = wait_until_all_holds(deployment, log, customers, timeout).await?;
    if settled.holds() {
        tokio::time::sleep(STABLE_TIME).await;
        let snapshot = snapshot::take(deployment).await?;
        let before = versions(&settled.snapshot);
        settled.invariants = check(&snapshot, log, customers);
        settled.invariants.push(unchanged(&before, &versions(&snapshot)));
    }
    Some(settled)
}

/// Takes snapshots until every invariant holds, for `timeout` at most, and compares with the versions that an earlier call
/// has written to `file`: none may have changed since. Then writes its own. So a row of tests need not wait for the leases
/// of each.
pub async fn wait_and_compare(
    deployment: &Deployment,
    log: &ClientLog,
    customers: &BTreeSet<String>,
    timeout: Duration,
    file: &Path,
) -> Option<Settled> {
    let mut settled = wait_until_all_holds(deployment, log, customers, timeout).await?;
    let now = versions(&settled.snapshot);
    let logged = |error: &dyn std::fmt::Display| eprintln!("{}: {error}", file.display());
    let before: Versions = match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).inspect_err(|error| logged(error)).ok()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Versions::new(),
        Err(error) => {
            logged(&error);
            return None;
        }
    };
    settled.invariants.push(unchanged(&before, &now));
    settled.invariants.push(late(&before, &settled.snapshot, customers));
    let text = serde_json::to_vec(&now).ok()?;
    std::fs::write(file, text).inspect_err(|error| logged(error)).ok()?;
    Some(settled)
}

async fn wait_until_all_holds(
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
            Some(settled) if settled.holds() => return Some(settled),
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

fn unchanged(before: &Versions, now: &Versions) -> Invariant {
    Invariant::new("unchanged", "no order and no payment changes after that", before, |(id, version)| {
        let now = now.get(*id);
        (now != Some(*version)).then(|| format!("{id} had version {version}, and has {now:?}"))
    })
}

/// `before` is empty if there was no load before.
fn late(before: &Versions, snapshot: &Snapshot, customers: &BTreeSet<String>) -> Invariant {
    let orders = snapshot.orders.iter().filter(|_| !before.is_empty());
    Invariant::new("late", "no order of an earlier load appears after that", orders, |order| {
        let [id, customer] = ["id", "customer_id"].map(|name| order[name].as_str().unwrap_or_default());
        let is_known = before.contains_key(id) || customers.contains(customer);
        (!is_known).then(|| format!("order {id} of customer {customer}"))
    })
}

/// The versions of every order and payment, by id.
type Versions = BTreeMap<String, Value>;

fn versions(snapshot: &Snapshot) -> Versions {
    let all = snapshot.orders.iter().chain(&snapshot.payments);
    all.filter_map(|one| Some((one["id"].as_str()?.to_owned(), one["version"].clone()))).collect()
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
        let unchanged = |before: Snapshot, now: Snapshot| unchanged(&versions(&before), &versions(&now));
        assert!(unchanged(snapshot(3, 5), snapshot(3, 5)).holds());
        assert!(!unchanged(snapshot(3, 5), snapshot(4, 5)).holds());
        assert!(!unchanged(snapshot(3, 5), snapshot(3, 6)).holds());
        assert!(!unchanged(snapshot(3, 5), Snapshot::default()).holds(), "gone");
    }

    #[test]
    fn an_order_of_an_earlier_load_that_appears_late_is_found() {
        let order = |id: &str, customer: &str| json!({ "id": id, "version": 1, "customer_id": customer });
        let snapshot = |orders: Vec<Value>| Snapshot { orders, ..Snapshot::default() };
        let before = versions(&snapshot(vec![order("a", "earlier")]));
        let customers = BTreeSet::from(["now".to_owned()]);
        let late = |id: &str, customer: &str| {
            late(&before, &snapshot(vec![order("a", "earlier"), order(id, customer)]), &customers)
        };
        assert!(late("b", "now").holds());
        assert!(!late("b", "earlier").holds());
    }
}
