//! What must hold in a stack that has settled, whatever happened to it before.

pub mod client_log; // what clients were answered
mod differences; // between payment-service and the card network
mod money; // what cards paid, and the ledger says
pub mod snapshot; // the state of every part of the stack

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::client_log::ClientLog;
use self::differences::{differences, orders_with_difference};
use self::money::{Charged, contradicts_card, entries, ledger};
use self::snapshot::Snapshot;

#[derive(Debug)]
pub struct Invariant {
    pub name: &'static str,
    pub promise: &'static str,
    /// The number of orders, charges, products and so on that were checked.
    pub checked: usize,
    /// Each violation, in words.
    pub broken: Vec<String>,
}

impl Invariant {
    pub fn new<T>(
        name: &'static str,
        promise: &'static str,
        all: impl IntoIterator<Item = T>,
        wrong: impl Fn(&T) -> Option<String>,
    ) -> Self {
        let (mut checked, mut broken) = (0, Vec::new());
        for one in all {
            checked += 1;
            broken.extend(wrong(&one));
        }
        Self { name, promise, checked, broken }
    }

    /// An invariant that `broken` of `checked` items violate.
    fn none(
        name: &'static str,
        promise: &'static str,
        checked: usize,
        broken: impl Iterator<Item = String>,
    ) -> Self {
        Self { name, promise, checked, broken: broken.collect() }
    }

    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }
}

const PAID: [&str; 3] = ["confirmed", "shipped", "delivered"];
const UNDONE: [&str; 3] = ["rejected", "cancelled", "refunded"];
const STUCK: &str = "needs_attention";
/// Reasons for which an order may be rejected though its card is good: a fault outlasted the checkout's
/// time-out.
pub const LATE: [&str; 2] = ["payment_timeout", "payment_unavailable"];
/// At most one of this number of orders may be rejected for a reason in [`LATE`].
const LATE_SHARE: usize = 20;

