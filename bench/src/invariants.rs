//! What must be true of a stack at rest, whatever happened to it before.

mod money; // what cards paid, and the ledger says

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::money::{Charged, entries, ledger, undeclined};
use crate::books::Books;
use crate::diary::Diary;

/// One thing that must be true.
#[derive(Debug)]
pub struct Invariant {
    /// A short name.
    pub name: &'static str,
    /// In a sentence.
    pub promise: &'static str,
    /// Of how many it was checked.
    pub checked: usize,
    /// Where it is not true, in words.
    pub broken: Vec<String>,
}

impl Invariant {
    pub(crate) fn new<T>(
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

    /// Of so many, these are wrong.
    fn none(
        name: &'static str,
        promise: &'static str,
        checked: usize,
        broken: impl Iterator<Item = String>,
    ) -> Self {
        Self { name, promise, checked, broken: broken.collect() }
    }

    /// Whether it is true everywhere.
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }
}

const STANDING: [&str; 3] = ["confirmed", "shipped", "delivered"];
const UNDONE: [&str; 3] = ["rejected", "cancelled", "refunded"];
const STUCK: &str = "needs_attention";
/// Why an order may be rejected whose card would have paid: the stack is hurt, and gives up in time.
pub const LATE: [&str; 2] = ["payment_timeout", "payment_unavailable"];
/// More orders than one in so many must not be rejected for that.
const FEW: usize = 20;

