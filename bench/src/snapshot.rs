//! Asks every part of the stack for its state.

use console::domain::invariants::snapshot::Snapshot;
use serde_json::Value;
use xtask::services;

use crate::customer::Request;
use crate::deployment::Deployment;

/// `None` if a service does not answer.
pub async fn take(deployment: &Deployment) -> Option<Snapshot> {
    let (mut unsent, mut dead_letters) = (Vec::new(), Vec::new());
    for service in services().filter(|service| service.messages).map(|service| service.name) {
        unsent
            .push((service.to_owned(), deployment.get(service, "/admin/outbox").await?["pending"].as_i64()?));
        dead_letters.extend(list(deployment.get(service, "/admin/dead-letters").await?, "dead_letters")?);
    }
    let sagas = async |state| {
        let body = deployment.get("order-service", &format!("/admin/sagas?state={state}")).await?;
        list(body, "sagas")
    };
    Some(Snapshot {
        orders: pages(deployment, "orders").await?,
        payments: pages(deployment, "payments").await?,
        charges: list(deployment.get("card-network", "/statement").await?, "charges")?,
        ledger: deployment.get("payment-service", "/admin/ledger").await?,
        differences: differences(deployment).await?,
        entries: Some(deployment.payments.entries().await.ok()?),
        stock: list(deployment.get("order-service", "/admin/stock").await?, "products")?,
        unsent,
        dead_letters,
        running: sagas("running").await?,
        stuck: sagas("stuck").await?,
        is_healthy: deployment.is_healthy().await,
    })
}

fn list(mut body: Value, name: &str) -> Option<Vec<Value>> {
    match body[name].take() {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

/// All of them. An earlier version lists none: then there must be none.
async fn differences(deployment: &Deployment) -> Option<Vec<Value>> {
    let (mut all, mut path) = (Vec::new(), "/admin/differences".to_owned());
    loop {
        let Some(page) = deployment.get("payment-service", &path).await else {
            return all.is_empty().then_some(all);
        };
        let next = page["next_cursor"].as_str().map(|next| format!("/admin/differences?cursor={next}"));
        all.extend(list(page, "differences")?);
        match next {
            Some(next) => path = next,
            None => return Some(all),
        }
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
