//! Database errors, as far as a service treats them differently.

use crate::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Unreachable or overloaded: a retry may succeed.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Violates a unique constraint; see [`DbError::is_taken`].
    #[error("a unique value is taken: {0}")]
    Taken(#[source] sqlx::Error),
    /// Timeout while waiting for a lock of another transaction.
    #[error("a row stayed locked: {0}")]
    Locked(#[source] sqlx::Error),
    /// The rows contradict each other: a mistake in the program, or somebody else has changed them.
    #[error("the rows contradict each other: {0}")]
    Contradiction(String),
    /// A bug in the store's SQL.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
}

impl DbError {
    /// Whether the unique `column` of `table` was violated.
    pub fn is_taken(&self, table: &str, column: &str) -> bool {
        let Self::Taken(sqlx::Error::Database(error)) = self else { return false };
        // PostgreSQL names the constraint, SQLite the column.
        error.constraint() == Some(&format!("{table}_{column}_key"))
            || error.message().ends_with(&format!("{table}.{column}"))
    }

    /// 503 with `Retry-After` if a retry may succeed, else 500.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unavailable(_) | Self::Locked(_) => Problem::unavailable(1),
            Self::Taken(_) | Self::Contradiction(_) | Self::Refused(_) => Problem::internal(),
        }
        .because(self)
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        error.problem()
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Taken(error),
            sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
                "55P03" => Self::Locked(error),
                code if is_transient(code) => Self::Unavailable(error),
                _ => Self::Refused(error),
            },
            _ => Self::Refused(error),
        }
    }
}

/// Error codes of temporary conditions. PostgreSQL: connection lost, shutting down, too many connections,
/// deadlock, timeouts, and read-only (a server during failover). SQLite: busy, locked, I/O, full, cannot
/// open, with their extended codes.
fn is_transient(code: &str) -> bool {
    let postgres = ["08", "57P", "53", "40"].iter().any(|class| code.len() == 5 && code.starts_with(class))
        || ["57014", "25P03", "25006"].contains(&code);
    let sqlite =
        code.parse::<u32>().is_ok_and(|code| code < 10_000 && [5, 6, 10, 13, 14].contains(&(code & 0xff)));
    postgres || sqlite
}
