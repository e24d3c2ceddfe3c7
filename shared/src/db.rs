//! Database access: one SQL dialect for PostgreSQL and SQLite.
//!
//! Services write their SQL once, for PostgreSQL. The scheme of `DATABASE_URL` chooses the database:
//! `postgres://` for a real deployment, `sqlite://` for one without a database server. This module handles
//! the two differences:
//!
//! - **Types.** PostgreSQL columns are native (`uuid`, `timestamptz`, `jsonb`, `boolean`). SQLite stores ids,
//!   times (in fixed width, so that they sort) and JSON as TEXT.
//! - **Locks.** `FOR UPDATE [SKIP LOCKED]` is removed for SQLite, where a write transaction
//!   (`BEGIN IMMEDIATE`) locks the whole database.
//!
//! Every store runs its contract tests on both.

#[cfg(test)]
mod changes_tests; // docs/expand-and-contract
mod clock; // the database's time
mod connect; // DATABASE_URL, migrations
mod error; // errors a service handles
#[cfg(feature = "postgres")]
mod migrate; // PostgreSQL, while other programs use it
#[cfg(feature = "postgres")]
mod postgres;
mod prune; // deletes old rows
mod query; // SQL with parameters, rows
#[cfg(feature = "postgres")]
mod server_clock; // the time of a PostgreSQL server
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "sqlite")]
mod text; // SQLite's text representations
mod value; // types of parameters and columns
#[cfg(any(test, feature = "testing"))]
mod watched;

pub use connect::{DbConfig, Migrations, OpenError};
pub use error::DbError;
#[cfg(test)]
pub(crate) use prune::BATCH;
pub use prune::Retention;
pub use query::{Conn, Query, Row, query};
pub use value::{Column, Value, now};

#[cfg(feature = "postgres")]
use std::time::Duration;

use clock::Clock;
use sqlx::{Pool, Transaction};
use time::OffsetDateTime;

use crate::metrics::Readings;

/// A pool of connections to a database; clones share it.
#[derive(Clone, Debug)]
pub struct Db(Pools, Clock);

#[derive(Clone, Debug)]
enum Pools {
    /// SQLite allows one writer at a time. Within this process writers queue for a single connection, which
    /// is fairer and cheaper than polling the file's lock.
    #[cfg(feature = "sqlite")]
    Sqlite { readers: sqlx::SqlitePool, writer: sqlx::SqlitePool },
    #[cfg(feature = "postgres")]
    Postgres {
        pool: sqlx::PgPool,
        /// Limit on this side for every statement.
        timeout: Duration,
        max_skew: Duration,
    },
}

