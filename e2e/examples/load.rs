//! A steady load while something breaks, and the account of it afterwards.
//!
//! Customers read, and place orders under keys, trying again under the same key until the order is there.
//! On SIGTERM this stops, waits for all orders to rest, and compares three books: what customers were
//! told, what the shop lists, and what the card network charged. It prints the counts as one line of
//! `name=value`, and ends with 1 if an order was lost, is there twice, was charged twice, or does not rest.
//! `scripts/faults` runs it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Person, key};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::config::{ConfigError, Vars};
use shared::stop::Stop;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

struct Config {
    port: u16,
    customers: usize,
    statement: String,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            port: vars.or("PORT", "8080", "the gateway's port on this machine"),
            customers: vars.or("CUSTOMERS", "4", "how many read and order at a time"),
            statement: vars.required("STATEMENT", "command that prints the card network's statement"),
        };
        vars.finish(config)
    }
}

/// How customers pay: mostly at once, sometimes with difficulties.
const TOKENS: [&str; 8] = [
    "tok_visa",
    "tok_visa",
    "tok_flaky",
    "tok_visa",
    "tok_declined",
    "tok_visa",
    "tok_timeout_after_charge",
    "tok_capture_flaky",
];
const BETWEEN_READS: Duration = Duration::from_millis(20);
const BETWEEN_ORDERS: Duration = Duration::from_millis(200);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// How long an order is tried, and how long all of them may take to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What customers saw.
#[derive(Default)]
struct Seen {
    gets: u32,
    gets_failed: u32,
    /// Orders that were answered with 201.
    answered: BTreeSet<String>,
    retries: u32,
    /// Orders that were given up.
    unanswered: u32,
}

