//! What customers do: order, pay with every kind of card, change their minds, read.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use e2e::Reply;
use futures_util::future::{join, join_all};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use shared::stop::Stop;
use tokio::time::Instant;

use crate::customer::{Customer, Errand, PATIENCE};
use crate::diary::Diary;

/// Every kind of card; those that pay at once come more often.
pub const TOKENS: [&str; 10] = [
    "tok_visa",
    "tok_visa",
    "tok_visa",
    "tok_flaky",
    "tok_declined",
    "tok_timeout_after_charge",
    "tok_capture_flaky",
    "tok_capture_declined",
    "tok_slow",
    "tok_insufficient_funds",
];
const BETWEEN_READS: Duration = Duration::from_millis(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
const READS: [&str; 4] =
    ["/api/users/me", "/api/products?limit=5", "/api/orders?limit=5", "/api/payments?limit=5"];

/// One order, and what follows.
pub struct Deal {
    /// Which of all the orders it is.
    pub number: usize,
    /// The product's id.
    pub product: String,
    /// How many of it.
    pub quantity: u32,
    /// Whether there may be too few of it.
    pub is_scarce: bool,
    /// How it is paid.
    pub token: &'static str,
    /// What comes after.
    pub then: Then,
}

/// What a customer, or the admin, does with an order after it was placed.
pub enum Then {
    /// Nothing.
    Leave,
    /// Nothing; but the request is sent twice at once.
    Repeat,
    /// Cancels it, so long after, so many times at once.
    Cancel(Duration, usize),
    /// The admin gives so many hundredths of it back, when it is paid; then it may be cancelled.
    Refund(i64, bool),
}

/// Orders that are begun at a steady pace, whoever has time.
pub struct Market {
    /// How many in all.
    pub orders: usize,
    /// From the begin of one to that of the next.
    pub spacing: Duration,
    /// What decides about everything that is random.
    pub seed: u64,
    /// What there is to buy; of the last there may be too few.
    pub products: Vec<String>,
    next: Cell<usize>,
    begun: Instant,
}

impl Market {
    /// Opens now.
    pub fn open(orders: usize, over: Duration, seed: u64, products: Vec<String>) -> Self {
        let spacing = over / u32::try_from(orders.max(1)).unwrap_or(u32::MAX);
        Self { orders, spacing, seed, products, next: Cell::new(0), begun: Instant::now() }
    }

    /// The next order, when its time has come; `None` after the last.
    async fn next(&self) -> Option<Deal> {
        let number = self.next.replace(self.next.get() + 1);
        if number >= self.orders {
            return None;
        }
        let before = u32::try_from(number).unwrap_or(u32::MAX);
        tokio::time::sleep_until(self.begun + self.spacing * before).await;
        Some(self.deal(number))
    }

    fn deal(&self, number: usize) -> Deal {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let then = match random.random_range(0..10) {
            0 => Then::Repeat,
            1 | 2 => {
                let after = Duration::from_millis(random.random_range(0..500));
                Then::Cancel(after, random.random_range(1..3))
            }
            3 => Then::Refund(random.random_range(1..100), random.random()),
            _ => Then::Leave,
        };
        let product = random.random_range(0..self.products.len());
        Deal {
            number,
            product: self.products[product].clone(),
            is_scarce: product + 1 == self.products.len(),
            quantity: random.random_range(1..4),
            token: TOKENS[random.random_range(0..TOKENS.len())],
            then,
        }
    }
}

/// Takes one order of the market after another.
pub async fn trade(market: &Market, customer: &Customer, admin: &Customer, diary: &RefCell<Diary>) {
    while let Some(deal) = market.next().await {
        carry_out(&deal, customer, admin, diary).await;
        read(customer, READS[deal.number % READS.len()], diary).await;
    }
}

/// Reads from each service in turn, until `stop`.
pub async fn browse(customer: &Customer, diary: &RefCell<Diary>, stop: &Stop) {
    for path in READS.iter().cycle() {
        if stop.is_requested() {
            return;
        }
        read(customer, path, diary).await;
        tokio::time::sleep(BETWEEN_READS).await;
    }
}

/// A read is not tried again: whoever fails it is to be seen.
async fn read(customer: &Customer, path: &str, diary: &RefCell<Diary>) {
    let reply = customer.try_once(&Errand::get(path)).await;
    let mut diary = diary.borrow_mut();
    diary.reads += 1;
    if reply.as_ref().is_none_or(|reply| reply.status != 200) {
        diary.reads_failed += 1;
        let told = reply.map_or_else(|| "no answer".to_owned(), |reply| reply.body.to_string());
        eprintln!("GET {path}: {told}");
    }
}

/// Places the order under a key of its own, and does what comes after.
pub async fn carry_out(deal: &Deal, customer: &Customer, admin: &Customer, diary: &RefCell<Diary>) {
    let lines = json!([{ "product_id": deal.product, "quantity": deal.quantity }]);
    let body = json!({ "lines": lines, "payment_token": deal.token });
    let errand = Errand::post("/api/orders", Some(body));
    if let Then::Repeat = deal.then {
        join(place(deal, &errand, customer, diary), place(deal, &errand, customer, diary)).await;
        return;
    }
    let Some(id) = place(deal, &errand, customer, diary).await else { return };
    match deal.then {
        Then::Leave | Then::Repeat => {}
        Then::Cancel(after, times) => {
            tokio::time::sleep(after).await;
            join_all((0..times).map(|_| cancel(&id, customer, diary))).await;
        }
        Then::Refund(hundredths, and_cancel) => {
            let Some(order) = paid(&id, customer, diary).await else { return };
            refund(&order, hundredths, admin, diary).await;
            if and_cancel {
                cancel(&id, customer, diary).await;
            }
        }
    }
}

/// Sends it until there is an answer; writes down if there is none, or one that is not right.
async fn answer(
    errand: &Errand,
    customer: &Customer,
    diary: &RefCell<Diary>,
    is_right: impl Fn(&Reply) -> bool,
) -> Option<Reply> {
    let done = customer.insist(errand).await;
    let mut diary = diary.borrow_mut();
    diary.requests += 1;
    diary.retries += done.retries;
    match &done.reply {
        Some(reply) if is_right(reply) => {}
        Some(reply) => diary.wronged.push(format!("{errand}: {} {}", reply.status, reply.body)),
        None => diary.unanswered += 1,
    }
    done.reply
}

fn is_refusal(reply: &Reply, code: &str) -> bool {
    reply.status == 409 && reply.body["code"] == code
}

async fn place(deal: &Deal, errand: &Errand, customer: &Customer, diary: &RefCell<Diary>) -> Option<String> {
    let placed = |reply: &Reply| reply.body["id"].as_str().filter(|_| reply.status == 201).map(str::to_owned);
    let is_right =
        |reply: &Reply| placed(reply).is_some() || deal.is_scarce && is_refusal(reply, "out_of_stock");
    let reply = answer(errand, customer, diary, is_right).await?;
    let id = placed(&reply);
    let mut diary = diary.borrow_mut();
    match &id {
        Some(id) => diary.placed(deal.number, deal.token, id),
        None => {
            let code = reply.body["code"].as_str().unwrap_or_default();
            diary.refused.insert(deal.number, code.to_owned());
        }
    }
    id
}

/// Only who is not going to pay is refused, or who waits for a person.
async fn cancel(id: &str, customer: &Customer, diary: &RefCell<Diary>) {
    let errand = Errand::post(format!("/api/orders/{id}/cancel"), None);
    let is_right = |reply: &Reply| reply.status == 202 || is_refusal(reply, "not_cancellable");
    let Some(reply) = answer(&errand, customer, diary, is_right).await else { return };
    if reply.status == 202 {
        diary.borrow_mut().cancelled.insert(id.to_owned());
    } else if let Some(order) = look(id, customer, diary).await
        && !["rejected", "needs_attention"].contains(&order["status"].as_str().unwrap_or_default())
    {
        diary.borrow_mut().wronged.push(format!("{errand}: refused, though it is {}", order["status"]));
    }
}

/// The order as it is now.
async fn look(id: &str, customer: &Customer, diary: &RefCell<Diary>) -> Option<Value> {
    let errand = Errand::get(format!("/api/orders/{id}"));
    let reply = answer(&errand, customer, diary, |reply| reply.status == 200).await?;
    (reply.status == 200).then_some(reply.body)
}

/// The order, once it is confirmed; `None` if it ends otherwise.
async fn paid(id: &str, customer: &Customer, diary: &RefCell<Diary>) -> Option<Value> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let order = look(id, customer, diary).await?;
        match order["status"].as_str()? {
            "awaiting_payment" => tokio::time::sleep(BETWEEN_LOOKS).await,
            "confirmed" => return Some(order),
            _ => return None,
        }
    }
    None
}

/// Of an order that was confirmed just now, and that nobody else gives back or cancels: so this is not
/// refused.
async fn refund(order: &Value, hundredths: i64, admin: &Customer, diary: &RefCell<Diary>) {
    let payment = order["payment_id"].as_str().unwrap_or_default();
    let amount = (order["total"]["amount"].as_i64().unwrap_or_default() * hundredths / 100).max(1);
    let body = json!({
        "amount": { "amount": amount, "currency": order["total"]["currency"] },
        "reason": "A part was broken.",
    });
    let errand = Errand::post(format!("/api/payments/{payment}/refunds"), Some(body));
    let reply = answer(&errand, admin, diary, |reply| reply.status == 201).await;
    if reply.is_some_and(|reply| reply.status == 201) {
        *diary.borrow_mut().refunds.entry(payment.to_owned()).or_default() += amount;
    }
}
