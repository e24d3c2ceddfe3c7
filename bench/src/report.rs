//! The table that `scripts/chaos` and `scripts/upgrade-drill` print at the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::client_log::ClientLog;
use crate::invariants::LATE;
use crate::settled::Settled;

/// What became of the orders of `customers`, what the clients saw, and every invariant.
pub fn print(log: &ClientLog, settled: &Settled, customers: &BTreeSet<String>) {
    let orders = settled.snapshot.orders.iter();
    let ours = orders.filter(|order| order["customer_id"].as_str().is_some_and(|id| customers.contains(id)));
    let mut statuses: BTreeMap<&str, u32> = BTreeMap::new();
    let mut late = 0;
    for order in ours {
        *statuses.entry(order["status"].as_str().unwrap_or_default()).or_default() += 1;
        late += u32::from(order["reason"].as_str().is_some_and(|reason| LATE.contains(&reason)));
    }
    println!();
    for (status, count) in statuses {
        println!("  orders that ended {status:<40} {count:>6}");
    }
    println!("  {:<58} {late:>6}", "of these, rejected for time-out or unavailability");
    for (code, count) in log.refusals() {
        println!("  orders refused with {:<38} {count:>6}", code);
    }
    println!("  {:<58} {:>6}", "cancelled by the customer", log.cancelled.len());
    println!("  {:<58} {:>6}", "refunded in part by the admin", log.refunds.len());
    for (figure, count) in differences(settled) {
        println!("  differences to the card network in what is {figure:<15} {count:>6}");
    }
    println!("  {:<58} {:>6}", "reads", log.reads);
    println!("  {:<58} {:>6}", "failed reads, not retried", log.reads_failed);
    println!("  {:<58} {:>6}", "requests with a key, or that had to be answered", log.requests);
    println!("  {:<58} {:>6}", "of these, failed", log.unanswered + log.unexpected.len());
    println!("  {:<58} {:>6}", "retries", log.retries);
    println!("\n  {:<58} {:>7} {:>6}", "invariant", "checked", "broken");
    for invariant in &settled.invariants {
        let sign = if invariant.holds() { '✓' } else { '✗' };
        println!("{sign} {:<58} {:>7} {:>6}", invariant.promise, invariant.checked, invariant.broken.len());
        for broken in invariant.broken.iter().take(5) {
            println!("    {broken}");
        }
    }
}

/// Prints how many events the transactions of an inbox handled.
pub fn print_batches(database: &str, batches: &BTreeMap<i64, i64>) {
    println!("\n  transactions of the inbox in {database}:");
    for (least, most) in [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32)] {
        let count: i64 = batches.range(least..=most).map(|(_, count)| count).sum();
        println!("  {:<58} {count:>6}", format!("with {least} to {most} events"));
    }
}

/// The number of listed differences, by figure.
fn differences(settled: &Settled) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    for difference in &settled.snapshot.differences {
        *counts.entry(difference["figure"].as_str().unwrap_or_default()).or_default() += 1;
    }
    counts
}
