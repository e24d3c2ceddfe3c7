//! Spans, log records and figures in SQLite, bounded by age and size. One task writes; see [`crate::tasks`].

mod logs; // log records
mod prune; // what is old, or too much
mod rollups; // requests by service and route over time
mod spans; // spans and traces

pub use rollups::{Rollup, STEP_S};
pub use spans::{Found, Summary};

use serde::Serialize;
use shared::db::{Db, DbError, Migrations, Tx};

use crate::domain::{LogRecord, Span};

/// How many rows one statement inserts: as many as fit. With any number of rows, each would be another statement to
/// prepare.
const ROWS: [usize; 3] = [64, 8, 1];

pub fn migrations() -> Migrations {
    Migrations { sqlite: sqlx::migrate!("migrations/sqlite"), ..Migrations::none() }
}

#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
}

impl Store {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Writes what has arrived, in one transaction.
    pub async fn add(&self, spans: &[Span], logs: &[LogRecord]) -> Result<(), DbError> {
        self.db
            .transaction(async |tx: &mut Tx| {
                let new = spans::add(tx, spans).await?;
                rollups::add(tx, &new).await?;
                logs::add(tx, logs).await
            })
            .await
    }

    /// Deletes what ended before `before_us`; and the oldest tenth as long as there are more than `max_bytes`.
    pub async fn prune(&self, before_us: i64, max_bytes: i64) -> Result<(), DbError> {
        prune::older(&self.db, before_us).await?;
        prune::larger(&self.db, max_bytes).await
    }
}

/// As JSON, without a copy of `value` in between.
fn text(value: &impl Serialize) -> String {
    // What has no other keys than texts does not fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Parts of `items`, each for one statement.
fn parts<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let rows = ROWS.into_iter().find(|rows| *rows <= items.len())?;
        let (part, rest) = items.split_at(rows);
        items = rest;
        Some(part)
    })
}

/// The placeholders of `rows` rows, without numbers: SQLite looks up each number among all others, in a list.
fn placeholders(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

/// The pattern of LIKE for a text that contains `part`.
fn containing(part: &str) -> String {
    format!("%{}", starting(part))
}

/// The same for a text that starts with `part`; with `ESCAPE '\'`.
fn starting(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 1);
    for c in part.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "%"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_inserted_in_few_statements_of_three_sizes() {
        let items: Vec<_> = (0..2 * ROWS[0] + ROWS[1] + 2).collect();
        assert_eq!(parts(&items).map(<[_]>::len).collect::<Vec<_>>(), [64, 64, 8, 1, 1]);
        assert_eq!(parts(&items).flatten().copied().collect::<Vec<_>>(), items);
        assert_eq!(placeholders(2, 3), "(?, ?), (?, ?), (?, ?)");
    }
}
