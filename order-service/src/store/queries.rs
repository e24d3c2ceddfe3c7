//! Orders, lists, timelines and sagas, as people read them.

use std::collections::BTreeMap;

use shared::db::{DbError, Row, Value, query};
use shared::request::{Page, Paging};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, rows};
use crate::checkout::{Progress, Saga};
use crate::domain::{Order, Status};
use crate::error::Error;

/// Which orders to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    pub customer_id: Option<Uuid>,
    /// The name of a status.
    pub status: Option<&'static str>,
    /// Orders placed before this time, by the time in their id (UUIDv7, in milliseconds, of the replica's clock).
    pub before: Option<OffsetDateTime>,
}

impl Filter {
    /// The smallest id (UUIDv7) at the time `before`. Orders placed earlier have smaller ids.
    fn first_id_not_before(&self) -> Option<Uuid> {
        let milliseconds = u64::try_from(self.before?.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        Some(uuid::Builder::from_unix_timestamp_millis(milliseconds, &[0; 10]).into_uuid())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The version of the order after the change.
    pub version: i64,
    pub at: OffsetDateTime,
    /// The status before. `None` for a new order.
    pub from: Option<String>,
    pub to: Status,
    pub cause: String,
    pub message_id: Option<Uuid>,
    pub attempt: i64,
    pub trace_id: Option<String>,
    /// The replica that made the change.
    pub instance: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaRow {
    pub order_id: Uuid,
    pub saga: Saga,
}

const MAX_SAGAS: i64 = 500;

impl Store {
    pub async fn order(&self, id: Uuid) -> Result<Order, Error> {
        let sql = format!("SELECT {} FROM orders WHERE id = $1", rows::ORDER);
        let row = query(sql).bind(id).fetch_optional(&self.db).await?.ok_or(Error::NotFound)?;
        Ok(rows::order(&row)?)
    }

    /// The orders that have changed and no longer await payment: until then, only their sagas change. `versions` holds the
    /// id and the known version of each order.
    pub async fn newer_than(&self, versions: &[(Uuid, i64)]) -> Result<Vec<Order>, DbError> {
        let Some(least) = versions.iter().map(|(_, version)| *version).min() else { return Ok(Vec::new()) };
        let known: BTreeMap<Uuid, i64> = versions.iter().copied().collect();
        let ids: Vec<_> = known.keys().copied().collect();
        let sql = format!(
            "SELECT {} FROM orders WHERE id = ANY($1) AND version > $2 AND status <> '{}'",
            rows::ORDER,
            Status::AwaitingPayment.as_str()
        );
        let mut newer = Vec::new();
        for row in query(sql).bind(ids).bind(least).fetch_all(&self.db).await? {
            if known.get(&row.get("id")?) != Some(&row.get("version")?) {
                newer.push(rows::order(&row)?);
            }
        }
        Ok(newer)
    }

    /// Newest first.
    pub async fn orders(&self, paging: &Paging, filter: Filter) -> Result<Page<Order>, DbError> {
        // With both filters, COALESCE prevents the use of the index on the status. The index on the customer is
        // better, because one customer has fewer orders.
        let status = if filter.customer_id.is_some() { "COALESCE(status, '') =" } else { "status =" };
        // An absent filter adds no condition, so that the database can choose the best index.
        let filters: [(&str, Option<Value>); 4] = [
            ("customer_id =", filter.customer_id.map(Value::from)),
            (status, filter.status.map(Value::from)),
            ("id <", paging.cursor.map(Value::from)),
            ("id <", filter.first_id_not_before().map(Value::from)),
        ];
        let (mut conditions, mut values) = ("TRUE".to_owned(), Vec::new());
        for (condition, value) in filters {
            let Some(value) = value else { continue };
            values.push(value);
            conditions.push_str(&format!(" AND {condition} ${}", values.len()));
        }
        let sql = format!(
            "SELECT {} FROM orders WHERE {conditions} ORDER BY id DESC LIMIT {}",
            rows::ORDER,
            paging.fetch()
        );
        let rows = values.into_iter().fold(query(sql), |query, value| query.bind(value));
        let rows = rows.fetch_all(&self.db).await?;
        let orders = rows.iter().map(rows::order).collect::<Result<Vec<_>, _>>()?;
        Ok(paging.page(orders, |order| order.id))
    }

    /// The changes of an order after `version`, oldest first.
    pub async fn changes_after(&self, order_id: Uuid, version: i64) -> Result<Vec<TimelineEntry>, DbError> {
        let changes = query(
            "SELECT version, at, from_status, to_status, reason, cause, message_id, attempt, trace_id, \
             instance FROM order_events WHERE order_id = $1 AND version > $2 ORDER BY version",
        );
        let rows = changes.bind(order_id).bind(version).fetch_all(&self.db).await?;
        rows.iter().map(timeline_entry).collect()
    }

    /// The sagas that are not done, oldest first, at most 500.
    pub async fn sagas(&self, progress: Option<Progress>) -> Result<Vec<SagaRow>, DbError> {
        let condition = match progress {
            None => "TRUE",
            Some(Progress::Running) => "wake_at IS NOT NULL",
            Some(Progress::Stuck) => "wake_at IS NULL",
            Some(Progress::Done) => return Ok(Vec::new()),
        };
        let sql = format!(
            "SELECT id, step, attempts, deadline, wake_at, last_error FROM orders \
             WHERE step <> 'done' AND {condition} ORDER BY id LIMIT {MAX_SAGAS}"
        );
        let rows = query(sql).fetch_all(&self.db).await?;
        rows.iter().map(|row| Ok(SagaRow { order_id: row.get("id")?, saga: rows::saga(row)? })).collect()
    }
}

fn timeline_entry(row: &Row) -> Result<TimelineEntry, DbError> {
    Ok(TimelineEntry {
        version: row.get("version")?,
        at: row.get("at")?,
        from: row.get("from_status")?,
        to: rows::status(&row.get::<String>("to_status")?, row.get("reason")?)?,
        cause: row.get("cause")?,
        message_id: row.get("message_id")?,
        attempt: row.get("attempt")?,
        trace_id: row.get("trace_id")?,
        instance: row.get("instance")?,
    })
}
