//! The outbox and inbox rows that are still stored, for an admin's question about one subject.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Db, DbError, Row, query};

/// The newest events of a subject that are listed.
const LIMIT: i64 = 100;

/// An event that this service sends.
#[derive(Debug, Serialize)]
pub(super) struct OutboxRow {
    id: Uuid,
    r#type: Value,
    subject: Value,
    destination: String,
    #[serde(with = "time::serde::rfc3339")]
    written_at: OffsetDateTime,
    /// When it was delivered, or when it became a dead letter.
    #[serde(with = "time::serde::rfc3339::option")]
    sent_at: Option<OffsetDateTime>,
    /// Failures at the receiver.
    failures: i64,
    /// `None` if it is not sent again.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    last_error: Option<String>,
    is_dead_letter: bool,
    data: Value,
}

/// An event that this service receives.
#[derive(Debug, Serialize)]
pub(super) struct InboxRow {
    consumer: String,
    id: Uuid,
    /// When it was handled, or when it became a dead letter. `None` if the handler has only failed so far.
    #[serde(with = "time::serde::rfc3339::option")]
    handled_at: Option<OffsetDateTime>,
    /// Failures of the handler that a consumer of the broker has counted.
    failures: i64,
    last_error: Option<String>,
    is_dead_letter: bool,
}

/// The newest 100 outbox rows of `subject`, oldest first. Each of the two halves has an index.
pub(super) async fn outbox(db: &Db, subject: &str) -> Result<Vec<OutboxRow>, DbError> {
    let half = |sent: &str| {
        format!(
            "SELECT outbox.seq, outbox.id, outbox.destination, outbox.event, outbox.created_at, outbox.sent_at, \
                outbox.next_at, COALESCE(dead.attempts, outbox.attempts) AS failures, \
                COALESCE(dead.last_error, outbox.last_error) AS last_error, dead.at AS dead_at \
             FROM outbox LEFT JOIN dead_letters AS dead \
                ON dead.id = outbox.id AND dead.destination = outbox.destination \
             WHERE outbox.subject = $1 AND outbox.sent_at IS {sent}"
        )
    };
    let rows = query(format!("{} UNION ALL {} ORDER BY seq DESC LIMIT $2", half("NULL"), half("NOT NULL")));
    let mut rows = rows.bind(subject).bind(LIMIT).fetch_all(db).await?;
    rows.reverse();
    rows.iter().map(outbox_row).collect()
}

fn outbox_row(row: &Row) -> Result<OutboxRow, DbError> {
    let mut event: Value = row.get("event")?;
    let sent_at: Option<OffsetDateTime> = row.get("sent_at")?;
    let next_at = row.get("next_at")?;
    Ok(OutboxRow {
        id: row.get("id")?,
        r#type: event["type"].take(),
        subject: event["subject"].take(),
        destination: row.get("destination")?,
        written_at: row.get("created_at")?,
        sent_at,
        failures: row.get("failures")?,
        next_attempt_at: sent_at.is_none().then_some(next_at),
        last_error: row.get("last_error")?,
        is_dead_letter: row.get::<Option<OffsetDateTime>>("dead_at")?.is_some(),
        data: event["data"].take(),
    })
}

/// The inbox rows of `consumer` for the events `ids`, in no order.
pub(super) async fn inbox(db: &Db, consumer: &str, ids: Vec<Uuid>) -> Result<Vec<InboxRow>, DbError> {
    let rows = query(
        "SELECT value AS id, inbox.seen_at, COALESCE(dead.attempts, failed.failures, 0) AS failures, \
            dead.last_error, dead.at AS dead_at \
         FROM UNNEST($2) AS value \
         LEFT JOIN inbox ON inbox.consumer = $1 AND inbox.id = value \
         LEFT JOIN inbox_failures AS failed ON failed.consumer = $1 AND failed.id = value \
         LEFT JOIN dead_letters AS dead ON dead.id = value AND dead.destination = $1 \
         WHERE inbox.id IS NOT NULL OR failed.id IS NOT NULL",
    );
    let rows = rows.bind(consumer).bind(ids).fetch_all(db).await?;
    let row = |row: &Row| {
        Ok(InboxRow {
            consumer: consumer.to_owned(),
            id: row.get("id")?,
            handled_at: row.get("seen_at")?,
            failures: row.get("failures")?,
            last_error: row.get("last_error")?,
            is_dead_letter: row.get::<Option<OffsetDateTime>>("dead_at")?.is_some(),
        })
    };
    rows.iter().map(row).collect()
}
