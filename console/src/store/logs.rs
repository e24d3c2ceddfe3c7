//! Log records.

use serde_json::Value;
use shared::db::{DbError, Query, Row, Tx, query};

use super::spans::Found;
use super::{Store, containing, parts, placeholders, starting, text};
use crate::domain::{Level, LogCondition, LogRecord, LogSearch};

const COLUMNS: &str = "id, at_us, trace_id, span_id, service, instance, level, message, attributes";

pub(super) async fn add(tx: &mut Tx, records: &[LogRecord]) -> Result<(), DbError> {
    for records in parts(records) {
        let insert = query(format!(
            "INSERT INTO logs (at_us, trace_id, span_id, service, instance, level, message, attributes) VALUES {}",
            placeholders(8, records.len())
        ));
        let bind = |insert: Query, record: &LogRecord| {
            insert
                .bind(record.at_us)
                .bind(record.trace_id.as_deref())
                .bind(record.span_id.as_deref())
                .bind(record.service.as_str())
                .bind(record.instance.as_deref())
                .bind(record.level as i64)
                .bind(record.message.as_str())
                .bind(text(&record.attributes))
        };
        records.iter().fold(insert, bind).execute(&mut *tx).await?;
    }
    Ok(())
}

impl Store {
    /// The records that match all of `search`, with their ids; those that arrived before the id `before`.
    pub async fn logs(
        &self,
        search: &LogSearch,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Found<(i64, LogRecord)>, DbError> {
        let mut parameters: Vec<shared::db::Value> = Vec::new();
        let mut conditions = vec!["id < $1".to_owned()];
        for condition in &search.0 {
            let (column, value): (_, shared::db::Value) = match condition {
                LogCondition::Service(name) => ("service =", name.as_str().into()),
                LogCondition::Instance(name) => ("instance =", name.as_str().into()),
                LogCondition::Level(level) => ("level >=", (*level as i64).into()),
                LogCondition::Trace(id) if id.len() == 32 => ("trace_id =", id.as_str().into()),
                LogCondition::Trace(id) => ("trace_id LIKE", starting(id).into()),
                LogCondition::Word(word) => ("message || ' ' || attributes LIKE", containing(word).into()),
            };
            parameters.push(value);
            let escape = if column.ends_with("LIKE") { " ESCAPE '\\'" } else { "" };
            conditions.push(format!("{column} ${}{escape}", parameters.len() + 2));
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM logs WHERE {} ORDER BY id DESC LIMIT $2",
            conditions.join(" AND ")
        );
        let start = query(sql).bind(before.unwrap_or(i64::MAX)).bind(limit + 1);
        let rows = parameters.into_iter().fold(start, Query::bind).fetch_all(&self.db).await?;
        let items = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        Ok(Found::page(items, limit, |(id, _)| *id))
    }

    /// The records of a trace, oldest first.
    pub async fn logs_of(&self, trace_id: &str) -> Result<Vec<(i64, LogRecord)>, DbError> {
        let rows =
            query(format!("SELECT {COLUMNS} FROM logs WHERE trace_id = $1 ORDER BY at_us, id LIMIT 2000"))
                .bind(trace_id)
                .fetch_all(&self.db)
                .await?;
        rows.iter().map(record).collect()
    }
}

fn record(row: &Row) -> Result<(i64, LogRecord), DbError> {
    let level: i64 = row.get("level")?;
    let attributes: Value = row.get("attributes")?;
    let record = LogRecord {
        at_us: row.get("at_us")?,
        trace_id: row.get("trace_id")?,
        span_id: row.get("span_id")?,
        service: row.get("service")?,
        instance: row.get("instance")?,
        level: Level::ALL.get(usize::try_from(level).unwrap_or_default()).copied().unwrap_or(Level::Info),
        message: row.get("message")?,
        attributes: attributes.as_object().cloned().unwrap_or_default(),
    };
    Ok((row.get("id")?, record))
}
