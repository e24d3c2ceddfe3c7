//! Until a stack has come to rest, and whether it stays there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::books::Books;
use crate::diary::Diary;
use crate::invariants::{Invariant, check};
use crate::site::Site;

const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// Longer than any lease, also that of a replica in the registry (15 s), and than the broker waits before
/// it sends a message again (5 s): what somebody had begun and left is taken up by then.
const STILL: Duration = Duration::from_secs(16);

/// A stack at rest, or one that has not come to it.
pub struct Rested {
    /// How long it took until everything held.
    pub after: Duration,
    /// What is in the books in the end.
    pub books: Books,
    /// What holds then.
    pub invariants: Vec<Invariant>,
}

/// Reads the books until everything holds, or for so long; if it does, looks again when whoever was still
/// at work must have shown it. `None` if the books cannot be read.
pub async fn at_rest(
    site: &Site,
    diary: &Diary,
    customers: &BTreeSet<String>,
    patience: Duration,
) -> Option<Rested> {
    let begun = Instant::now();
    loop {
        let books = Books::read(site).await;
        let after = begun.elapsed();
        let rested = books.map(|books| {
            let invariants = check(&books, diary, customers);
            Rested { after, books, invariants }
        });
        match rested {
            Some(rested) if rested.holds() => {
                tokio::time::sleep(STILL).await;
                let books = Books::read(site).await?;
                let mut invariants = check(&books, diary, customers);
                invariants.push(unchanged(&rested.books, &books));
                return Some(Rested { after, books, invariants });
            }
            rested if after > patience => return rested,
            _ => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}

impl Rested {
    /// Whether all is as it must be.
    pub fn holds(&self) -> bool {
        self.invariants.iter().all(Invariant::holds)
    }
}

fn unchanged(before: &Books, after: &Books) -> Invariant {
    let (before, after) = (versions(before), versions(after));
    Invariant::new(
        "unchanged",
        "and 16 s later no order and no payment had changed",
        &before,
        |(id, version)| {
            let now = after.get(*id).copied();
            (now != Some(**version)).then(|| format!("{id} had version {version}, and has {now:?}"))
        },
    )
}

/// Of every order and payment, by id.
fn versions(books: &Books) -> BTreeMap<&str, &Value> {
    let all = books.orders.iter().chain(&books.payments);
    all.filter_map(|one| Some((one["id"].as_str()?, &one["version"]))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stack_at_rest_changes_no_order_and_no_payment() {
        let books = |order: i64, payment: i64| Books {
            orders: vec![json!({ "id": "o", "version": order })],
            payments: vec![json!({ "id": "p", "version": payment })],
            ..Books::default()
        };
        assert!(unchanged(&books(3, 5), &books(3, 5)).holds());
        assert!(!unchanged(&books(3, 5), &books(4, 5)).holds());
        assert!(!unchanged(&books(3, 5), &books(3, 6)).holds());
        assert!(!unchanged(&books(3, 5), &Books::default()).holds(), "gone");
    }
}
