//! The audit table: what admins did to other users. It is written in the transaction of the change.

use shared::db::{DbError, Row, Tx, query};
use shared::request::{Page, Paging};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use crate::domain::AdminChange;

/// One row, as it was written.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub id: Uuid,
    pub at: OffsetDateTime,
    pub admin_id: Uuid,
    pub user_id: Uuid,
    pub action: String,
    pub fields: Vec<String>,
    pub client: String,
    pub trace_id: Option<String>,
}

impl Store {
    pub async fn record(&self, tx: &mut Tx, change: &AdminChange) -> Result<(), DbError> {
        let now = tx.now();
        query(
            "INSERT INTO audit (id, at, admin_id, user_id, action, fields, client, trace_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(Uuid::now_v7())
        .bind(now)
        .bind(change.admin_id)
        .bind(change.user_id)
        .bind(change.action.as_str())
        .bind(change.action.fields().join(","))
        .bind(change.client.as_str())
        .bind(change.trace_id.as_deref())
        .execute(tx)
        .await
        .map(drop)
    }

    /// A page of the audit table, newest first.
    pub async fn audit(&self, paging: &Paging) -> Result<Page<AuditEntry>, DbError> {
        let rows = query(
            "SELECT id, at, admin_id, user_id, action, fields, client, trace_id FROM audit \
             WHERE $1 IS NULL OR id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(paging.cursor)
        .bind(paging.fetch())
        .fetch_all(&self.db)
        .await?;
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        Ok(paging.page(entries, |entry| entry.id))
    }
}

fn entry(row: &Row) -> Result<AuditEntry, DbError> {
    let fields: String = row.get("fields")?;
    Ok(AuditEntry {
        id: row.get("id")?,
        at: row.get("at")?,
        admin_id: row.get("admin_id")?,
        user_id: row.get("user_id")?,
        action: row.get("action")?,
        fields: fields.split_terminator(',').map(str::to_owned).collect(),
        client: row.get("client")?,
        trace_id: row.get("trace_id")?,
    })
}
