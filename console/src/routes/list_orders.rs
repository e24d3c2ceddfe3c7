//! `GET /api/orders`: all orders, and before them those that need a person.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use shared::request::Params;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer;
use super::operator::Operator;
use crate::clients::admin::{Admin, encoded};
use crate::config::ORDERS;
use crate::error::Error;

/// Orders whose saga is stuck, at most.
const MOST_STUCK: usize = 50;

#[utoipa::path(get, path = "/api/orders", tag = "orders",
    params(("status" = Option<String>, Query), ("customer_id" = Option<uuid::Uuid>, Query),
        ("older_than" = Option<u32>, Query, description = "seconds since the order was placed"),
        ("limit" = Option<u8>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_orders(
    operator: Operator,
    params: Params,
    admin: Data<Admin>,
) -> Result<HttpResponse, Error> {
    let mut query = Vec::new();
    for name in ["status", "customer_id", "limit", "cursor"] {
        if let Some(value) = params.optional::<String>(name, "text")?.filter(|value| !value.is_empty()) {
            query.push(format!("{name}={}", encoded(&value)));
        }
    }
    if let Some(seconds) = params.optional::<u32>("older_than", "a number of seconds")? {
        let before = OffsetDateTime::now_utc() - Duration::from_secs(seconds.into());
        query.push(format!("before={}", encoded(&before.format(&Rfc3339).unwrap_or_default())));
    }
    let is_first = !query.iter().any(|pair| pair.starts_with("cursor="));
    let path = format!("/api/orders?{}", query.join("&"));
    let asker = &operator.asker;
    let (orders, sagas) =
        join(admin.get(ORDERS, &path, asker), admin.read(ORDERS, "/admin/sagas", asker)).await;
    let orders = orders?;
    if !orders.status.is_success() {
        return Ok(answer::passed(&orders));
    }
    let page: Value = orders.json()?;
    let missing = if sagas.is_some() { Vec::new() } else { vec!["sagas"] };
    let sagas = by_order(sagas.unwrap_or_default());
    let listed = page["orders"].as_array().cloned().unwrap_or_default();
    let attention = match is_first {
        true => stuck(&listed, &sagas, &admin, &operator).await,
        false => Vec::new(),
    };
    let entry = |order: Value| {
        let saga = order["id"].as_str().and_then(|id| sagas.get(id)).cloned();
        json!({ "order": order, "saga": saga })
    };
    Ok(answer::json(json!({
        "attention": attention.into_iter().map(entry).collect::<Vec<_>>(),
        "orders": listed.into_iter().map(entry).collect::<Vec<_>>(),
        "next_cursor": page["next_cursor"],
        "missing": missing,
    })))
}

/// The sagas that are not done, by the id of their order.
pub(super) fn by_order(answer: Value) -> BTreeMap<String, Value> {
    let sagas = answer["sagas"].as_array().cloned().unwrap_or_default();
    sagas.into_iter().filter_map(|saga| Some((saga["order_id"].as_str()?.to_owned(), saga))).collect()
}

/// The orders that need a person: listed ones first by what is known already, others by asking.
async fn stuck(
    listed: &[Value],
    sagas: &BTreeMap<String, Value>,
    admin: &Admin,
    operator: &Operator,
) -> Vec<Value> {
    let ids = sagas.iter().filter(|(_, saga)| saga["state"] == "stuck").map(|(id, _)| id.as_str());
    let ids: Vec<_> = ids.take(MOST_STUCK).collect();
    let found = ids.iter().map(async |id| match listed.iter().find(|order| order["id"] == **id) {
        Some(order) => Some(order.clone()),
        None => admin.read(ORDERS, &format!("/api/orders/{id}"), &operator.asker).await,
    });
    let mut found: Vec<Value> = join_all(found).await.into_iter().flatten().collect();
    let needs = |order: &&Value| {
        order["status"] == "needs_attention" && !ids.contains(&order["id"].as_str().unwrap_or_default())
    };
    found.extend(listed.iter().filter(needs).cloned());
    found
}
