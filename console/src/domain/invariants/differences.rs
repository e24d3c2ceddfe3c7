//! What the card network took and gave back, against what payment-service asked for: where they differ, the
//! service must say so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::snapshot::Snapshot;
use super::{Invariant, amount, int, text};

const CAPTURED: [&str; 3] = ["captured", "partially_refunded", "refunded"];
const SETTLED: [&str; 6] = ["authorized", "captured", "declined", "voided", "partially_refunded", "refunded"];

/// Key of the charge, figure, ours, theirs.
type Difference = (String, String, i64, i64);

/// The service lists every difference, and nothing else.
pub(super) fn differences(snapshot: &Snapshot) -> Invariant {
    let (listed, found) = (listed(snapshot), found(snapshot));
    let wrong = listed.symmetric_difference(&found).map(|difference| {
        let what = if listed.contains(difference) { "does not exist" } else { "is hidden" };
        let (key, figure, ours, theirs) = difference;
        format!("{figure} of {key}, {ours} here and {theirs} there, {what}")
    });
    Invariant::none(
        "differences",
        "each difference to the card network is listed, and no other",
        snapshot.charges.len(),
        wrong,
    )
}

/// The orders with a listed difference.
pub(super) fn orders_with_difference(snapshot: &Snapshot) -> BTreeSet<&str> {
    let named: BTreeSet<_> = snapshot.differences.iter().map(|one| text(one, "payment_id")).collect();
    let payments = snapshot.payments.iter().filter(|payment| named.contains(text(payment, "id")));
    payments.map(|payment| text(payment, "order_id")).collect()
}

/// Our books minus those of the card network, summed over the listed differences of a figure.
pub(super) fn listed_excess(snapshot: &Snapshot, figure: &str) -> i64 {
    let of = snapshot.differences.iter().filter(|one| text(one, "figure") == figure);
    of.map(|one| amount(&one["ours"]) - amount(&one["theirs"])).sum()
}

fn listed(snapshot: &Snapshot) -> BTreeSet<Difference> {
    let difference = |one: &Value| {
        let (ours, theirs) = (amount(&one["ours"]), amount(&one["theirs"]));
        (text(one, "key").to_owned(), text(one, "figure").to_owned(), ours, theirs)
    };
    snapshot.differences.iter().map(difference).collect()
}

/// The differences of settled payments, and of charges without a payment.
fn found(snapshot: &Snapshot) -> BTreeSet<Difference> {
    let key = |payment: &Value| format!("{}-authorize", text(payment, "id"));
    let payments: BTreeMap<_, _> = snapshot.payments.iter().map(|payment| (key(payment), payment)).collect();
    let charges: BTreeMap<_, _> =
        snapshot.charges.iter().map(|charge| (text(charge, "key").to_owned(), charge)).collect();
    let keys: BTreeSet<_> = payments.keys().chain(charges.keys()).collect();
    let mut found = BTreeSet::new();
    for key in keys {
        let (payment, charge) = (payments.get(key).copied(), charges.get(key).copied());
        if payment.is_some_and(|payment| !SETTLED.contains(&text(payment, "status"))) {
            continue;
        }
        for (figure, ours, theirs) in [
            ("held", payment.map_or(0, held), charge.map_or(0, held_there)),
            ("captured", payment.map_or(0, captured), charge.map_or(0, |charge| int(charge, "captured"))),
            ("refunded", payment.map_or(0, refunded), charge.map_or(0, |charge| int(charge, "refunded"))),
        ] {
            if ours != theirs {
                found.insert((key.clone(), figure.to_owned(), ours, theirs));
            }
        }
    }
    found
}

fn held(payment: &Value) -> i64 {
    if text(payment, "status") == "authorized" { amount(&payment["amount"]) } else { 0 }
}

fn captured(payment: &Value) -> i64 {
    if CAPTURED.contains(&text(payment, "status")) { amount(&payment["amount"]) } else { 0 }
}

fn refunded(payment: &Value) -> i64 {
    amount(&payment["refunded"])
}

fn held_there(charge: &Value) -> i64 {
    if int(charge, "captured") == 0 && charge["voided"] != true { int(charge, "authorized") } else { 0 }
}
