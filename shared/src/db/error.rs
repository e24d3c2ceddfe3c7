//! What can go wrong with a database, as far as a service cares.

use crate::problem::Problem;

/// Why a query did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It cannot be reached, or is too busy: the same may work in a moment.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A row with the same unique value is there.
    #[error("a unique value is taken: {0}")]
    Taken(#[source] sqlx::Error),
    /// Another transaction held a lock for too long.
    #[error("a row stayed locked: {0}")]
    Locked(#[source] sqlx::Error),
    /// A mistake in the store.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
}

impl DbError {
    /// Whether a unique `column` of `table` is what was taken.
    pub fn is_taken(&self, table: &str, column: &str) -> bool {
        let Self::Taken(sqlx::Error::Database(error)) = self else { return false };
        // PostgreSQL names the constraint, SQLite the column.
        error.constraint() == Some(&format!("{table}_{column}_key"))
            || error.message().ends_with(&format!("{table}.{column}"))
    }

    /// How a client sees it: 503 if it may work in a moment, else 500.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unavailable(_) | Self::Locked(_) => Problem::unavailable(1),
            Self::Taken(_) | Self::Refused(_) => Problem::internal(),
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

/// Codes of PostgreSQL (connection lost, shutting down, too many connections, deadlock, time-outs, and
/// read-only, which a server is that another takes over from) and
/// of SQLite (busy, locked, I/O, full, cannot open, with their extended codes), which pass.
fn is_transient(code: &str) -> bool {
    let postgres = ["08", "57P", "53", "40"].iter().any(|class| code.len() == 5 && code.starts_with(class))
        || ["57014", "25P03", "25006"].contains(&code);
    let sqlite =
        code.parse::<u32>().is_ok_and(|code| code < 10_000 && [5, 6, 10, 13, 14].contains(&(code & 0xff)));
    postgres || sqlite
}
