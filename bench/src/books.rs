//! What every part of the stack says of the same orders.

use serde_json::Value;

use crate::customer::Errand;
use crate::database::Entries;
use crate::site::Site;

/// All books, read at about the same time.
#[derive(Default)]
pub struct Books {
    /// order-service: every order.
    pub orders: Vec<Value>,
    /// payment-service: every payment.
    pub payments: Vec<Value>,
    /// The card network: every charge.
    pub charges: Vec<Value>,
    /// payment-service: the accounts.
    pub ledger: Value,
    /// payment-service's database: the entries that the accounts were made of.
    pub entries: Entries,
    /// order-service: what is on hand, reserved and sold.
    pub stock: Vec<Value>,
    /// Events that are not sent yet, of each service that sends any.
    pub unsent: Vec<(&'static str, i64)>,
    /// Events that could not be handled.
    pub dead_letters: Vec<Value>,
    /// Checkouts that are not done.
    pub running: Vec<Value>,
    /// Checkouts that wait for a person.
    pub stuck: Vec<Value>,
    /// Whether the gateway counts two healthy replicas of each service, and serves.
    pub is_healthy: bool,
}

impl Books {
    /// Reads them. `None` if somebody does not answer.
    pub async fn read(site: &Site) -> Option<Self> {
        let (mut unsent, mut dead_letters) = (Vec::new(), Vec::new());
        for service in ["order-service", "payment-service"] {
            unsent.push((service, site.asked(service, "/admin/outbox").await?["pending"].as_i64()?));
            dead_letters.extend(list(site.asked(service, "/admin/dead-letters").await?, "dead_letters")?);
        }
        let sagas = async |state| {
            let asked = site.asked("order-service", &format!("/admin/sagas?state={state}")).await?;
            list(asked, "sagas")
        };
        Some(Self {
            orders: pages(site, "orders").await?,
            payments: pages(site, "payments").await?,
            charges: list(site.asked("card-network", "/statement").await?, "charges")?,
            ledger: site.asked("payment-service", "/admin/ledger").await?,
            entries: site.payments.entries().await.ok()?,
            stock: list(site.asked("order-service", "/admin/stock").await?, "products")?,
            unsent,
            dead_letters,
            running: sagas("running").await?,
            stuck: sagas("stuck").await?,
            is_healthy: site.is_healthy().await,
        })
    }
}

fn list(mut body: Value, name: &str) -> Option<Vec<Value>> {
    match body[name].take() {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

/// Everything in a list, page by page, as the admin sees it.
async fn pages(site: &Site, things: &str) -> Option<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), Some(String::new()));
    while let Some(from) = cursor {
        let page = Errand::get(format!("/api/{things}?limit=100{from}"));
        let page = site.admin.try_once(&page).await.filter(|reply| reply.status == 200)?.body;
        cursor = page["next_cursor"].as_str().map(|next| format!("&cursor={next}"));
        all.extend(list(page, things)?);
    }
    Some(all)
}
