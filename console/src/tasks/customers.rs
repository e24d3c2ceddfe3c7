//! Simulated customers of the lab. An admin sets their number. They register, order and cancel through the gateway, with
//! an idempotency key for each action, and repeat a request until they get a final response. The invariants compare
//! these responses with the state of the stack ([`crate::domain::invariants`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use shared::http::{Call, IDEMPOTENCY_KEY, Response, exchange};
use shared::lab::LONGEST;
use shared::stop::Stop;
use tokio::sync::{OnceCell, watch};
use uuid::Uuid;

use crate::domain::invariants::client_log::ClientLog;
use crate::error::Error;

/// Customers at a time.
pub const MOST: usize = 50;
/// Orders in all, which are kept in memory and read at each look at the invariants.
const MOST_ORDERS: usize = 2000;
/// The time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(12);
/// The time limit of an action with all its attempts: longer than a fault lasts.
const GIVEN_UP: Duration = Duration::from_secs(LONGEST + 120);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(300);
/// Access tokens live for five minutes. The rest is for the attempts of an order and of its cancellation.
const TOKEN_LIFE: Duration = Duration::from_secs(100);
/// Good cards come more often.
const CARDS: [&str; 10] = [
    "tok_visa",
    "tok_visa",
    "tok_visa",
    "tok_visa",
    "tok_visa",
    "tok_flaky",
    "tok_slow",
    "tok_declined",
    "tok_insufficient_funds",
    "tok_timeout_after_charge",
];