/// Checks every invariant, in the whole snapshot. `log` belongs to `customers`, those of this run.
pub fn check(snapshot: &Snapshot, log: &ClientLog, customers: &BTreeSet<String>) -> Vec<Invariant> {
    let orders: BTreeMap<&str, &Value> =
        snapshot.orders.iter().map(|order| (text(order, "id"), order)).collect();
    let status = |id: &str| orders.get(id).map_or("", |order| text(order, "status"));
    let payments: BTreeMap<&str, &Value> =
        snapshot.payments.iter().map(|payment| (text(payment, "order_id"), payment)).collect();
    let refunded = |order: &str| payments.get(order).map_or(0, |payment| amount(&payment["refunded"]));
    let mut charges: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for charge in &snapshot.charges {
        charges.entry(text(charge, "order_id")).or_default().push(charge);
    }
    let charged = |order: &str| Charged::of(charges.get(order).map_or(&[][..], Vec::as_slice));
    let differing = orders_with_difference(snapshot);
    let answered: BTreeSet<&str> = log.orders.values().flatten().map(String::as_str).collect();
    let ours: Vec<&Value> =
        snapshot.orders.iter().filter(|order| customers.contains(text(order, "customer_id"))).collect();

    let invariants = vec![
        Invariant::none(
            "unanswered",
            "every request is answered in the end",
            log.requests,
            (0..log.unanswered).map(|_| "a request was given up".to_owned()),
        ),
        Invariant::none(
            "unexpected",
            "no answer has an unexpected status or code",
            log.requests,
            log.unexpected.iter().cloned(),
        ),
        Invariant::new("lost", "every order that was answered with 201 exists", &answered, |id| {
            (!orders.contains_key(**id)).then(|| format!("order {id} is not there"))
        }),
        Invariant::new("twice", "each idempotency key has one order", &log.orders, |(_, ids)| {
            let different: BTreeSet<_> = ids.iter().collect();
            (different.len() > 1).then(|| format!("one key has the orders {different:?}"))
        }),
        Invariant::new("stray", "every order was answered with 201", &ours, |order| {
            let known = answered.contains(text(order, "id")) || log.unanswered > 0;
            (!known).then(|| format!("no client was answered with order {}", order["id"]))
        }),
        Invariant::new("unsettled", "every order is settled", &snapshot.orders, |order| {
            let status = text(order, "status");
            let is_settled = PAID.contains(&status) || UNDONE.contains(&status) || status == STUCK;
            (!is_settled).then(|| format!("order {} is {status}", order["id"]))
        }),
        Invariant::new("card", "every order ends as its card decides, or times out", &ours, |order| {
            let (id, token) = (text(order, "id"), log.tokens.get(text(order, "id"))?);
            let wrong = contradicts_card(order, token, charged(id))?;
            Some(format!("order {id} of {token} is {}: {wrong}", order["status"]))
        }),
        late(&ours, log.answered()),
        Invariant::new("kept", "every order with an accepted cancellation is undone", &log.cancelled, |id| {
            let undone = UNDONE.contains(&status(id)) || status(id) == STUCK;
            (!undone).then(|| format!("order {id} is {}", status(id)))
        }),
        Invariant::new(
            "charged",
            "captured, refunded and held amounts match the status",
            // A listed difference is accounted for below.
            snapshot.orders.iter().filter(|order| !differing.contains(text(order, "id"))),
            |order| {
                let id = text(order, "id");
                let wrong = charged(id).contradicts(order, refunded(id))?;
                Some(format!("order {id} is {}, and {wrong}", order["status"]))
            },
        ),
        Invariant::new("orphans", "no money is held or kept for an unknown order", &charges, |(id, _)| {
            let Charged { captured, refunded, held, .. } = charged(id);
            let kept = !orders.contains_key(*id) && (captured != refunded || held != 0);
            kept.then(|| format!("{captured} captured, {refunded} refunded, {held} held for {id}"))
        }),
        Invariant::new("overcharged", "no charge is captured twice", &snapshot.charges, |charge| {
            (int(charge, "times_captured") > 1).then(|| format!("key {} was captured again", charge["key"]))
        }),
        Invariant::new("refunds", "refunds match what the admin was answered", &ours, |order| {
            let payment = text(order, "payment_id");
            let (made, answered) =
                (refunded(text(order, "id")), log.refunds.get(payment).copied().unwrap_or(0));
            // What is left of an undone order is refunded too.
            let exactly = PAID.contains(&text(order, "status")) && log.unanswered == 0;
            let wrong = made < answered || exactly && made != answered;
            wrong.then(|| format!("order {}: {made} refunded, {answered} answered", order["id"]))
        }),
        Invariant::new("payments", "every payment is settled", &snapshot.payments, |payment| {
            let is_moving = ["authorizing", "unknown", "refunding"].contains(&text(payment, "status"));
            is_moving.then(|| format!("payment {} is {}", payment["id"], payment["status"]))
        }),
        ledger(snapshot),
        differences(snapshot),
        Invariant::new(
            "stock",
            "on hand + reserved + sold = initial + adjusted",
            &snapshot.stock,
            |product| {
                let now = int(product, "on_hand") + int(product, "reserved") + int(product, "sold");
                (now != int(product, "initial") + int(product, "adjusted")).then(|| product.to_string())
            },
        ),
        sold(snapshot),
        reserved(snapshot),
        Invariant::new("unsent", "every outbox is empty", &snapshot.unsent, |(service, pending)| {
            (*pending != 0).then(|| format!("{service} has {pending} events to send"))
        }),
        Invariant::none(
            "dead",
            "no message is a dead letter",
            orders.len(),
            snapshot.dead_letters.iter().map(|letter| {
                let [kind, id, error] = ["type", "id", "last_error"].map(|field| text(letter, field));
                format!("{kind} {id}: {error}")
            }),
        ),
        Invariant::none(
            "running",
            "no checkout is running",
            orders.len(),
            snapshot.running.iter().map(|saga| {
                format!("order {} is at the step {}", text(saga, "order_id"), text(saga, "step"))
            }),
        ),
        Invariant::new(
            "stuck",
            "every needs_attention order has a last_error",
            needing_attention(snapshot),
            |id| {
                let saga = snapshot.stuck.iter().find(|saga| text(saga, "order_id") == *id);
                let why = saga.map_or("", |saga| text(saga, "last_error"));
                why.is_empty().then(|| format!("order {id} has none"))
            },
        ),
        Invariant::new(
            "unhealthy",
            "every replica of every service is healthy",
            [snapshot.is_healthy],
            |healthy| (!healthy).then(|| "the gateway counts fewer".to_owned()),
        ),
    ];
    invariants.into_iter().chain(entries(snapshot)).collect()
}

