//! Dead letters: events that could not be delivered or handled, stored until an admin decides.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Event;
use super::secrets::masked;
use crate::db::{Db, DbError, Row, Tx, query};

/// What an admin does to a dead letter, in the audit table.
pub(super) const DISCARD: &str = "dead_letter.discard";

/// A dead letter in the admin's list.
#[derive(Debug, Serialize)]
pub(super) struct DeadLetter {
    id: Uuid,
    r#type: String,
    subject: String,
    source: Value,
    attempts: i64,
    last_error: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// The payload, without secrets.
    data: Value,
}

/// Stores `event`, which was addressed to the service `destination`. PostgreSQL cannot store NUL
/// characters; they are replaced by U+FFFD.
pub(super) async fn keep(
    tx: &mut Tx,
    destination: &str,
    event: &Event,
    attempts: i64,
    why: &str,
) -> Result<(), DbError> {
    query(
        "INSERT INTO dead_letters (id, destination, type, subject, event, attempts, last_error, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING",
    )
    .bind(event.id)
    .bind(destination)
    .bind(without_nul(&event.kind))
    .bind(without_nul(&event.subject))
    .bind(json_without_nul(event.to_json()))
    .bind(attempts)
    .bind(without_nul(why))
    .bind(tx.now())
    .execute(tx)
    .await?;
    Ok(())
}

/// The newest 100.
pub(super) async fn list(db: &Db) -> Result<Vec<DeadLetter>, DbError> {
    let rows = query(
        "SELECT id, type, subject, event, attempts, last_error, at FROM dead_letters ORDER BY at DESC LIMIT 100",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(dead_letter).collect()
}

fn dead_letter(row: &Row) -> Result<DeadLetter, DbError> {
    let mut event: Value = row.get("event")?;
    Ok(DeadLetter {
        id: row.get("id")?,
        r#type: row.get("type")?,
        subject: row.get("subject")?,
        source: event["source"].take(),
        attempts: row.get("attempts")?,
        last_error: row.get("last_error")?,
        at: row.get("at")?,
        data: masked(event["data"].take()),
    })
}

/// Deletes a dead letter; returns its destination and the event, or `None` if there is no such one.
pub(super) async fn take(tx: &mut Tx, id: Uuid) -> Result<Option<(String, Event)>, DbError> {
    let taken = query("DELETE FROM dead_letters WHERE id = $1 RETURNING destination, event").bind(id);
    let Some(row) = taken.fetch_optional(tx).await? else { return Ok(None) };
    match serde_json::from_value(row.get("event")?) {
        Ok(event) => Ok(Some((row.get("destination")?, event))),
        Err(error) => {
            log::error!(message_id = id.to_string(), error:%; "a dead letter cannot be read");
            Ok(None)
        }
    }
}

fn json_without_nul(json: Value) -> Value {
    match json {
        Value::String(text) => without_nul(&text).into(),
        Value::Array(values) => values.into_iter().map(json_without_nul).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (without_nul(&name), json_without_nul(value))).collect()
        }
        json @ (Value::Null | Value::Bool(_) | Value::Number(_)) => json,
    }
}

pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