/// Checks every invariant: of all that is in the books, and of what `customers` were told.
pub fn check(books: &Books, diary: &Diary, customers: &BTreeSet<String>) -> Vec<Invariant> {
    let orders: BTreeMap<&str, &Value> =
        books.orders.iter().map(|order| (text(order, "id"), order)).collect();
    let status = |id: &str| orders.get(id).map_or("", |order| text(order, "status"));
    let payments: BTreeMap<&str, &Value> =
        books.payments.iter().map(|payment| (text(payment, "order_id"), payment)).collect();
    let given_back = |order: &str| payments.get(order).map_or(0, |payment| amount(&payment["refunded"]));
    let mut charges: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for charge in &books.charges {
        charges.entry(text(charge, "order_id")).or_default().push(charge);
    }
    let charged = |order: &str| Charged::of(charges.get(order).map_or(&[][..], Vec::as_slice));
    let told: BTreeSet<&str> = diary.orders.values().flatten().map(String::as_str).collect();
    let ours: Vec<&Value> =
        books.orders.iter().filter(|order| customers.contains(text(order, "customer_id"))).collect();

    vec![
        Invariant::none(
            "unanswered",
            "every request got its answer in the end",
            diary.requests,
            (0..diary.unanswered).map(|_| "a request was given up".to_owned()),
        ),
        Invariant::none(
            "wronged",
            "no request was refused without a reason",
            diary.requests,
            diary.wronged.iter().cloned(),
        ),
        Invariant::new("lost", "every order that was answered with 201 exists", &told, |id| {
            (!orders.contains_key(**id)).then(|| format!("order {id} is not there"))
        }),
        Invariant::new("twice", "one order for each key", &diary.orders, |(_, ids)| {
            let different: BTreeSet<_> = ids.iter().collect();
            (different.len() > 1).then(|| format!("one key has the orders {different:?}"))
        }),
        Invariant::new("stray", "every order was answered to somebody", &ours, |order| {
            let known = told.contains(text(order, "id")) || diary.unanswered > 0;
            (!known).then(|| format!("nobody was told of order {}", order["id"]))
        }),
        Invariant::new("moving", "every order rests", &books.orders, |order| {
            let status = text(order, "status");
            let rests = STANDING.contains(&status) || UNDONE.contains(&status) || status == STUCK;
            (!rests).then(|| format!("order {} is {status}", order["id"]))
        }),
        Invariant::new("card", "the card decided who pays, or time did", &ours, |order| {
            let (id, token) = (text(order, "id"), diary.tokens.get(text(order, "id"))?);
            let wrong = undeclined(order, token, charged(id))?;
            Some(format!("order {id} of {token} is {}: {wrong}", order["status"]))
        }),
        late(&ours, diary.answered()),
        Invariant::new("kept", "every order whose cancel was accepted is undone", &diary.cancelled, |id| {
            let undone = UNDONE.contains(&status(id)) || status(id) == STUCK;
            (!undone).then(|| format!("order {id} is {}", status(id)))
        }),
        Invariant::new(
            "charged",
            "captured, refunded and held is just what its status says",
            &books.orders,
            |order| {
                let id = text(order, "id");
                let wrong = charged(id).contradicts(order, given_back(id))?;
                Some(format!("order {id} is {}, and {wrong}", order["status"]))
            },
        ),
        Invariant::new(
            "orphans",
            "no money is held or kept for an order that is not there",
            &charges,
            |(id, _)| {
                let Charged { captured, refunded, held, .. } = charged(id);
                let kept = !orders.contains_key(*id) && (captured != refunded || held != 0);
                kept.then(|| format!("{captured} captured, {refunded} refunded, {held} held for {id}"))
            },
        ),
        Invariant::new("overcharged", "no key was captured twice", &books.charges, |charge| {
            (int(charge, "times_captured") > 1).then(|| format!("key {} was captured again", charge["key"]))
        }),
        Invariant::new("refunds", "what was given back is what the admin was told", &ours, |order| {
            let payment = text(order, "payment_id");
            let (made, told) =
                (given_back(text(order, "id")), diary.refunds.get(payment).copied().unwrap_or(0));
            // The rest of an order that is undone is given back too.
            let exactly = STANDING.contains(&text(order, "status")) && diary.unanswered == 0;
            let wrong = made < told || exactly && made != told;
            wrong.then(|| format!("order {}: {made} given back, {told} told", order["id"]))
        }),
        Invariant::new("payments", "every payment rests", &books.payments, |payment| {
            let moving = ["authorizing", "unknown", "refunding"].contains(&text(payment, "status"));
            moving.then(|| format!("payment {} is {}", payment["id"], payment["status"]))
        }),
        ledger(books),
        entries(books),
        Invariant::new("stock", "on hand + reserved + sold = initial + adjusted", &books.stock, |product| {
            let now = int(product, "on_hand") + int(product, "reserved") + int(product, "sold");
            (now != int(product, "initial") + int(product, "adjusted")).then(|| product.to_string())
        }),
        sold(books),
        reserved(books),
        Invariant::new("unsent", "every outbox is empty", &books.unsent, |(service, pending)| {
            (*pending != 0).then(|| format!("{service} has {pending} events to send"))
        }),
        Invariant::none(
            "dead",
            "no message was given up",
            orders.len(),
            books.dead_letters.iter().map(Value::to_string),
        ),
        Invariant::none(
            "running",
            "no checkout is under way",
            orders.len(),
            books.running.iter().map(Value::to_string),
        ),
        Invariant::new("stuck", "who waits for a person says why", waiting(books), |id| {
            let told = books.stuck.iter().find(|saga| text(saga, "order_id") == *id);
            let why = told.map_or("", |saga| text(saga, "last_error"));
            why.is_empty().then(|| format!("order {id} does not"))
        }),
        Invariant::new(
            "unhealthy",
            "two replicas of each service are healthy",
            [books.is_healthy],
            |healthy| (!healthy).then(|| "the gateway counts fewer".to_owned()),
        ),
    ]
}

/// Whose checkout waits for a person, whatever the order's status, and whose order does.
fn waiting(books: &Books) -> BTreeSet<&str> {
    let orders = books.orders.iter().filter(|order| text(order, "status") == STUCK);
    let sagas = books.stuck.iter().map(|saga| text(saga, "order_id"));
    orders.map(|order| text(order, "id")).chain(sagas).collect()
}