/// Orders of stuck checkouts, whatever their status, and orders with the status needs_attention.
fn needing_attention(snapshot: &Snapshot) -> BTreeSet<&str> {
    let orders = snapshot.orders.iter().filter(|order| text(order, "status") == STUCK);
    let sagas = snapshot.stuck.iter().map(|saga| text(saga, "order_id"));
    orders.map(|order| text(order, "id")).chain(sagas).collect()
}

/// Faults may make a few checkouts time out.
fn late(orders: &[&Value], of: usize) -> Invariant {
    let late: Vec<_> = orders.iter().filter(|order| LATE.contains(&text(order, "reason"))).collect();
    let broken = late.iter().filter(|_| LATE_SHARE * late.len() > of);
    let reasons = broken.map(|order| format!("order {}: {}", order["id"], order["reason"]));
    Invariant::none("late", "at most 5 % are rejected for time-out or unavailability", of, reasons)
}

/// The goods of an order that needs attention are reserved or released, not sold.
fn sold(snapshot: &Snapshot) -> Invariant {
    let paid = goods(snapshot, &PAID);
    Invariant::new("sold", "goods sold match the confirmed and later orders", &snapshot.stock, |product| {
        let (is, should) = (int(product, "sold"), of(&paid, product));
        (is != should).then(|| format!("{is} of {} instead of {should}", product["product_id"]))
    })
}

fn reserved(snapshot: &Snapshot) -> Invariant {
    let stuck = goods(snapshot, &[STUCK]);
    Invariant::new(
        "reserved",
        "only needs_attention orders have goods reserved",
        &snapshot.stock,
        |product| {
            let (is, most) = (int(product, "reserved"), of(&stuck, product));
            (!(0..=most).contains(&is)).then(|| format!("{is} of {}, at most {most}", product["product_id"]))
        },
    )
}

/// The quantity of each product in the orders of these statuses.
fn goods<'a>(snapshot: &'a Snapshot, statuses: &[&str]) -> BTreeMap<&'a str, i64> {
    let mut goods = BTreeMap::new();
    let counted = snapshot.orders.iter().filter(|order| statuses.contains(&text(order, "status")));
    for line in counted.flat_map(|order| order["lines"].as_array()).flatten() {
        *goods.entry(text(line, "product_id")).or_default() += int(line, "quantity");
    }
    goods
}

