//! The audit table: what admins did to what belongs to other people. A row is written in the transaction of the act,
//! and never changed.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::Caller;
use crate::client::Context;
use crate::db::{Db, DbError, Row, Tx, query};
use crate::request::{Page, Paging};

/// One row, as it was written.
#[derive(Debug, Serialize)]
pub struct Act {
    id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    admin_id: Uuid,
    action: String,
    subject_id: Uuid,
    details: Value,
    request_id: Option<String>,
    trace_id: Option<String>,
}

/// Writes that `admin` did `action` to the thing `subject_id` in this request.
pub async fn record(
    tx: &mut Tx,
    admin: &Caller,
    context: &Context,
    action: &str,
    subject_id: Uuid,
    details: Value,
) -> Result<(), DbError> {
    let now = tx.now();
    query(
        "INSERT INTO admin_acts (id, at, admin_id, action, subject_id, details, request_id, trace_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(Uuid::now_v7())
    .bind(now)
    .bind(admin.id)
    .bind(action)
    .bind(subject_id)
    .bind(details)
    .bind(context.request_id())
    .bind(context.trace_id())
    .execute(tx)
    .await
    .map(drop)
}

/// Newest first.
pub async fn page(db: &Db, paging: &Paging) -> Result<Page<Act>, DbError> {
    let rows = query(
        "SELECT id, at, admin_id, action, subject_id, details, request_id, trace_id FROM admin_acts \
         WHERE $1 IS NULL OR id < $1 ORDER BY id DESC LIMIT $2",
    )
    .bind(paging.cursor)
    .bind(paging.fetch())
    .fetch_all(db)
    .await?;
    let acts = rows.iter().map(act).collect::<Result<Vec<_>, _>>()?;
    Ok(paging.page(acts, |act| act.id))
}

fn act(row: &Row) -> Result<Act, DbError> {
    Ok(Act {
        id: row.get("id")?,
        at: row.get("at")?,
        admin_id: row.get("admin_id")?,
        action: row.get("action")?,
        subject_id: row.get("subject_id")?,
        details: row.get("details")?,
        request_id: row.get("request_id")?,
        trace_id: row.get("trace_id")?,
    })
}
