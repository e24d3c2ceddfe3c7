//! `GET /api/orders/{id}`: one order with its saga, its money and its traces. What does not answer is named.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::Data;
use futures_util::future::{join, join_all, join5};
use serde_json::{Value, json};
use shared::http::{Call, exchange};
use shared::request::PathId;

use super::answer;
use super::list_orders::by_order;
use super::operator::Operator;
use crate::clients::admin::{Admin, Asker};
use crate::config::{Config, ORDERS, PAYMENTS};
use crate::error::Error;
use crate::store::Store;

const STATEMENT_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(700);
/// Statuses in which a customer's cancel is accepted.
const CANCELLABLE: [&str; 2] = ["awaiting_payment", "confirmed"];

/// The URL of the card network, if it is configured.
pub struct CardNetwork(pub Option<String>);

impl CardNetwork {
    pub fn of(config: &Config) -> Self {
        Self(config.card_network.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()))
    }
}

#[utoipa::path(get, path = "/api/orders/{id}", tag = "orders", params(("id" = uuid::Uuid, Path)),
    responses((status = 200), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_order(
    operator: Operator,
    id: PathId,
    admin: Data<Admin>,
    network: Data<CardNetwork>,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let (id, asker) = (id.0, &operator.asker);
    let (path, timeline) = (format!("/api/orders/{id}"), format!("/api/orders/{id}/timeline"));
    let payments = format!("/api/payments?order_id={id}&limit=100");
    let (order, timeline, sagas, payments, statement) = join5(
        admin.get(ORDERS, &path, asker),
        admin.read(ORDERS, &timeline, asker),
        admin.read(ORDERS, "/admin/sagas", asker),
        admin.read(PAYMENTS, &payments, asker),
        statement(&network, &id.to_string()),
    )
    .await;
    let order = order?;
    if !order.status.is_success() {
        return Ok(answer::passed(&order));
    }
    let order: Value = order.json()?;
    let parts = [
        ("timeline", timeline.is_none()),
        ("saga", sagas.is_none()),
        ("payments", payments.is_none()),
        ("statement", statement.is_none()),
    ];
    let mut missing: Vec<_> =
        parts.into_iter().filter(|(_, is_missing)| *is_missing).map(|(part, _)| part).collect();
    let timeline = timeline.map_or_else(|| json!([]), |mut answer| answer["events"].take());
    let payments = payments.map_or_else(|| json!([]), |mut answer| answer["payments"].take());
    let saga = by_order(sagas.unwrap_or_default()).remove(&id.to_string());
    let (entries, traces) = join(entries(&payments, &admin, asker), traces(&timeline, &store)).await;
    if entries.is_none() {
        missing.push("entries");
    }
    Ok(answer::json(json!({
        "actions": actions(&order, saga.as_ref()),
        "order": order,
        "saga": saga,
        "missing": missing,
        "timeline": timeline,
        "payments": payments,
        "entries": entries.unwrap_or_default(),
        "statement": statement.unwrap_or_else(|| json!([])),
        "traces": traces?,
    })))
}

/// What an admin can do with the order now.
fn actions(order: &Value, saga: Option<&Value>) -> Vec<&'static str> {
    let is_stuck = saga.is_some_and(|saga| saga["state"] == "stuck");
    let mut actions = if is_stuck { vec!["resume", "compensate"] } else { Vec::new() };
    if CANCELLABLE.iter().any(|status| order["status"] == *status) {
        actions.push("cancel");
    }
    actions
}

/// The ledger's lines of all payments, oldest first; `None` if some are missing.
async fn entries(payments: &Value, admin: &Admin, asker: &Asker) -> Option<Vec<Value>> {
    let ids = payments.as_array().into_iter().flatten().filter_map(|payment| payment["id"].as_str());
    let read = ids.map(async |id| {
        let mut answer = admin.read(PAYMENTS, &format!("/admin/payments/{id}/entries"), asker).await?;
        answer["entries"].as_array_mut().map(std::mem::take)
    });
    let lists: Option<Vec<Vec<Value>>> = join_all(read).await.into_iter().collect();
    let mut entries: Vec<_> = lists?.into_iter().flatten().collect();
    entries.sort_by_key(|entry| entry["at"].as_str().unwrap_or_default().to_owned());
    Some(entries)
}

/// The card network's statement of the order.
async fn statement(network: &CardNetwork, id: &str) -> Option<Value> {
    let url = format!("{}/statement?order_id={id}", network.0.as_ref()?);
    let answer = exchange(Call::new(Method::GET, url, STATEMENT_TIMEOUT)).await.ok()?;
    let mut statement: Value = answer.json().ok().filter(|_| answer.status.is_success())?;
    Some(statement["charges"].take())
}

/// The traces that the timeline names, newest first.
async fn traces(timeline: &Value, store: &Store) -> Result<Vec<Value>, Error> {
    let mut traces: Vec<(String, Value)> = Vec::new();
    for event in timeline.as_array().into_iter().flatten().rev() {
        if let Some(id) = event["trace_id"].as_str()
            && !traces.iter().any(|(known, _)| known == id)
        {
            traces.push((id.to_owned(), event["at"].clone()));
        }
    }
    let ids: Vec<_> = traces.iter().map(|(id, _)| id.clone()).collect();
    let kept = store.are_kept(&ids).await?;
    let described =
        traces.into_iter().map(|(id, at)| json!({ "is_kept": kept.contains(&id), "id": id, "at": at }));
    Ok(described.collect())
}
