//! How long lists and timelines take, at a service's own port: one request after another, by one client.

use std::time::{Duration, SystemTime};

use e2e::Api;
use serde_json::Value;
use shared::db::now;
use tokio::time::Instant;

/// Reads of each list in one batch.
const REQUESTS: usize = 300;
/// Batches of reads. The best one counts, because other programs disturb some.
const BATCHES: usize = 6;
/// The pause after orders, in which our programs send their telemetry.
const PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct Reader {
    pub(crate) orders: Api,
    pub(crate) payments: Api,
    pub(crate) customer: String,
    pub(crate) admin: String,
}

/// One list, and the paths to read in turn.
struct List<'a> {
    name: &'static str,
    api: &'a Api,
    token: &'a str,
    paths: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Latency {
    pub(crate) name: &'static str,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Reader {
    /// `middle`: a time in the middle of all orders.
    pub(crate) async fn latencies(&self, middle: SystemTime) -> Result<Vec<Latency>, String> {
        let lists = self.lists(middle).await?;
        tokio::time::sleep(PAUSE).await;
        let mut best: Vec<Latency> = Vec::new();
        for _ in 0..BATCHES {
            for (number, list) in lists.iter().enumerate() {
                let (p50, p99) = list.read().await?;
                match best.get_mut(number) {
                    Some(best) => (best.p50, best.p99) = (best.p50.min(p50), best.p99.min(p99)),
                    None => best.push(Latency { name: list.name, p50, p99 }),
                }
            }
        }
        Ok(best)
    }

    async fn lists(&self, middle: SystemTime) -> Result<Vec<List<'_>>, String> {
        let Self { orders, payments, customer, admin } = self;
        let middle = now() - middle.elapsed().unwrap_or_default();
        let (date, (hour, minute, second)) = (middle.date(), middle.time().as_hms());
        let before = format!("{date}T{hour:02}:{minute:02}:{second:02}Z");
        let page = "/api/orders?limit=20";
        let newest = get(orders, customer, page).await?;
        let old = get(orders, customer, &format!("{page}&before={before}")).await?;
        let cursor = |page: &Value| page["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}"));
        let deep = cursor(&old).ok_or("A customer has too few orders.")?;
        let of_all = "/api/orders?limit=20&status=confirmed";
        let old_of_all = get(orders, admin, &format!("{of_all}&before={before}")).await?;
        let deep_of_all = cursor(&old_of_all).ok_or("There are too few orders.")?;
        let ids = |page: &Value| -> Vec<String> {
            let orders = page["orders"].as_array().into_iter().flatten();
            orders.filter_map(|order| order["id"].as_str().map(str::to_owned)).collect()
        };
        let (new, old) = (ids(&newest), ids(&old));
        let of_each = |path: &str| new.iter().chain(&old).map(|id| format!("{path}{id}")).collect::<Vec<_>>();
        let one = |path: &str| vec![path.to_owned()];
        let timelines = new.iter().chain(&old).map(|id| format!("/api/orders/{id}/timeline")).collect();
        let lists = [
            ("a customer's orders", orders, customer, one(page)),
            ("a customer's orders, a deep page", orders, customer, vec![format!("{page}{deep}")]),
            ("an order's timeline", orders, customer, timelines),
            ("all confirmed orders", orders, admin, one(of_all)),
            ("all confirmed orders, a deep page", orders, admin, vec![format!("{of_all}{deep_of_all}")]),
            ("stuck checkouts", orders, admin, one("/admin/sagas?state=stuck")),
            ("messages of an order", orders, admin, of_each("/admin/messages?subject=")),
            ("dead letters", orders, admin, one("/admin/dead-letters")),
            ("payments of an order", payments, customer, of_each("/api/payments?order_id=")),
            ("the ledger", payments, admin, one("/admin/ledger")),
            ("differences to the card network", payments, admin, one("/admin/differences")),
        ];
        let mut all = Vec::new();
        for (name, api, token, paths) in lists {
            all.push(List { name, api, token, paths });
        }
        Ok(all)
    }
}

impl List<'_> {
    async fn read(&self) -> Result<(Duration, Duration), String> {
        let mut times = Vec::with_capacity(REQUESTS);
        for path in self.paths.iter().cycle().take(REQUESTS) {
            let begun = Instant::now();
            get(self.api, self.token, path).await?;
            times.push(begun.elapsed());
        }
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        Ok((at(50), at(99)))
    }
}

async fn get(api: &Api, token: &str, path: &str) -> Result<Value, String> {
    let reply = api.with_token(token).try_get(path).await;
    let reply =
        reply.filter(|reply| reply.status == 200).ok_or_else(|| format!("{path} is not answered."))?;
    Ok(reply.body)
}
