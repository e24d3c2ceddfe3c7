//! What people look at: orders, lists, timelines, sagas.

use shared::db::{DbError, Row, Value, query};
use shared::request::{Page, Paging};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, rows};
use crate::checkout::{Progress, Saga};
use crate::domain::{Order, Status};
use crate::error::Error;

/// Which orders of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only this customer's.
    pub customer_id: Option<Uuid>,
    /// Only those with a status of this name.
    pub status: Option<&'static str>,
}

/// One change of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The version that it made.
    pub version: i64,
    /// When.
    pub at: OffsetDateTime,
    /// The status before; nothing, for the first.
    pub from: Option<String>,
    /// The status after.
    pub to: Status,
    /// Why.
    pub cause: String,
    /// The message that told of it.
    pub message_id: Option<Uuid>,
    /// The try at which it came.
    pub attempt: i64,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The replica that made it.
    pub instance: String,
}

/// The saga of an order, for admins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaRow {
    /// Whose.
    pub order_id: Uuid,
    /// How far it is.
    pub saga: Saga,
}

/// Orders in one query of [`Store::newer`].
const BATCH: usize = 32;

/// The longest list of sagas; if there are more, the oldest are what matters.
const MOST_SAGAS: i64 = 500;

impl Store {
    /// The order.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn order(&self, id: Uuid) -> Result<Order, Error> {
        let sql = format!("SELECT {} FROM orders WHERE id = $1", rows::ORDER);
        let row = query(sql).bind(id).fetch_optional(&self.db).await?.ok_or(Error::NotFound)?;
        Ok(rows::order(&row)?)
    }

    /// Those of the orders `known`, by id and version, that have another version now.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn newer(&self, known: &[(Uuid, i64)]) -> Result<Vec<Order>, DbError> {
        // Always the same text, which the database prepares once.
        let places: Vec<String> = (1..=BATCH).map(|place| format!("${place}")).collect();
        let sql = format!("SELECT {} FROM orders WHERE id IN ({})", rows::ORDER, places.join(", "));
        let mut newer = Vec::new();
        for some in known.chunks(BATCH) {
            let ids = some.iter().cycle().take(BATCH);
            for row in ids.fold(query(&*sql), |query, (id, _)| query.bind(*id)).fetch_all(&self.db).await? {
                if !some.contains(&(row.get("id")?, row.get("version")?)) {
                    newer.push(rows::order(&row)?);
                }
            }
        }
        Ok(newer)
    }

    /// Orders, newest first.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn orders(&self, paging: &Paging, filter: Filter) -> Result<Page<Order>, DbError> {
        // One customer's orders are fewer than all of a status: with both, the former's index is used.
        let status = if filter.customer_id.is_some() { "COALESCE(status, '') =" } else { "status =" };
        // Only the conditions that there are, so that the database can choose the index for them.
        let wanted: [(&str, Option<Value>); 3] = [
            ("customer_id =", filter.customer_id.map(Value::from)),
            (status, filter.status.map(Value::from)),
            ("id <", paging.cursor.map(Value::from)),
        ];
        let (mut conditions, mut values) = ("TRUE".to_owned(), Vec::new());
        for (condition, value) in wanted {
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

    /// The changes of an order that made versions after `version`, oldest first.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn changes_after(&self, order_id: Uuid, version: i64) -> Result<Vec<TimelineEntry>, DbError> {
        let changes = query(
            "SELECT version, at, from_status, to_status, reason, cause, message_id, attempt, trace_id, \
             instance FROM order_events WHERE order_id = $1 AND version > $2 ORDER BY version",
        );
        let rows = changes.bind(order_id).bind(version).fetch_all(&self.db).await?;
        rows.iter().map(timeline_entry).collect()
    }

    /// The sagas that are running or stuck, or both, oldest first.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn sagas(&self, progress: Option<Progress>) -> Result<Vec<SagaRow>, DbError> {
        let condition = match progress {
            None => "TRUE",
            Some(Progress::Running) => "wake_at IS NOT NULL",
            Some(Progress::Stuck) => "wake_at IS NULL",
            Some(Progress::Done) => return Ok(Vec::new()),
        };
        let sql = format!(
            "SELECT id, step, attempts, deadline, wake_at, last_error FROM orders \
             WHERE step <> 'done' AND {condition} ORDER BY id LIMIT {MOST_SAGAS}"
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