impl Db {
    /// Opens the database and runs the migrations: first the chassis' tables, then the service's. Several
    /// replicas may do this concurrently. No error message contains the password.
    pub async fn open(config: &DbConfig, migrations: Migrations) -> Result<Self, OpenError> {
        let db = match config.url.split(':').next().unwrap_or_default() {
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let (readers, writer) = sqlite::open(config, migrations.sqlite).await?;
                Self(Pools::Sqlite { readers, writer }, Clock::Process)
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let (pool, timeout) = postgres::open(config, migrations.postgres).await?;
                let clock = Clock::of(&pool, timeout).await?;
                Self(Pools::Postgres { pool, timeout, max_skew: config.max_clock_skew }, clock)
            }
            _ => return Err(OpenError::Scheme),
        };
        Ok(db)
    }

    /// Begins a write transaction; [`DbError::Unavailable`] if no connection is free in time.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let inner = match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { writer, .. } => TxInner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            #[cfg(feature = "postgres")]
            Pools::Postgres { pool, timeout, .. } => {
                TxInner::Postgres { tx: postgres::within(*timeout, pool.begin()).await?, timeout: *timeout }
            }
        };
        Ok(Tx { inner, clock: self.1.clone(), on_commit: Vec::new() })
    }

    /// Runs `work` in a transaction: commits if it succeeds, rolls back if it fails. If the commit itself
    /// fails, it is unknown whether the transaction is committed.
    pub async fn transaction<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = self.begin().await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    }

    /// The database's time: for whatever another replica compares.
    pub fn now(&self) -> OffsetDateTime {
        self.1.now()
    }

    /// How far this process's clock is ahead of the database's, in seconds.
    pub fn clock_skew(&self) -> f64 {
        (now() - self.now()).as_seconds_f64()
    }

    /// Fails, with a reason, if the clocks differ too much: tokens are checked by this process's clock.
    pub fn check_clock(&self) -> Result<(), String> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { .. } => Ok(()),
            #[cfg(feature = "postgres")]
            Pools::Postgres { max_skew, .. } => clock::tolerable(self.clock_skew(), *max_skew),
        }
    }

    /// Asks the database for its time, from which [`Db::now`] counts on.
    pub async fn correct_clock(&self) -> Result<(), DbError> {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { .. } => Ok(()),
            #[cfg(feature = "postgres")]
            Pools::Postgres { pool, timeout, .. } => Ok(self.1.correct(pool, *timeout).await?),
        }
    }

    pub async fn ping(&self) -> Result<(), DbError> {
        query("SELECT 1 AS one").fetch_one(self).await.map(drop)
    }

    /// `sqlite` or `postgres`.
    #[cfg(any(test, feature = "testing"))]
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { .. } => "sqlite",
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => "postgres",
        }
    }

    /// Adds gauges for used, idle and allowed connections.
    pub fn measure(&self, readings: &mut Readings) {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { readers, writer } => {
                measure("readers", readers, readings);
                measure("writer", writer, readings);
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { pool, .. } => measure("postgres", pool, readings),
        }
    }

    pub async fn close(&self) {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { pool, .. } => pool.close().await,
        }
    }
}

fn measure<DB: sqlx::Database>(name: &str, pool: &Pool<DB>, readings: &mut Readings) {
    let (size, idle) = (pool.size(), u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
    for (state, count) in [("idle", idle), ("used", size.saturating_sub(idle))] {
        let labels = [("db_client_connection_pool_name", name), ("db_client_connection_state", state)];
        let help = "Connections to the database by state.";
        readings.gauge("db_client_connection_count", help, &labels, count.into());
    }
    let (labels, most) = ([("db_client_connection_pool_name", name)], pool.options().get_max_connections());
    readings.gauge("db_client_connection_max", "Maximum number of connections.", &labels, most.into());
}

/// Hook for tests: records each statement, and can crash the program before it.
fn about_to(run: &str) {
    #[cfg(any(test, feature = "testing"))]
    watched::about_to(run);
    #[cfg(not(any(test, feature = "testing")))]
    let _ = run;
}

/// A transaction, rolled back if dropped without [`Tx::commit`].
pub struct Tx {
    inner: TxInner,
    clock: Clock,
    on_commit: Vec<Box<dyn FnOnce() + Send>>,
}

enum TxInner {
    #[cfg(feature = "sqlite")]
    Sqlite(Transaction<'static, sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres { tx: Transaction<'static, sqlx::Postgres>, timeout: Duration },
}

impl Tx {
    /// The database's time; see [`Db::now`].
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Runs `action` right after the commit; never after a rollback.
    pub fn on_commit(&mut self, action: impl FnOnce() + Send + 'static) {
        self.on_commit.push(Box::new(action));
    }

    /// Commits, then runs the `on_commit` actions. After an error it is unknown whether the transaction is
    /// committed.
    pub async fn commit(self) -> Result<(), DbError> {
        about_to("COMMIT");
        match self.inner {
            #[cfg(feature = "sqlite")]
            TxInner::Sqlite(tx) => tx.commit().await?,
            #[cfg(feature = "postgres")]
            TxInner::Postgres { tx, timeout } => postgres::within(timeout, tx.commit()).await?,
        }
        about_to("go on after COMMIT");
        for action in self.on_commit {
            action();
        }
        Ok(())
    }
}