#[actix_web::main]
async fn main() -> std::process::ExitCode {
    let config = shared::config::load(Config::from_vars);
    let gateway = Api::at(config.port);
    let (stopper, stop) = Stop::pair();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut people = Vec::new();
    for _ in 0..config.customers {
        people.push(Rc::new(Person::register(&gateway).await));
    }
    let product = people[0].product().await;
    let tasks = people.iter().enumerate().flat_map(|(number, person)| {
        let reader = actix_web::rt::spawn(read(person.clone(), seen.clone(), stop.clone()));
        let buyer = order(person.clone(), product.clone(), number, seen.clone(), stop.clone());
        [reader, actix_web::rt::spawn(buyer)]
    });
    let tasks: Vec<_> = tasks.collect();
    println!("running");
    signal(SignalKind::terminate()).expect("signals can be received").recv().await;
    stopper.stop();
    join_all(tasks).await;

    let begun = Instant::now();
    let is_moving = |order: &&Value| expected_captures(order).is_none();
    let orders = loop {
        let listed = listed(&people).await.unwrap_or_default();
        if begun.elapsed() > PATIENCE || !listed.is_empty() && !listed.iter().any(|order| is_moving(&order)) {
            break listed;
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    };
    let moving = orders.iter().filter(is_moving).count();
    let rest = begun.elapsed();
    let seen = seen.borrow();
    let account = Account::of(&seen.answered, &orders, &captures(&config.statement));
    let Seen { gets, gets_failed, retries, unanswered, .. } = &*seen;
    let Account { lost, twice, overcharged, undercharged } = account;
    println!(
        "gets={gets} gets_failed={gets_failed} orders={} retries={retries} unanswered={unanswered} lost={lost} \
         twice={twice} overcharged={overcharged} undercharged={undercharged} moving={moving} rest_s={:.1}",
        seen.answered.len(),
        rest.as_secs_f64(),
    );
    let good = *unanswered == 0 && moving == 0 && account == Account::default();
    std::process::ExitCode::from(u8::from(!good))
}

/// Reads from each service in turn.
async fn read(person: Rc<Person>, seen: Rc<RefCell<Seen>>, stop: Stop) {
    let paths = ["/api/users/me", "/api/products?limit=5", "/api/orders?limit=5", "/api/payments?limit=5"];
    for path in paths.iter().cycle() {
        if stop.is_requested() {
            return;
        }
        let reply = person.api.try_get(path).await;
        seen.borrow_mut().gets += 1;
        if reply.as_ref().is_none_or(|reply| reply.status != 200) {
            seen.borrow_mut().gets_failed += 1;
            eprintln!("GET {path}: {}", told(reply.as_ref()));
        }
        tokio::time::sleep(BETWEEN_READS).await;
    }
}

/// Places one order after another, each under a key of its own until it is answered with 201.
async fn order(person: Rc<Person>, product: Value, number: usize, seen: Rc<RefCell<Seen>>, stop: Stop) {
    for token in TOKENS.iter().cycle().skip(number) {
        if stop.is_requested() {
            return;
        }
        let lines = json!([{ "product_id": product["id"], "quantity": 1 }]);
        let body = json!({ "lines": lines, "payment_token": token });
        let (key, begun) = ([key()], Instant::now());
        loop {
            match person.api.try_send(Method::POST, "/api/orders", &key, Some(&body)).await {
                Some(reply) if reply.status == 201 => {
                    seen.borrow_mut().answered.insert(id(&reply.body, "id"));
                    break;
                }
                reply if begun.elapsed() > PATIENCE => {
                    eprintln!("an order was given up: {}", told(reply.as_ref()));
                    seen.borrow_mut().unanswered += 1;
                    break;
                }
                reply => {
                    eprintln!("POST /api/orders is tried again: {}", told(reply.as_ref()));
                    seen.borrow_mut().retries += 1;
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            }
        }
        tokio::time::sleep(BETWEEN_ORDERS).await;
    }
}

fn told(reply: Option<&e2e::Reply>) -> String {
    reply.map_or_else(|| "no answer".to_owned(), |reply| format!("{} {}", reply.status, reply.body["code"]))
}

fn id(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// Every order that the shop lists for these people, if it answers.
async fn listed(people: &[Rc<Person>]) -> Option<Vec<Value>> {
    let mut orders = Vec::new();
    for person in people {
        let mut cursor = Some(String::new());
        while let Some(from) = cursor {
            let page = person.api.try_get(&format!("/api/orders?limit=100{from}")).await?.body;
            orders.extend(page["orders"].as_array()?.iter().cloned());
            cursor = page["next_cursor"].as_str().map(|next| format!("&cursor={next}"));
        }
    }
    Some(orders)
}

/// How often the card should have been charged for an order that rests.
fn expected_captures(order: &Value) -> Option<i64> {
    match order["status"].as_str() {
        Some("confirmed") => Some(1),
        Some("rejected") => Some(0),
        _ => None,
    }
}

/// How often the card was charged for each order, as the card network says.
fn captures(statement: &str) -> BTreeMap<String, i64> {
    let output = Command::new("sh").args(["-c", statement]).output().expect("a shell is there");
    let statement: Value = serde_json::from_slice(&output.stdout).expect("a statement is JSON");
    let mut captures = BTreeMap::new();
    for charge in statement["charges"].as_array().into_iter().flatten() {
        *captures.entry(id(charge, "order_id")).or_default() +=
            charge["times_captured"].as_i64().unwrap_or_default();
    }
    captures
}

/// What is wrong between the three books.
#[derive(Default, PartialEq, Eq)]
struct Account {
    /// Answered with 201, and not listed.
    lost: usize,
    /// Listed, though no key was answered with it.
    twice: usize,
    overcharged: usize,
    undercharged: usize,
}

impl Account {
    fn of(answered: &BTreeSet<String>, orders: &[Value], captures: &BTreeMap<String, i64>) -> Self {
        let listed: BTreeMap<_, _> = orders.iter().map(|order| (id(order, "id"), order)).collect();
        let charged = |than: fn(&i64, &i64) -> bool| {
            let of = |(id, order): &(&String, &&Value)| {
                let expected = expected_captures(order);
                expected.is_some_and(|expected| than(captures.get(*id).unwrap_or(&0), &expected))
            };
            listed.iter().filter(of).count()
        };
        Self {
            lost: answered.iter().filter(|id| !listed.contains_key(*id)).count(),
            twice: listed.keys().filter(|id| !answered.contains(*id)).count(),
            overcharged: charged(i64::gt),
            undercharged: charged(i64::lt),
        }
    }
}
