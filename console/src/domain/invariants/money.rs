//! Invariants of charges and of the ledger.

use std::collections::BTreeMap;

use serde_json::Value;

use super::differences::listed_excess;
use super::snapshot::{Entries, Snapshot};
use super::{Invariant, LATE, PAID, STUCK, UNDONE, amount, int, text};

/// All charges of one order at the card network.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charged {
    pub(super) captured: i64,
    pub(super) refunded: i64,
    /// Authorized, and neither captured nor voided.
    pub(super) held: i64,
    /// The number of captures.
    captures: i64,
}

impl Charged {
    pub(super) fn of(charges: &[&Value]) -> Self {
        charges.iter().fold(Self::default(), |sum, charge| {
            let captured = int(charge, "captured");
            let is_held = captured == 0 && charge["voided"] != true;
            Self {
                captured: sum.captured + captured,
                refunded: sum.refunded + int(charge, "refunded"),
                held: sum.held + if is_held { int(charge, "authorized") } else { 0 },
                captures: sum.captures + int(charge, "times_captured"),
            }
        })
    }

    /// Whether this contradicts the status of an order that is settled, and its `refunds` by payment-service.
    pub(super) fn contradicts(self, order: &Value, refunds: i64) -> Option<String> {
        let total = amount(&order["total"]);
        let right = match text(order, "status") {
            status if PAID.contains(&status) => Self { captured: total, refunded: refunds, held: 0, ..self },
            "refunded" => Self { captured: total, refunded: total, held: 0, ..self },
            // A capture that came too late was refunded.
            status if UNDONE.contains(&status) => {
                Self { captured: self.captured, refunded: self.captured, held: 0, ..self }
            }
            // The outcome is open, but the payment was captured at most once.
            STUCK => Self { captured: self.captured.min(total), captures: self.captures.min(1), ..self },
            _ => return None,
        };
        (self != right).then(|| format!("{self:?} instead of {right:?}"))
    }
}

/// Whether the end of an order contradicts its card.
pub(super) fn contradicts_card(order: &Value, token: &str, charged: Charged) -> Option<String> {
    let (status, reason) = (text(order, "status"), text(order, "reason"));
    let refusal = match token {
        "tok_declined" | "tok_capture_declined" => Some("card_declined"),
        "tok_insufficient_funds" => Some("insufficient_funds"),
        _ => None,
    };
    let has_paid = PAID.contains(&status) || status == "refunded" || charged.captured != 0;
    if refusal.is_some() && has_paid {
        return Some(format!("{} captured", charged.captured));
    }
    let is_right = status != "rejected" || refusal == Some(reason) || LATE.contains(&reason);
    (!is_right).then(|| reason.to_owned())
}

/// Double entry: every sum is 0. The accounts agree with the card network.
pub(super) fn ledger(snapshot: &Snapshot) -> Invariant {
    let balances = balances(snapshot);
    let balance = |name: &str| balances.get(name).copied().unwrap_or(0);
    // A difference that is listed is accounted for.
    let sum = |of: &str| {
        let theirs = snapshot.charges.iter().map(|charge| int(charge, of)).sum::<i64>();
        theirs + listed_excess(snapshot, of)
    };
    let expected = [
        ("sum", int(&snapshot.ledger, "sum"), 0),
        ("sales", balance("sales"), -sum("captured")),
        ("refunds", balance("refunds"), sum("refunded")),
        ("card_network", balance("card_network"), sum("captured") - sum("refunded")),
    ];
    Invariant::new(
        "ledger",
        "the ledger sums to 0 and agrees with the card network",
        expected,
        |(name, is, should)| (is != should).then(|| format!("{name} is {is} instead of {should}")),
    )
}

/// The database stores balances and entries apart. `None` without the entries.
pub(super) fn entries(snapshot: &Snapshot) -> Option<Invariant> {
    let stored = snapshot.entries.as_ref()?;
    let reported = Entries { balances: balances(snapshot), count: int(&snapshot.ledger, "entries") };
    let wrong = (reported != *stored).then(|| format!("{reported:?}, but {stored:?}"));
    let of = usize::try_from(stored.count).unwrap_or_default();
    Some(Invariant::none("entries", "every ledger balance is the sum of its entries", of, wrong.into_iter()))
}

fn balances(snapshot: &Snapshot) -> BTreeMap<String, i64> {
    let mut balances = BTreeMap::new();
    for account in snapshot.ledger["accounts"].as_array().into_iter().flatten() {
        *balances.entry(text(account, "name").to_owned()).or_default() += int(account, "balance");
    }
    balances
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_undone_order_keeps_nothing_and_holds_nothing() {
        let charge = |captured: i64, refunded: i64, voided: bool| {
            let charge =
                json!({ "authorized": 500, "captured": captured, "refunded": refunded, "voided": voided });
            let order = json!({ "status": "cancelled", "total": { "amount": 500 } });
            Charged::of(&[&charge]).contradicts(&order, refunded)
        };
        assert_eq!(charge(0, 0, true), None);
        assert_eq!(charge(500, 500, false), None);
        assert!(charge(0, 0, false).is_some(), "the money is held for ever");
        assert!(charge(500, 400, false).is_some());
    }

    #[test]
    fn a_card_that_declines_never_pays_and_one_that_pays_is_never_declined() {
        let ends = |token: &str, status: &str, reason: &str| {
            let order = json!({ "status": status, "reason": reason });
            contradicts_card(&order, token, Charged::default()).is_none()
        };
        for (token, reason) in [
            ("tok_declined", "card_declined"),
            ("tok_capture_declined", "card_declined"),
            ("tok_insufficient_funds", "insufficient_funds"),
        ] {
            assert!(ends(token, "rejected", reason) && ends(token, "cancelled", ""), "{token}");
            assert!(!ends(token, "confirmed", "") && !ends(token, "refunded", ""), "{token}");
            assert!(ends(token, "rejected", "payment_timeout"), "{token}");
        }
        assert!(!ends("tok_declined", "rejected", "insufficient_funds"));
        assert!(!ends("tok_insufficient_funds", "rejected", "card_declined"));
        assert!(ends("tok_flaky", "confirmed", "") && ends("tok_flaky", "rejected", "payment_unavailable"));
        assert!(!ends("tok_flaky", "rejected", "card_declined"));
        let taken = Charged { captured: 500, refunded: 500, ..Charged::default() };
        let order = json!({ "status": "rejected", "reason": "card_declined" });
        assert!(contradicts_card(&order, "tok_declined", taken).is_some(), "captured, though refunded");
    }
}
