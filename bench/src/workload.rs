//! What customers do: order, pay with every kind of card, cancel, read.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use e2e::Reply;
use futures_util::future::{join, join_all};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use shared::stop::Stop;
use tokio::time::Instant;

use crate::client_log::ClientLog;
use crate::customer::{Customer, Request, TIMEOUT};

/// Every kind of card; those that are approved at once come more often.
pub const TOKENS: [&str; 12] = [
    "tok_visa",
    "tok_visa",
    "tok_visa",
    "tok_flaky",
    "tok_declined",
    "tok_timeout_after_charge",
    "tok_capture_flaky",
    "tok_capture_declined",
    "tok_busy",
    "tok_other_amount",
    "tok_slow",
    "tok_insufficient_funds",
];
/// Cards whose answers the card network alters, of which some orders are paid with a good one: it takes and gives back
/// another amount, or says at first that a request with this key is under way.
pub const ALTERED: [&str; 4] = ["tok_other_amount", "tok_other_amount", "tok_busy", "tok_visa"];
const BETWEEN_READS: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(200);
const READS: [&str; 4] =
    ["/api/users/me", "/api/products?limit=5", "/api/orders?limit=5", "/api/payments?limit=5"];

/// An order to place, and what is done with it afterwards.
pub struct PlannedOrder {
    pub number: usize,
    /// The id of the product.
    pub product: String,
    pub quantity: u32,
    /// Whether it may be out of stock.
    pub is_scarce: bool,
    /// The payment token.
    pub token: &'static str,
    pub then: Then,
}

/// What the customer or the admin does after the order.
pub enum Then {
    Nothing,
    /// Nothing, but the order itself is sent twice at the same time, under one key.
    Duplicate,
    /// The customer cancels it after this time, with this number of concurrent requests.
    Cancel(Duration, usize),
    /// The admin refunds this percentage once it is paid; then the customer may cancel it.
    Refund(i64, bool),
}

/// Orders that begin at a steady pace, each placed by the next customer who is free.
pub struct Workload {
    pub orders: usize,
    /// The time between the starts of two orders.
    pub spacing: Duration,
    pub seed: u64,
    /// The last may run out of stock.
    pub products: Vec<String>,
    tokens: &'static [&'static str],
    next: Cell<usize>,
    /// The number of orders that have begun.
    started: Cell<usize>,
    begun: Instant,
}

impl Workload {
    /// Begins now.
    pub fn begin(orders: usize, over: Duration, seed: u64, products: Vec<String>) -> Self {
        let spacing = over / u32::try_from(orders.max(1)).unwrap_or(u32::MAX);
        let (next, started, begun) = (Cell::new(0), Cell::new(0), Instant::now());
        Self { orders, spacing, seed, products, tokens: &TOKENS, next, started, begun }
    }

    /// Uses only these payment tokens.
    pub fn paid_with(self, tokens: &'static [&'static str]) -> Self {
        Self { tokens, ..self }
    }

    /// Continues at the same pace after the last order.
    pub fn endless(self) -> Self {
        Self { orders: usize::MAX, ..self }
    }

    /// The number of orders that have begun.
    pub fn started(&self) -> usize {
        self.started.get()
    }

    /// Waits for the start of the next order; `None` after the last.
    pub async fn next(&self) -> Option<PlannedOrder> {
        let number = self.next.replace(self.next.get() + 1);
        if number >= self.orders {
            return None;
        }
        let before = u32::try_from(number).unwrap_or(u32::MAX);
        tokio::time::sleep_until(self.begun + self.spacing * before).await;
        self.started.set(self.started.get() + 1);
        Some(self.plan(number))
    }

    fn plan(&self, number: usize) -> PlannedOrder {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let then = match random.random_range(0..10) {
            0 => Then::Duplicate,
            1 | 2 => {
                let after = Duration::from_millis(random.random_range(0..500));
                Then::Cancel(after, random.random_range(1..3))
            }
            3 => Then::Refund(random.random_range(1..100), random.random()),
            _ => Then::Nothing,
        };
        let token = self.tokens[random.random_range(0..self.tokens.len())];
        let then = match then {
            // All of it cannot be given back: the card network took less.
            Then::Cancel(..) | Then::Refund(_, true) if token == "tok_other_amount" => {
                Then::Refund(10, false)
            }
            then => then,
        };
        let product = random.random_range(0..self.products.len());
        PlannedOrder {
            number,
            product: self.products[product].clone(),
            is_scarce: product + 1 == self.products.len(),
            quantity: random.random_range(1..4),
            token,
            then,
        }
    }
}

/// Places one order of the workload after another, until the last or until `over`.
pub async fn run(
    workload: &Workload,
    customer: &Customer,
    admin: &Customer,
    log: &RefCell<ClientLog>,
    over: &Stop,
) {
    while !over.is_requested()
        && let Some(planned) = workload.next().await
    {
        place_and_follow_up(&planned, customer, admin, log).await;
        read_one(&planned, customer, log).await;
    }
}

/// Reads from a service, the next one after each order.
pub async fn read_one(planned: &PlannedOrder, customer: &Customer, log: &RefCell<ClientLog>) {
    read(customer, READS[planned.number % READS.len()], log).await;
}

/// Reads from each service in turn, until `stop`.
pub async fn read_until(customer: &Customer, log: &RefCell<ClientLog>, stop: &Stop) {
    for path in READS.iter().cycle() {
        if stop.is_requested() {
            return;
        }
        read(customer, path, log).await;
        tokio::time::sleep(BETWEEN_READS).await;
    }
}