fn of(goods: &BTreeMap<&str, i64>, product: &Value) -> i64 {
    goods.get(text(product, "product_id")).copied().unwrap_or(0)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn int(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_default()
}

fn amount(money: &Value) -> i64 {
    int(money, "amount")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::invariants::snapshot::Entries;

    /// One order, confirmed and paid.
    fn consistent() -> Snapshot {
        Snapshot {
            orders: vec![json!({
                "id": "o", "customer_id": "c", "status": "confirmed", "payment_id": "p",
                "lines": [{ "product_id": "tea", "quantity": 2 }], "total": { "amount": 500, "currency": "EUR" },
            })],
            payments: vec![json!({
                "id": "p", "order_id": "o", "status": "partially_refunded", "amount": { "amount": 500 },
                "refunded": { "amount": 100 },
            })],
            differences: Vec::new(),
            charges: vec![json!({
                "key": "p-authorize", "order_id": "o", "authorized": 500, "captured": 500, "refunded": 100,
                "voided": false, "times_captured": 1,
            })],
            ledger: json!({ "sum": 0, "entries": 4, "accounts": [
                { "name": "card_network", "balance": 400 }, { "name": "refunds", "balance": 100 },
                { "name": "sales", "balance": -500 },
            ] }),
            entries: Some(Entries {
                balances: [("card_network", 400), ("refunds", 100), ("sales", -500)]
                    .map(|(account, balance)| (account.to_owned(), balance))
                    .into(),
                count: 4,
            }),
            stock: vec![json!({
                "product_id": "tea", "on_hand": 8, "reserved": 0, "sold": 2, "initial": 10, "adjusted": 0,
            })],
            unsent: vec![("order-service".to_owned(), 0)],
            dead_letters: Vec::new(),
            running: Vec::new(),
            stuck: Vec::new(),
            is_healthy: true,
        }
    }

    fn client_log() -> ClientLog {
        let refunds = [("p".to_owned(), 100)].into();
        let mut log = ClientLog { refunds, ..ClientLog::default() };
        log.placed(0, "tok_visa", "o");
        log
    }

    fn reject(snapshot: &mut Snapshot, reason: &str) {
        snapshot.orders[0]["status"] = "rejected".into();
        snapshot.orders[0]["reason"] = reason.into();
    }

    /// Makes the saga of the order stuck, with reserved goods and a last error.
    fn need_attention(snapshot: &mut Snapshot) {
        snapshot.orders[0]["status"] = STUCK.into();
        snapshot.stuck.push(json!({ "order_id": "o", "step": "capture", "last_error": "no answer" }));
        snapshot.stock[0]["reserved"] = snapshot.stock[0]["sold"].take();
        snapshot.stock[0]["sold"] = 0.into();
    }

    fn broken(snapshot: &Snapshot, log: &ClientLog) -> Vec<&'static str> {
        let checked = check(snapshot, log, &["c".to_owned()].into());
        checked.iter().filter(|invariant| !invariant.holds()).map(|invariant| invariant.name).collect()
    }

    #[test]
    fn a_consistent_snapshot_breaks_nothing() {
        assert!(broken(&consistent(), &client_log()).is_empty());
    }

    #[test]
    fn an_order_that_needs_attention_and_has_a_last_error_breaks_nothing() {
        let mut snapshot = consistent();
        need_attention(&mut snapshot);
        assert!(broken(&snapshot, &client_log()).is_empty());
    }

    /// A difference of one cent in the captured amount.
    fn one_cent() -> Value {
        json!({
            "key": "p-authorize", "payment_id": "p", "figure": "captured",
            "ours": { "amount": 500 }, "theirs": { "amount": 499 },
        })
    }

    #[test]
    fn another_amount_at_the_card_network_breaks_nothing_if_it_is_listed() {
        let mut snapshot = consistent();
        snapshot.charges[0]["captured"] = 499.into();
        assert_eq!(broken(&snapshot, &client_log()), ["charged", "ledger", "differences"]);
        snapshot.differences.push(one_cent());
        assert!(broken(&snapshot, &client_log()).is_empty());
    }

    #[test]
    fn each_inconsistency_breaks_the_invariants_that_forbid_it() {
        type Harm = fn(&mut Snapshot, &mut ClientLog);
        let harms: [(&[&str], Harm); 36] = [
            (&["unanswered"], |_, log| log.unanswered = 1),
            (&["unexpected"], |_, log| log.unexpected.push("forbidden".to_owned())),
            (&["lost", "orphans", "sold"], |snapshot, _| snapshot.orders.clear()),
            (&["lost", "twice"], |_, log| log.placed(0, "tok_visa", "another")),
            (&["stray"], |_, log| log.orders.clear()),
            (&["unsettled", "sold"], |snapshot, _| snapshot.orders[0]["status"] = "refunding".into()),
            (&["card"], |_, log| log.placed(0, "tok_declined", "o")),
            (&["card", "late", "charged", "sold"], |snapshot, log| {
                reject(snapshot, "payment_timeout");
                log.placed(0, "tok_declined", "o");
            }),
            (&["card", "charged", "sold"], |snapshot, _| reject(snapshot, "card_declined")),
            (&["late", "charged", "sold"], |snapshot, _| reject(snapshot, "payment_unavailable")),
            (&["kept"], |_, log| log.cancelled = ["o".to_owned()].into()),
            (&["charged", "sold"], |snapshot, _| snapshot.orders[0]["status"] = "cancelled".into()),
            (&["charged", "sold"], |snapshot, _| snapshot.orders[0]["status"] = "refunded".into()),
            (&["charged", "ledger"], |snapshot, _| snapshot.charges.push(snapshot.charges[0].clone())),
            (&["charged", "ledger", "differences"], |snapshot, _| snapshot.charges.clear()),
            (&["charged", "ledger", "differences"], |snapshot, _| {
                snapshot.charges[0]["captured"] = 0.into();
            }),
            (&["charged", "ledger", "differences"], |snapshot, _| {
                need_attention(snapshot);
                snapshot.charges[0]["captured"] = 501.into();
            }),
            (&["charged", "overcharged"], |snapshot, _| {
                need_attention(snapshot);
                snapshot.charges[0]["times_captured"] = 2.into();
            }),
            (&["orphans", "differences"], |snapshot, _| {
                snapshot.charges.push(json!({ "order_id": "nobody's", "authorized": 500, "voided": false }));
            }),
            (&["overcharged"], |snapshot, _| snapshot.charges[0]["times_captured"] = 2.into()),
            (&["refunds"], |_, log| log.refunds = [("p".to_owned(), 101)].into()),
            (&["refunds"], |_, log| log.refunds.clear()),
            (&["payments"], |snapshot, _| snapshot.payments[0]["status"] = "unknown".into()),
            (&["ledger"], |snapshot, _| snapshot.ledger["sum"] = 1.into()),
            (&["ledger", "differences"], |snapshot, _| snapshot.differences.push(one_cent())),
            (&["charged", "differences"], |snapshot, _| {
                snapshot.charges[0]["refunded"] = 99.into();
                let refunded =
                    json!({ "figure": "refunded", "ours": { "amount": 100 }, "theirs": { "amount": 99 } });
                snapshot.differences.push(refunded);
            }),
            (&["entries"], |snapshot, _| snapshot.ledger["entries"] = 2.into()),
            (&["entries"], |snapshot, _| snapshot.entries = Some(Entries::default())),
            (&["stock"], |snapshot, _| snapshot.stock[0]["on_hand"] = 9.into()),
            (&["reserved"], |snapshot, _| {
                snapshot.stock[0]["on_hand"] = 7.into();
                snapshot.stock[0]["reserved"] = 1.into();
            }),
            (&["sold", "reserved"], |snapshot, _| {
                snapshot.stock[0]["sold"] = 1.into();
                snapshot.stock[0]["reserved"] = 1.into();
            }),
            (&["unsent"], |snapshot, _| snapshot.unsent[0].1 = 1),
            (&["dead", "running"], |snapshot, _| {
                snapshot.dead_letters.push(json!({}));
                snapshot.running.push(json!({}));
            }),
            (&["stuck"], |snapshot, _| {
                need_attention(snapshot);
                snapshot.stuck.clear();
            }),
            (&["stuck"], |snapshot, _| {
                snapshot.stuck.push(json!({ "order_id": "o", "step": "refund", "last_error": null }));
            }),
            (&["unhealthy"], |snapshot, _| snapshot.is_healthy = false),
        ];
        for (expected, harm) in harms {
            let (mut snapshot, mut log) = (consistent(), client_log());
            harm(&mut snapshot, &mut log);
            assert_eq!(broken(&snapshot, &log), expected);
        }
    }
}