/// Faults cost some orders the time that a checkout has, but few.
fn late(orders: &[&Value], of: usize) -> Invariant {
    let late: Vec<_> = orders.iter().filter(|order| LATE.contains(&text(order, "reason"))).collect();
    let broken = late.iter().filter(|_| FEW * late.len() > of);
    let told = broken.map(|order| format!("order {}: {}", order["id"], order["reason"]));
    Invariant::none("late", "at most 5 % were rejected for time or unavailability", of, told)
}

/// What left the shelf is what is in the orders that stand: who waits for a person has reserved it, or
/// given it back.
fn sold(books: &Books) -> Invariant {
    let standing = goods(books, &STANDING);
    Invariant::new("sold", "what is sold is what is in the orders that stand", &books.stock, |product| {
        let (is, should) = (int(product, "sold"), of(&standing, product));
        (is != should).then(|| format!("{is} of {} instead of {should}", product["product_id"]))
    })
}

fn reserved(books: &Books) -> Invariant {
    let stuck = goods(books, &[STUCK]);
    Invariant::new("reserved", "only who waits for a person has goods reserved", &books.stock, |product| {
        let (is, most) = (int(product, "reserved"), of(&stuck, product));
        (!(0..=most).contains(&is)).then(|| format!("{is} of {}, at most {most}", product["product_id"]))
    })
}

