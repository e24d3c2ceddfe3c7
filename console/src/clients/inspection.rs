//! The invariants of the whole stack, checked when somebody looks. Those who look at the same time share one look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use futures_util::future::{join, join_all};
use serde_json::Value;
use shared::http::{Call, exchange};

use super::admin::{Admin, Asker};
use super::gateway::Gateway;
use super::lab::Lab;
use crate::config::{ORDERS, PAYMENTS};
use crate::domain::invariants::snapshot::Snapshot;
use crate::domain::invariants::{Invariant, check};
use crate::domain::standing::{Judged, Standing};
use crate::tasks::customers::Customers;

/// The maximum age of a snapshot.
const FRESH: Duration = Duration::from_secs(3);
/// The time limit of each call. Longer than [`shared::lab::SLOW`], so that slow programs respond in time.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Left to `bench`: faults may make any share of the orders late, and no log here has an admin's refunds.
const NOT_HERE: [&str; 2] = ["late", "refunds"];
/// Pages of a list, of 100 each.
const MOST_PAGES: usize = 200;

pub struct Inspection {
    admin: Admin,
    gateway: Gateway,
    card_network: Option<String>,
    lab: Lab,
    customers: Arc<Customers>,
    last: tokio::sync::Mutex<Last>,
}

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    standing: Standing,
    judged: Option<Vec<Judged>>,
}

impl Inspection {
    pub fn new(
        admin: Admin,
        gateway: Gateway,
        card_network: Option<String>,
        lab: Lab,
        customers: Arc<Customers>,
    ) -> Self {
        let (admin, gateway) = (admin.with_timeout(TIMEOUT), gateway.with_timeout(TIMEOUT));
        Self { admin, gateway, card_network, lab, customers, last: Default::default() }
    }

    /// `None` if a service does not respond: then nothing can be judged, and the times of violations start again.
    pub async fn look(&self, asker: &Asker) -> Option<Vec<Judged>> {
        let mut last = self.last.lock().await;
        if last.at.is_some_and(|at| at.elapsed() < FRESH) {
            return last.judged.clone();
        }
        let (replicas, snapshot) = join(self.lab.replicas(asker), self.snapshot(asker)).await;
        let now = Instant::now();
        last.judged = match snapshot {
            Some(snapshot) => {
                // A program that does not answer may have any fault.
                let is_faulty = replicas.iter().any(|one| one.offers.is_empty() || !one.running.is_empty());
                Some(last.standing.judge(self.check(&snapshot), is_faulty, now))
            }
            None => {
                last.standing = Standing::default();
                None
            }
        };
        last.at = Some(now);
        last.judged.clone()
    }

    fn check(&self, snapshot: &Snapshot) -> Vec<Invariant> {
        let seen = self.customers.seen();
        let mut invariants = check(snapshot, &seen.log, &seen.people);
        invariants.retain(|invariant| !NOT_HERE.contains(&invariant.name));
        invariants
    }

    async fn snapshot(&self, asker: &Asker) -> Option<Snapshot> {
        let read = async |service: &str, path: &str| self.admin.read(service, path, asker).await;
        let (mut unsent, mut dead_letters) = (Vec::new(), Vec::new());
        let outboxes = self.admin.names().map(async |name| {
            (name, join(read(name, "/admin/outbox"), read(name, "/admin/dead-letters")).await)
        });
        for (name, (outbox, dead)) in join_all(outboxes).await {
            unsent.push((name.to_owned(), outbox?["pending"].as_i64()?));
            dead_letters.extend(list(dead?, "dead_letters")?);
        }
        // The books of others first: what they know of an order, order-service knows too, a moment later.
        let charges = self.statement().await?;
        let payments = self.pages(PAYMENTS, "/api/payments?limit=100", "payments", asker).await?;
        Some(Snapshot {
            ledger: read(PAYMENTS, "/admin/ledger").await?,
            differences: self.pages(PAYMENTS, "/admin/differences?limit=100", "differences", asker).await?,
            entries: None,
            stock: list(read(ORDERS, "/admin/stock").await?, "products")?,
            running: list(read(ORDERS, "/admin/sagas?state=running").await?, "sagas")?,
            stuck: list(read(ORDERS, "/admin/sagas?state=stuck").await?, "sagas")?,
            orders: self.pages(ORDERS, "/api/orders?limit=100", "orders", asker).await?,
            is_healthy: self.is_healthy().await,
            charges,
            payments,
            unsent,
            dead_letters,
        })
    }

    async fn pages(&self, service: &str, path: &str, name: &str, asker: &Asker) -> Option<Vec<Value>> {
        let (mut all, mut next) = (Vec::new(), path.to_owned());
        for _ in 0..MOST_PAGES {
            let page = self.admin.read(service, &next, asker).await?;
            let cursor = page["next_cursor"].as_str().map(|cursor| format!("{path}&cursor={cursor}"));
            all.extend(list(page, name)?);
            match cursor {
                Some(cursor) => next = cursor,
                None => return Some(all),
            }
        }
        None
    }

    async fn statement(&self) -> Option<Vec<Value>> {
        let url = format!("{}/statement", self.card_network.as_ref()?);
        let answer = exchange(Call::new(Method::GET, url, TIMEOUT)).await.ok()?;
        list(answer.json().ok()?, "charges")
    }

    /// Whether every replica that is registered is healthy, and each service with a route has one.
    async fn is_healthy(&self) -> bool {
        let (services, routes) = join(self.gateway.services(), self.gateway.routes()).await;
        let (Ok(services), Ok(routes)) = (services, routes) else { return false };
        let is_whole = |name: &str| {
            let mut known = services.iter().filter(|service| service.name == name);
            known.any(|service| {
                let replicas = &service.instances;
                !replicas.is_empty() && replicas.iter().all(|replica| replica.health == "healthy")
            })
        };
        routes.iter().all(|route| is_whole(&route.service))
    }
}

fn list(mut body: Value, name: &str) -> Option<Vec<Value>> {
    match body[name].take() {
        Value::Array(list) => Some(list),
        _ => None,
    }
}