/// Reads without a retry, so that every failure is counted.
async fn read(customer: &Customer, path: &str, log: &RefCell<ClientLog>) {
    let reply = customer.send_once(&Request::get(path)).await;
    let mut log = log.borrow_mut();
    log.reads += 1;
    if reply.as_ref().is_none_or(|reply| reply.status != 200) {
        log.reads_failed += 1;
        let answer = reply.map_or_else(|| "no answer".to_owned(), |reply| reply.body.to_string());
        eprintln!("GET {path}: {answer}");
    }
}

/// Places the order under a key of its own, and does what follows.
pub async fn place_and_follow_up(
    planned: &PlannedOrder,
    customer: &Customer,
    admin: &Customer,
    log: &RefCell<ClientLog>,
) {
    let lines = json!([{ "product_id": planned.product, "quantity": planned.quantity }]);
    let body = json!({ "lines": lines, "payment_token": planned.token });
    let request = Request::post("/api/orders", Some(body));
    if let Then::Duplicate = planned.then {
        join(place(planned, &request, customer, log), place(planned, &request, customer, log)).await;
        return;
    }
    let Some(id) = place(planned, &request, customer, log).await else { return };
    match planned.then {
        Then::Nothing | Then::Duplicate => {}
        Then::Cancel(after, times) => {
            tokio::time::sleep(after).await;
            join_all((0..times).map(|_| cancel(&id, customer, log))).await;
        }
        Then::Refund(percent, and_cancel) => {
            let Some(order) = confirmed(&id, customer, log).await else { return };
            refund(&order, percent, admin, log).await;
            if and_cancel {
                cancel(&id, customer, log).await;
            }
        }
    }
}

/// Sends it until the answer is final, and logs whether that is one of the expected.
async fn send(
    request: &Request,
    customer: &Customer,
    log: &RefCell<ClientLog>,
    is_expected: impl Fn(&Reply) -> bool,
) -> Option<Reply> {
    let outcome = customer.send(request).await;
    let mut log = log.borrow_mut();
    log.requests += 1;
    log.retries += outcome.retries;
    match &outcome.reply {
        Some(reply) if is_expected(reply) => {}
        Some(reply) => log.unexpected.push(format!("{request}: {} {}", reply.status, reply.body)),
        None => log.unanswered += 1,
    }
    outcome.reply
}

fn is_refusal(reply: &Reply, code: &str) -> bool {
    reply.status == 409 && reply.body["code"] == code
}

async fn place(
    planned: &PlannedOrder,
    request: &Request,
    customer: &Customer,
    log: &RefCell<ClientLog>,
) -> Option<String> {
    let placed = |reply: &Reply| reply.body["id"].as_str().filter(|_| reply.status == 201).map(str::to_owned);
    let is_expected =
        |reply: &Reply| placed(reply).is_some() || planned.is_scarce && is_refusal(reply, "out_of_stock");
    let reply = send(request, customer, log, is_expected).await?;
    let id = placed(&reply);
    let mut log = log.borrow_mut();
    match &id {
        Some(id) => log.placed(planned.number, planned.token, id),
        None => {
            let code = reply.body["code"].as_str().unwrap_or_default();
            log.refused.insert(planned.number, code.to_owned());
        }
    }
    id
}

/// Cancels the order. This fails only if the order is rejected or needs attention.
async fn cancel(id: &str, customer: &Customer, log: &RefCell<ClientLog>) {
    let request = Request::post(format!("/api/orders/{id}/cancel"), None);
    let is_expected = |reply: &Reply| reply.status == 202 || is_refusal(reply, "not_cancellable");
    let Some(reply) = send(&request, customer, log, is_expected).await else { return };
    if reply.status == 202 {
        log.borrow_mut().cancelled.insert(id.to_owned());
    } else if let Some(order) = show(id, customer, log).await
        && !["rejected", "needs_attention"].contains(&order["status"].as_str().unwrap_or_default())
    {
        log.borrow_mut().unexpected.push(format!("{request}: refused, though it is {}", order["status"]));
    }
}

async fn show(id: &str, customer: &Customer, log: &RefCell<ClientLog>) -> Option<Value> {
    let request = Request::get(format!("/api/orders/{id}"));
    let reply = send(&request, customer, log, |reply| reply.status == 200).await?;
    (reply.status == 200).then_some(reply.body)
}

/// Waits until the order is confirmed; `None` if it ends otherwise.
async fn confirmed(id: &str, customer: &Customer, log: &RefCell<ClientLog>) -> Option<Value> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        let order = show(id, customer, log).await?;
        match order["status"].as_str()? {
            "awaiting_payment" => tokio::time::sleep(POLL).await,
            "confirmed" => return Some(order),
            _ => return None,
        }
    }
    None
}

/// Refunds a part of the order. This is never refused: the order is confirmed, and nobody else refunds or cancels it.
async fn refund(order: &Value, percent: i64, admin: &Customer, log: &RefCell<ClientLog>) {
    let payment = order["payment_id"].as_str().unwrap_or_default();
    let amount = (order["total"]["amount"].as_i64().unwrap_or_default() * percent / 100).max(1);
    let body = json!({
        "amount": { "amount": amount, "currency": order["total"]["currency"] },
        "reason": "A part was broken.",
    });
    let request = Request::post(format!("/api/payments/{payment}/refunds"), Some(body));
    let reply = send(&request, admin, log, |reply| reply.status == 201).await;
    if reply.is_some_and(|reply| reply.status == 201) {
        *log.borrow_mut().refunds.entry(payment.to_owned()).or_default() += amount;
    }
}