pub struct Customers {
    gateway: String,
    wanted: watch::Sender<usize>,
    /// The product that the customers buy; it never runs out.
    product: OnceCell<String>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub struct Seen {
    pub log: ClientLog,
    /// Ids of the customers.
    pub people: BTreeSet<String>,
}

#[derive(Serialize)]
pub struct Summary {
    count: usize,
    orders: usize,
    cancelled: usize,
    retries: u32,
    /// There are [`MOST_ORDERS`], so nobody orders any more.
    is_full: bool,
}

#[derive(Default)]
struct Person {
    email: String,
    token: Option<(String, Instant)>,
}

/// Lets the wanted ones order, each again and again with a short pause.
pub async fn order(customers: Arc<Customers>, stop: Stop) {
    join_all((0..MOST).map(|place| serve(place, &customers, &stop))).await;
}

async fn serve(place: usize, customers: &Customers, stop: &Stop) {
    let mut person = Person::default();
    let shopping = async {
        loop {
            customers.wanted(place).await;
            customers.shop(&mut person).await;
            tokio::time::sleep(Duration::from_millis(rand::random_range(500..2500))).await;
        }
    };
    tokio::select! {
        _ = shopping => {}
        () = stop.requested() => {}
    }
}

impl Customers {
    pub fn new(gateway: &url::Url) -> Self {
        Self {
            gateway: gateway.as_str().trim_end_matches('/').to_owned(),
            wanted: watch::Sender::new(0),
            product: OnceCell::new(),
            seen: Mutex::default(),
        }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn summary(&self) -> Summary {
        let Seen { log, .. } = &*self.seen();
        let (orders, cancelled, retries) = (log.orders.len(), log.cancelled.len(), log.retries);
        let is_full = orders >= MOST_ORDERS;
        Summary { count: *self.wanted.borrow(), orders, cancelled, retries, is_full }
    }

    /// Lets `count` customers order; none if the lab is full. `token` is of an admin, who makes the product.
    pub async fn let_in(&self, count: usize, token: &str) -> Result<(), Error> {
        let count = if self.is_full() { 0 } else { count.min(MOST) };
        if count > 0 {
            self.product.get_or_try_init(|| self.make_product(token)).await?;
        }
        self.wanted.send_replace(count);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.seen().log.orders.len() >= MOST_ORDERS
    }

    /// Waits until the customer number `place` is wanted.
    async fn wanted(&self, place: usize) {
        let mut wanted = self.wanted.subscribe();
        wanted.wait_for(|count| place < *count).await.map(drop).unwrap_or_default();
    }

    async fn make_product(&self, token: &str) -> Result<String, Error> {
        let body = json!({
            "sku": format!("LAB-{}", Uuid::now_v7().simple()),
            "name": "Sample of the lab",
            "description": "Customers of the lab order it.",
            "price": { "amount": 1250, "currency": "EUR" },
            "stock": 1_000_000,
        });
        let call = self.call(Method::POST, "/api/products", Some(body)).bearer(token.to_owned());
        let answer = exchange(call).await.map_err(|error| Error::Exchange("gateway".to_owned(), error))?;
        let product: Value = answer.json()?;
        product["id"].as_str().map(str::to_owned).ok_or(Error::NotFound)
    }

    /// Orders once, and cancels one order of four.
    async fn shop(&self, person: &mut Person) {
        if self.is_full() {
            self.wanted.send_replace(0);
            return;
        }
        if self.log_in(person).await.is_none() {
            return;
        }
        let Some(product) = self.product.get() else { return };
        let (card, key) = (CARDS[rand::random_range(0..CARDS.len())], Uuid::now_v7().to_string());
        let lines = json!([{ "product_id": product, "quantity": rand::random_range(1..4) }]);
        let body = json!({ "lines": lines, "payment_token": card });
        let placed = self.act(person, "/api/orders", &key, Some(&body), |status, _| status == 201).await;
        let Some(id) = placed.as_ref().and_then(|order| order["id"].as_str()) else { return };
        {
            let log = &mut self.seen().log;
            let number = log.orders.len();
            log.placed(number, card, id);
        }
        if rand::random_range(0..4) > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..1500))).await;
        let (path, key) = (format!("/api/orders/{id}/cancel"), Uuid::now_v7().to_string());
        let is_expected = |status, code: &str| status == 202 || code == "not_cancellable";
        if self.act(person, &path, &key, None, is_expected).await.is_some() {
            self.seen().log.cancelled.insert(id.to_owned());
        }
    }

    /// Sends the action until there is an answer, which is noted. Returns the body of a success.
    async fn act(
        &self,
        person: &mut Person,
        path: &str,
        key: &str,
        body: Option<&Value>,
        is_expected: impl Fn(u16, &str) -> bool,
    ) -> Option<Value> {
        let (mut answer, mut retries) = self.send_as(person, path, key, body).await;
        if answer.as_ref().is_some_and(|answer| answer.status == 401) {
            // The attempts have outlasted the token.
            person.token = None;
            self.log_in(person).await.unwrap_or_default();
            let (last, more) = self.send_as(person, path, key, body).await;
            (answer, retries) = (last, retries + more);
        }
        let log = &mut self.seen().log;
        log.requests += 1;
        log.retries += retries;
        let Some(answer) = answer else {
            log.unanswered += 1;
            return None;
        };
        let body: Value = answer.json().unwrap_or_default();
        let (status, code) = (answer.status.as_u16(), body["code"].as_str().unwrap_or_default());
        if !is_expected(status, code) {
            log.unexpected.push(format!("POST {path}: {status} {code}"));
        }
        answer.status.is_success().then_some(body)
    }

    /// See [`send`]. No answer without a token.
    async fn send_as(
        &self,
        person: &Person,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> (Option<Response>, u32) {
        let Some((token, _)) = &person.token else { return (None, 0) };
        let call = || {
            let call = self.call(Method::POST, path, body.cloned()).bearer(token.clone());
            call.header(IDEMPOTENCY_KEY, key.to_owned())
        };
        send(call).await
    }

    /// Registers and logs in, unless the token is still good.
    async fn log_in(&self, person: &mut Person) -> Option<()> {
        const PASSWORD: &str = "a long enough one";
        if person.token.as_ref().is_some_and(|(_, since)| since.elapsed() < TOKEN_LIFE) {
            return Some(());
        }
        if person.email.is_empty() {
            let email = format!("{}@example.com", Uuid::now_v7());
            let body = json!({ "email": email, "name": "A customer of the lab", "password": PASSWORD });
            let key = Uuid::now_v7().to_string();
            let call = || {
                let call = self.call(Method::POST, "/api/users", Some(body.clone()));
                call.header(IDEMPOTENCY_KEY, key.clone())
            };
            let user: Value = send(call).await.0.filter(|answer| answer.status == 201)?.json().ok()?;
            self.seen().people.insert(user["id"].as_str()?.to_owned());
            person.email = email;
        }
        let body = json!({ "email": person.email, "password": PASSWORD });
        let answer = send(|| self.call(Method::POST, "/api/sessions", Some(body.clone()))).await.0?;
        let tokens: Value = answer.json().ok()?;
        person.token = Some((tokens["access_token"].as_str()?.to_owned(), Instant::now()));
        Some(())
    }

    fn call(&self, method: Method, path: &str, body: Option<Value>) -> Call {
        let call = Call::new(method, format!("{}{path}", self.gateway), TIMEOUT);
        match body {
            Some(body) => call.json(body.to_string()),
            None => call,
        }
    }
}

/// Sends what `call` makes until the answer is final. Returns it with the number of repetitions.
async fn send(call: impl Fn() -> Call) -> (Option<Response>, u32) {
    let (begun, mut retries) = (Instant::now(), 0);
    loop {
        let answer = exchange(call()).await.ok();
        if answer.as_ref().is_some_and(is_final) {
            return (answer, retries);
        }
        if begun.elapsed() > GIVEN_UP {
            return (None, retries);
        }
        retries += 1;
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
}

/// Whether the same request, sent again, would get the same answer.
fn is_final(answer: &Response) -> bool {
    let body: Value = answer.json().unwrap_or_default();
    let status = answer.status.as_u16();
    status < 500 && status != 429 && body["code"] != "idempotency_in_progress"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn when_the_lab_is_full_nobody_orders_and_nobody_is_let_in() {
        let gateway: url::Url = "http://127.0.0.1:9".parse().unwrap();
        let customers = Customers::new(&gateway);
        customers.wanted.send_replace(5);
        for number in 0..MOST_ORDERS {
            customers.seen().log.placed(number, "tok_visa", &number.to_string());
        }
        customers.shop(&mut Person::default()).await;
        assert_eq!(customers.summary().count, 0);
        customers.let_in(5, "a token").await.unwrap();
        let summary = customers.summary();
        assert!(summary.is_full && summary.count == 0 && summary.orders == MOST_ORDERS);
    }
}
