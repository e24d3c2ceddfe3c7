//! The outbox and inbox rows that are still stored, for an admin's question about one subject.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::dead_letters::DISCARD;
use super::secrets::masked;
use crate::db::{Db, DbError, Row, query};

/// How many events of a subject are listed.
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
    /// An admin has discarded the dead letter.
    is_discarded: bool,
    /// The payload, without secrets.
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
    /// Failures of the handler, as far as they are counted: those of a dead letter, and those over a broker.
    failures: i64,
    last_error: Option<String>,
    is_dead_letter: bool,
    /// An admin has discarded the dead letter.
    is_discarded: bool,
}

/// Whether an admin has discarded the dead letter of the event `id`. It is no dead letter any more.
fn discarded(id: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM admin_acts WHERE action = '{DISCARD}' AND subject_id = {id}) AS is_discarded"
    )
}

/// The newest 100 outbox rows of `subject`, oldest first. Sent and unsent events have an index each.
pub(super) async fn outbox(db: &Db, subject: &str) -> Result<Vec<OutboxRow>, DbError> {
    let half = |sent: &str| {
        format!(
            "SELECT outbox.seq, outbox.id, outbox.destination, outbox.event, outbox.created_at, outbox.sent_at, \
                outbox.next_at, COALESCE(dead.attempts, outbox.attempts) AS failures, \
                COALESCE(dead.last_error, outbox.last_error) AS last_error, dead.at AS dead_at, {} \
             FROM outbox LEFT JOIN dead_letters AS dead \
                ON dead.id = outbox.id AND dead.destination = outbox.destination \
             WHERE outbox.subject = $1 AND outbox.sent_at IS {sent}",
            discarded("outbox.id")
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
        is_discarded: row.get("is_discarded")?,
        data: masked(event["data"].take()),
    })
}

/// The inbox rows of `consumer` for the events `ids`, in no order.
pub(super) async fn inbox(db: &Db, consumer: &str, ids: Vec<Uuid>) -> Result<Vec<InboxRow>, DbError> {
    let rows = query(format!(
        "SELECT value AS id, inbox.seen_at, COALESCE(dead.attempts, failed.failures, 0) AS failures, \
            dead.last_error, dead.at AS dead_at, {} \
         FROM UNNEST($2) AS value \
         LEFT JOIN inbox ON inbox.consumer = $1 AND inbox.id = value \
         LEFT JOIN inbox_failures AS failed ON failed.consumer = $1 AND failed.id = value \
         LEFT JOIN dead_letters AS dead ON dead.id = value AND dead.destination = $1 \
         WHERE inbox.id IS NOT NULL OR failed.id IS NOT NULL",
        discarded("value")
    ));
    let rows = rows.bind(consumer).bind(ids).fetch_all(db).await?;
    let row = |row: &Row| {
        Ok(InboxRow {
            consumer: consumer.to_owned(),
            id: row.get("id")?,
            handled_at: row.get("seen_at")?,
            failures: row.get("failures")?,
            last_error: row.get("last_error")?,
            is_dead_letter: row.get::<Option<OffsetDateTime>>("dead_at")?.is_some(),
            is_discarded: row.get("is_discarded")?,
        })
    };
    rows.iter().map(row).collect()
}
