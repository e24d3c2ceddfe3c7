//! `GET /api/orders/{id}/messages`: the messages of one order, each from the outbox of its sender to the inbox of its
//! receiver.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::HttpResponse;
use actix_web::web::Data;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use shared::request::PathId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer;
use super::operator::Operator;
use crate::clients::admin::{Admin, Asker, encoded};
use crate::config::ORDERS;

/// The most ids in one request to a service.
const MAX_IDS: usize = 100;

#[utoipa::path(get, path = "/api/orders/{id}/messages", tag = "orders", params(("id" = uuid::Uuid, Path)),
    responses((status = 200)))]
pub(crate) async fn list_order_messages(operator: Operator, id: PathId, admin: Data<Admin>) -> HttpResponse {
    let (id, asker) = (id.0, &operator.asker);
    let (subject, timeline) = (format!("subject={id}"), format!("/api/orders/{id}/timeline"));
    let names: Vec<_> = admin.names().collect();
    let sent = join_all(names.iter().map(async |name| rows(&admin, name, &subject, "outbox", asker).await));
    let (sent, timeline) = join(sent, admin.read(ORDERS, &timeline, asker)).await;

    let mut missing: BTreeSet<&str> = BTreeSet::new();
    let mut messages = Vec::new();
    for (name, rows) in names.iter().zip(sent) {
        match rows {
            Some(rows) => messages.extend(rows.into_iter().map(|row| of_outbox(name, row))),
            None => drop(missing.insert(name)),
        }
    }
    if timeline.is_none() {
        missing.insert(ORDERS);
    }
    messages.extend(of_timeline(&timeline.unwrap_or_default(), &messages));

    let received = join_all(names.iter().map(async |name| {
        let to_it = messages.iter().filter(|message| message["destination"] == *name);
        let ids: BTreeSet<_> = to_it.filter_map(|message| message["id"].as_str()).take(MAX_IDS).collect();
        if ids.is_empty() {
            return Some(Vec::new());
        }
        let ids = ids.into_iter().collect::<Vec<_>>().join(",");
        rows(&admin, name, &format!("ids={}", encoded(&ids)), "inbox", asker).await
    }));
    let mut inboxes = BTreeMap::new();
    for (name, rows) in names.iter().zip(received.await) {
        match rows {
            Some(rows) => inboxes.extend(rows.into_iter().map(|row| ((*name, row["id"].to_string()), row))),
            None => drop(missing.insert(name)),
        }
    }
    for message in &mut messages {
        let to = message["destination"].as_str().unwrap_or_default();
        let row = inboxes.get(&(to, message["id"].to_string())).cloned();
        message["received"] = row.unwrap_or_default();
    }
    messages.sort_by_cached_key(|message| (begin(message), message["id"].to_string()));
    answer::json(json!({ "messages": messages, "missing": missing }))
}

async fn rows(admin: &Admin, service: &str, query: &str, table: &str, asker: &Asker) -> Option<Vec<Value>> {
    let mut answer = admin.read(service, &format!("/admin/messages?{query}"), asker).await?;
    answer[table].as_array_mut().map(std::mem::take)
}

/// A message as its sender's outbox has it.
fn of_outbox(source: &str, mut row: Value) -> Value {
    row["source"] = json!(source);
    row
}

/// The messages in the order's timeline whose outbox row is deleted.
fn of_timeline(timeline: &Value, known: &[Value]) -> Vec<Value> {
    let events = timeline["events"].as_array().into_iter().flatten();
    let gone = events.filter(|event| {
        event["message_id"].is_string() && !known.iter().any(|message| message["id"] == event["message_id"])
    });
    let message =
        |event: &Value| json!({ "id": event["message_id"], "type": event["cause"], "destination": ORDERS });
    gone.map(message).collect()
}

/// When a message was written; if its outbox row is deleted, when it was handled.
fn begin(message: &Value) -> Option<OffsetDateTime> {
    let at = message["written_at"].as_str().or(message["received"]["handled_at"].as_str())?;
    OffsetDateTime::parse(at, &Rfc3339).ok()
}
