//! Spans, log records and figures in SQLite, bounded by age and size. One task writes; see [`crate::tasks`].

mod logs; // log records
mod prune; // what is old, or too much
mod rollups; // requests by service and route over time
mod spans; // spans and traces

pub use rollups::{Rollup, STEP_S};
pub use spans::{Found, Summary};

use shared::db::{Db, DbError, Migrations, Tx};

use crate::domain::{LogRecord, Span};

/// Rows that one statement inserts. The time to bind parameters grows with the square of their number.
const ROWS: usize = 8;

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
