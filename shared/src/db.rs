//! One store, two databases.
//!
//! A service writes its SQL once, for PostgreSQL; the URL's scheme chooses the database at start:
//! `postgres://` for a real deployment, `sqlite://` for one that installs nothing. Two things differ
//! and are handled here, so that stores need not know:
//!
//! - **Types.** PostgreSQL columns are native (`uuid`, `timestamptz`, `jsonb`, `boolean`). SQLite has
//!   none of these: ids, times (fixed width, so that they sort) and JSON are TEXT.
//! - **Locks.** `FOR UPDATE [SKIP LOCKED]` is dropped on SQLite, where a write transaction
//!   (`BEGIN IMMEDIATE`) has the whole database to itself.
//!
//! Every store runs its contract tests on both.

mod connect; // which database, and its schema
mod error; // what can go wrong
#[cfg(feature = "postgres")]
mod postgres;
mod query; // SQL, its parameters and its rows
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "sqlite")]
mod text; // what SQLite keeps as text
mod value; // parameters and columns
#[cfg(any(test, feature = "testing"))]
mod watched;

pub use connect::{DbConfig, Migrations, OpenError};
pub use error::DbError;
pub use query::{Conn, Query, Row, query};
pub use value::{Column, Value, now};

#[cfg(feature = "postgres")]
use std::time::Duration;

use sqlx::{Pool, Transaction};

use crate::metrics::Readings;

/// A database, by a pool of connections; clones share it.
#[derive(Clone, Debug)]
pub struct Db(Pools);

#[derive(Clone, Debug)]
enum Pools {
    /// SQLite allows one writer at a time: in this process they queue for one connection, which is
    /// fairer and cheaper than spinning on the file's lock.
    #[cfg(feature = "sqlite")]
    Sqlite { readers: sqlx::SqlitePool, writer: sqlx::SqlitePool },
    #[cfg(feature = "postgres")]
    Postgres {
        pool: sqlx::PgPool,
        /// The longest that anything may take.
        timeout: Duration,
    },
}

impl Db {
    /// Opens the database and migrates it: the chassis' tables first, then the service's. Several
    /// replicas may start at once.
    ///
    /// # Errors
    /// None shows a password.
    pub async fn open(config: &DbConfig, migrations: Migrations) -> Result<Self, OpenError> {
        let pools = match config.url.split(':').next().unwrap_or_default() {
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let (readers, writer) = sqlite::open(config, migrations.sqlite).await?;
                Pools::Sqlite { readers, writer }
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let (pool, timeout) = postgres::open(config, migrations.postgres).await?;
                Pools::Postgres { pool, timeout }
            }
            _ => return Err(OpenError::Scheme),
        };
        Ok(Self(pools))
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when no connection can be had in time.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let inner = match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { writer, .. } => TxInner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            #[cfg(feature = "postgres")]
            Pools::Postgres { pool, timeout } => {
                TxInner::Postgres { tx: postgres::within(*timeout, pool.begin()).await?, timeout: *timeout }
            }
        };
        Ok(Tx { inner, on_commit: Vec::new() })
    }

    /// Runs `work` in a transaction: commits when it succeeds, and rolls back when it fails.
    ///
    /// # Errors
    /// Those of `work`. When the commit itself fails, it is unknown whether the transaction is committed.
    pub async fn transaction<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = self.begin().await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    pub async fn ping(&self) -> Result<(), DbError> {
        query("SELECT 1 AS one").fetch_one(self).await.map(drop)
    }

    /// Which database this is: `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite { .. } => "sqlite",
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => "postgres",
        }
    }

    /// Tells how many connections are used, idle and allowed.
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

    /// Closes every connection.
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
        let help = "Connections to the database, by what they do.";
        readings.gauge("db_client_connection_count", help, &labels, count.into());
    }
    let (labels, most) = ([("db_client_connection_pool_name", name)], pool.options().get_max_connections());
    readings.gauge("db_client_connection_max", "Connections that there may be.", &labels, most.into());
}

/// Tests can see here what is run, and let the program crash instead.
fn about_to(run: &str) {
    #[cfg(any(test, feature = "testing"))]
    watched::about_to(run);
    #[cfg(not(any(test, feature = "testing")))]
    let _ = run;
}

/// A transaction; dropped without [`Tx::commit`] it is rolled back.
pub struct Tx {
    inner: TxInner,
    on_commit: Vec<Box<dyn FnOnce() + Send>>,
}

enum TxInner {
    #[cfg(feature = "sqlite")]
    Sqlite(Transaction<'static, sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres { tx: Transaction<'static, sqlx::Postgres>, timeout: Duration },
}

impl Tx {
    /// Runs `action` right after the commit, and never if there is none.
    pub fn on_commit(&mut self, action: impl FnOnce() + Send + 'static) {
        self.on_commit.push(Box::new(action));
    }

    /// Makes what was written last, then runs what waited for that.
    ///
    /// # Errors
    /// When the database did not confirm; whether it committed is then unknown.
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
