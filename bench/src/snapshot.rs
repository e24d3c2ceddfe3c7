//! The state of every part of the stack, as each reports it.

use serde_json::Value;
use xtask::services;

use crate::customer::Request;
use crate::database::Entries;
use crate::deployment::Deployment;

/// Taken part by part, not at one moment.
#[derive(Default)]
pub struct Snapshot {
    /// order-service: every order.
    pub orders: Vec<Value>,
    /// payment-service: every payment.
    pub payments: Vec<Value>,
    /// The card network: every charge.
    pub charges: Vec<Value>,
    /// payment-service: the ledger's accounts.
    pub ledger: Value,
    /// payment-service: where the card network contradicts its books.
    pub differences: Vec<Value>,
    /// payment-service's database: the ledger's entries.
    pub entries: Entries,
    /// order-service: on hand, reserved and sold, by product.
    pub stock: Vec<Value>,
    /// The size of each outbox, by service.
    pub unsent: Vec<(&'static str, i64)>,
    /// Of all services.
    pub dead_letters: Vec<Value>,
    /// Sagas.
    pub running: Vec<Value>,
    /// Sagas that wait for an operator.
    pub stuck: Vec<Value>,
    pub is_healthy: bool,
}

impl Snapshot {
    /// `None` if a service does not answer.
    pub async fn take(deployment: &Deployment) -> Option<Self> {
        let (mut unsent, mut dead_letters) = (Vec::new(), Vec::new());
        for service in services().filter(|service| service.messages).map(|service| service.name) {
            unsent.push((service, deployment.get(service, "/admin/outbox").await?["pending"].as_i64()?));
            dead_letters.extend(list(deployment.get(service, "/admin/dead-letters").await?, "dead_letters")?);
        }
        let sagas = async |state| {
            let body = deployment.get("order-service", &format!("/admin/sagas?state={state}")).await?;
            list(body, "sagas")
        };
        Some(Self {
            orders: pages(deployment, "orders").await?,
            payments: pages(deployment, "payments").await?,
            charges: list(deployment.get("card-network", "/statement").await?, "charges")?,
            ledger: deployment.get("payment-service", "/admin/ledger").await?,
            differences: match deployment.get("payment-service", "/admin/differences").await {
                Some(body) => list(body, "differences")?,
                // An earlier version, which lists none: then there must be none.
                None => Vec::new(),
            },
            entries: deployment.payments.entries().await.ok()?,
            stock: list(deployment.get("order-service", "/admin/stock").await?, "products")?,
            unsent,
            dead_letters,
            running: sagas("running").await?,
            stuck: sagas("stuck").await?,
            is_healthy: deployment.is_healthy().await,
        })
    }
}

fn list(mut body: Value, name: &str) -> Option<Vec<Value>> {
    match body[name].take() {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

/// Every page of a list, as the admin sees it.
async fn pages(deployment: &Deployment, things: &str) -> Option<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), Some(String::new()));
    while let Some(from) = cursor {
        let page = Request::get(format!("/api/{things}?limit=100{from}"));
        let page = deployment.admin.send_once(&page).await.filter(|reply| reply.status == 200)?.body;
        cursor = page["next_cursor"].as_str().map(|next| format!("&cursor={next}"));
        all.extend(list(page, things)?);
    }
    Some(all)
}
