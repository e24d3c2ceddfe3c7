//! Counts the failures of an event's handler, in the database. The broker counts only deliveries.

use uuid::Uuid;

use crate::db::{DbError, query};
use crate::messages::inbox::Inbox;

pub(super) async fn failures(inbox: &Inbox, id: Uuid) -> Result<i64, DbError> {
    let failures = query("SELECT failures FROM inbox_failures WHERE consumer = $1 AND id = $2");
    let row = failures.bind(inbox.service()).bind(id).fetch_optional(inbox.db()).await?;
    row.map_or(Ok(0), |row| row.get("failures"))
}

/// Counts one more failure; returns the new count.
pub(super) async fn count_failure(inbox: &Inbox, id: Uuid) -> Result<i64, DbError> {
    let count = query(
        "INSERT INTO inbox_failures (consumer, id, failures, at) VALUES ($1, $2, 1, $3) \
         ON CONFLICT (consumer, id) DO UPDATE \
         SET failures = inbox_failures.failures + 1, at = excluded.at RETURNING failures",
    );
    let mut tx = inbox.db().begin().await?;
    let row = count.bind(inbox.service()).bind(id).bind(tx.now()).fetch_one(&mut tx).await?;
    tx.commit().await?;
    row.get("failures")
}