/// How many of each product are in the orders of these statuses.
fn goods<'a>(books: &'a Books, statuses: &[&str]) -> BTreeMap<&'a str, i64> {
    let mut goods = BTreeMap::new();
    let counted = books.orders.iter().filter(|order| statuses.contains(&text(order, "status")));
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
    use crate::database::Entries;

    /// A shop with one order, confirmed and paid.
    fn books() -> Books {
        Books {
            orders: vec![json!({
                "id": "o", "customer_id": "c", "status": "confirmed", "payment_id": "p",
                "lines": [{ "product_id": "tea", "quantity": 2 }], "total": { "amount": 500, "currency": "EUR" },
            })],
            payments: vec![json!({ "id": "p", "order_id": "o", "refunded": { "amount": 100 } })],
            charges: vec![json!({
                "key": "k", "order_id": "o", "authorized": 500, "captured": 500, "refunded": 100,
                "voided": false, "times_captured": 1,
            })],
            ledger: json!({ "sum": 0, "entries": 4, "accounts": [
                { "name": "card_network", "balance": 400 }, { "name": "refunds", "balance": 100 },
                { "name": "sales", "balance": -500 },
            ] }),
            entries: Entries {
                balances: [("card_network", 400), ("refunds", 100), ("sales", -500)]
                    .map(|(account, balance)| (account.to_owned(), balance))
                    .into(),
                count: 4,
            },
            stock: vec![json!({
                "product_id": "tea", "on_hand": 8, "reserved": 0, "sold": 2, "initial": 10, "adjusted": 0,
            })],
            unsent: vec![("order-service", 0)],
            dead_letters: Vec::new(),
            running: Vec::new(),
            stuck: Vec::new(),
            is_healthy: true,
        }
    }

    fn diary() -> Diary {
        let refunds = [("p".to_owned(), 100)].into();
        let mut diary = Diary { refunds, ..Diary::default() };
        diary.placed(0, "tok_visa", "o");
        diary
    }

    fn reject(books: &mut Books, reason: &str) {
        books.orders[0]["status"] = "rejected".into();
        books.orders[0]["reason"] = reason.into();
    }

    /// The goods are still reserved, and it is said why.
    fn wait_for_a_person(books: &mut Books) {
        books.orders[0]["status"] = STUCK.into();
        books.stuck.push(json!({ "order_id": "o", "step": "capture", "last_error": "no answer" }));
        books.stock[0]["reserved"] = books.stock[0]["sold"].take();
        books.stock[0]["sold"] = 0.into();
    }

    fn broken(books: &Books, diary: &Diary) -> Vec<&'static str> {
        let checked = check(books, diary, &["c".to_owned()].into());
        checked.iter().filter(|invariant| !invariant.holds()).map(|invariant| invariant.name).collect()
    }

    #[test]
    fn a_shop_in_order_breaks_nothing() {
        assert!(broken(&books(), &diary()).is_empty());
    }

    #[test]
    fn who_waits_for_a_person_and_says_why_breaks_nothing() {
        let mut books = books();
        wait_for_a_person(&mut books);
        assert!(broken(&books, &diary()).is_empty());
    }

    #[test]
    fn whatever_is_wrong_breaks_the_invariant_that_says_so() {
        type Harm = fn(&mut Books, &mut Diary);
        let harms: [(&[&str], Harm); 34] = [
            (&["unanswered"], |_, diary| diary.unanswered = 1),
            (&["wronged"], |_, diary| diary.wronged.push("forbidden".to_owned())),
            (&["lost", "orphans", "sold"], |books, _| books.orders.clear()),
            (&["lost", "twice"], |_, diary| diary.placed(0, "tok_visa", "another")),
            (&["stray"], |_, diary| diary.orders.clear()),
            (&["moving", "sold"], |books, _| books.orders[0]["status"] = "refunding".into()),
            (&["card"], |_, diary| diary.placed(0, "tok_declined", "o")),
            (&["card", "late", "charged", "sold"], |books, diary| {
                reject(books, "payment_timeout");
                diary.placed(0, "tok_declined", "o");
            }),
            (&["card", "charged", "sold"], |books, _| reject(books, "card_declined")),
            (&["late", "charged", "sold"], |books, _| reject(books, "payment_unavailable")),
            (&["kept"], |_, diary| diary.cancelled = ["o".to_owned()].into()),
            (&["charged", "sold"], |books, _| books.orders[0]["status"] = "cancelled".into()),
            (&["charged", "sold"], |books, _| books.orders[0]["status"] = "refunded".into()),
            (&["charged", "ledger"], |books, _| books.charges.push(books.charges[0].clone())),
            (&["charged", "ledger"], |books, _| books.charges.clear()),
            (&["charged", "ledger"], |books, _| books.charges[0]["captured"] = 0.into()),
            (&["charged", "ledger"], |books, _| {
                wait_for_a_person(books);
                books.charges[0]["captured"] = 501.into();
            }),
            (&["charged", "overcharged"], |books, _| {
                wait_for_a_person(books);
                books.charges[0]["times_captured"] = 2.into();
            }),
            (&["orphans"], |books, _| {
                books.charges.push(json!({ "order_id": "nobody's", "authorized": 500, "voided": false }));
            }),
            (&["overcharged"], |books, _| books.charges[0]["times_captured"] = 2.into()),
            (&["refunds"], |_, diary| diary.refunds = [("p".to_owned(), 101)].into()),
            (&["refunds"], |_, diary| diary.refunds.clear()),
            (&["payments"], |books, _| books.payments[0]["status"] = "unknown".into()),
            (&["ledger"], |books, _| books.ledger["sum"] = 1.into()),
            (&["entries"], |books, _| books.ledger["entries"] = 2.into()),
            (&["entries"], |books, _| books.entries.balances.clear()),
            (&["stock"], |books, _| books.stock[0]["on_hand"] = 9.into()),
            (&["reserved"], |books, _| {
                books.stock[0]["on_hand"] = 7.into();
                books.stock[0]["reserved"] = 1.into();
            }),
            (&["sold", "reserved"], |books, _| {
                books.stock[0]["sold"] = 1.into();
                books.stock[0]["reserved"] = 1.into();
            }),
            (&["unsent"], |books, _| books.unsent[0].1 = 1),
            (&["dead", "running"], |books, _| {
                books.dead_letters.push(json!({}));
                books.running.push(json!({}));
            }),
            (&["stuck"], |books, _| {
                wait_for_a_person(books);
                books.stuck.clear();
            }),
            (&["stuck"], |books, _| {
                books.stuck.push(json!({ "order_id": "o", "step": "refund", "last_error": null }));
            }),
            (&["unhealthy"], |books, _| books.is_healthy = false),
        ];
        for (expected, harm) in harms {
            let (mut books, mut diary) = (books(), diary());
            harm(&mut books, &mut diary);
            assert_eq!(broken(&books, &diary), expected);
        }
    }
}
