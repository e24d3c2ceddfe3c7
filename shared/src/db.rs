//! Database access: one SQL dialect for PostgreSQL and SQLite.
//!
//! Services write their SQL once, for PostgreSQL. The scheme of `DATABASE_URL` chooses the database:
//! `postgres://` for a real deployment, `sqlite://` for one without a database server. This module handles
//! the differences:
//!
//! - **Types.** PostgreSQL columns are native (`uuid`, `timestamptz`, `jsonb`, `boolean`). SQLite stores ids,
//!   times (in fixed width, so that they sort) and JSON as TEXT.
//! - **Arrays.** `= ANY($1)` and `FROM UNNEST($1) AS value` read a parameter with several values. SQLite gets it as JSON.
//! - **Locks.** `FOR UPDATE [SKIP LOCKED]` is removed for SQLite, where a write transaction
//!   (`BEGIN IMMEDIATE`) locks the whole database.
//!
//! Every store runs its contract tests on both.

pub(crate) mod batching; // requests that share a query or a transaction
#[cfg(test)]
mod changes_tests; // docs/expand-and-contract
mod clock; // the database's time
mod commit_delay; // group commit
mod connect; // DATABASE_URL, migrations
#[cfg(feature = "postgres")]
mod connections; // connections to PostgreSQL, kept between their uses
mod deferred; // writes at the end of a transaction
mod error; // errors a service handles
mod loader; // reads that share a query
#[cfg(feature = "postgres")]
mod migrate; // PostgreSQL, while other programs use it
#[cfg(feature = "postgres")]
mod postgres;
mod prune; // deletes old rows
mod query; // SQL with parameters, rows
#[cfg(feature = "postgres")]
mod server_clock; // the time of a PostgreSQL server
mod span; // of a transaction
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(test, feature = "testing"))]
mod test_hooks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "sqlite")]
mod text; // SQLite's text representations
mod value; // types of parameters and columns

pub use commit_delay::CommitDelay;
pub use connect::{DbConfig, Migrations, OpenError};
pub use deferred::DeferredWrite;
pub use error::DbError;
pub use loader::Loader;
#[cfg(test)]
pub(crate) use prune::BATCH;
pub use prune::Retention;
pub use query::{Conn, Query, Row, padded, placeholders, query};
pub use value::{Column, Value, now};

#[cfg(feature = "postgres")]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use clock::Clock;
use deferred::DeferredWrites;
use span::TxSpan;
use time::OffsetDateTime;

use crate::metrics::Readings;
use crate::trace::{Current, SpanContext};

/// Prepared statements that a connection keeps. Statements for 1 to 32 rows differ, so a service may have over a hundred.
const PREPARED_STATEMENTS: usize = 500;
/// The lock timeout of [`Db::begin_with_short_lock_timeout`]. In a healthy system, rows that many orders
/// change are locked for a far shorter time.
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// A pool of connections to a database; clones share it.
#[derive(Clone, Debug)]
pub struct Db {
    pools: Pools,
    clock: Clock,
}

#[derive(Clone, Debug)]
enum Pools {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Connections),
    #[cfg(feature = "postgres")]
    Postgres { connections: connections::Connections, max_skew: Duration, ahead: Arc<AtomicBool> },
}

impl Db {
    /// Opens the database and runs the migrations: first the chassis' tables, then the service's. Several
    /// replicas may do this concurrently. No error message contains the password.
    pub async fn open(config: &DbConfig, migrations: Migrations) -> Result<Self, OpenError> {
        let db = match config.url.split(':').next().unwrap_or_default() {
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let connections = sqlite::open(config, migrations.sqlite).await?;
                Self { pools: Pools::Sqlite(connections), clock: Clock::Process }
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let (pool, timeout) = postgres::open(config, migrations.postgres).await?;
                let connections = connections::Connections::new(pool, config.acquire_timeout, timeout);
                let clock = Clock::of(&connections).await?;
                let (max_skew, ahead) = (config.max_clock_skew, Arc::default());
                Self { pools: Pools::Postgres { connections, max_skew, ahead }, clock }
            }
            _ => return Err(OpenError::Scheme),
        };
        Ok(db)
    }

    /// Begins a write transaction; [`DbError::Unavailable`] if no connection is free in time.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        self.begin_with(None).await
    }

    /// Begins a transaction that gets [`DbError::Locked`] after a short wait for a row lock, so that it does not hold up
    /// other work. On SQLite the same as [`Db::begin`], after which nobody else has a lock.
    pub(crate) async fn begin_with_short_lock_timeout(&self) -> Result<Tx, DbError> {
        self.begin_with(Some(SHORT_LOCK_TIMEOUT)).await
    }

    /// The same, for work of several traces: the transaction is in the first, and linked to the others.
    pub(crate) async fn begin_in(&self, mut traces: impl Iterator<Item = Current>) -> Result<Tx, DbError> {
        let beginning = self.begin_with_short_lock_timeout();
        let mut tx = match traces.next() {
            Some(first) => first.scope(beginning).await?,
            None => beginning.await?,
        };
        tx.link(traces.map(|current| current.context().clone()));
        Ok(tx)
    }

    async fn begin_with(&self, lock_timeout: Option<Duration>) -> Result<Tx, DbError> {
        #[cfg(not(feature = "postgres"))]
        let _ = lock_timeout;
        let (mut span, since) = TxSpan::begin(self.system());
        let inner = match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(connections) => TxInner::Sqlite(connections.begin().await?),
            #[cfg(feature = "postgres")]
            Pools::Postgres { connections, .. } => TxInner::Postgres(connections.begin(lock_timeout).await?),
        };
        span.begun(since);
        let deferred = DeferredWrites::default();
        Ok(Tx { inner, clock: self.clock.clone(), deferred, on_commit: Vec::new(), span, has_failed: false })
    }

    /// Like [`Db::begin`]; until it ends, others wait: on SQLite all that write, on PostgreSQL those that claim an
    /// idempotency key or send an event. Reads go on. For the lab.
    pub(crate) async fn begin_alone(&self) -> Result<Tx, DbError> {
        #[cfg_attr(not(feature = "postgres"), expect(unused_mut, reason = "SQLite has one writer"))]
        let mut tx = self.begin().await?;
        #[cfg(feature = "postgres")]
        if matches!(tx.inner, TxInner::Postgres(_)) {
            // In the order in which a request writes to them: else the two would wait for each other.
            let lock = "LOCK TABLE idempotency_keys, outbox IN EXCLUSIVE MODE";
            query(lock).execute(&mut tx).await?;
        }
        Ok(tx)
    }

    /// Runs `work` in a transaction: commits if it succeeds, rolls back if it fails. If the commit itself
    /// fails, it is unknown whether the transaction is committed.
    pub async fn transaction<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin().await?.run(work).await
    }

    /// The same, with [`DbError::Locked`] after a short wait for a row lock.
    pub async fn transaction_with_short_lock_timeout<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin_with_short_lock_timeout().await?.run(work).await
    }

    /// The database's time: for whatever another replica compares.
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// How far this process's clock is ahead of the database's, in seconds.
    pub fn clock_skew(&self) -> f64 {
        (now() - self.now()).as_seconds_f64() + self.pretended_skew()
    }

    fn pretended_skew(&self) -> f64 {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => 0.0,
            #[cfg(feature = "postgres")]
            Pools::Postgres { ahead, .. } if ahead.load(Ordering::Relaxed) => 60.0,
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => 0.0,
        }
    }

    /// Lets this process's clock seem to be a minute ahead of the server's. `false` without a server. For the lab.
    pub(crate) fn pretend_ahead(&self, is_ahead: bool) -> bool {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => {
                let _ = is_ahead;
                false
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { ahead, .. } => {
                ahead.store(is_ahead, Ordering::Relaxed);
                true
            }
        }
    }

    /// Fails, with a reason, if the clocks differ too much: tokens are checked by this process's clock.
    pub fn check_clock(&self) -> Result<(), String> {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Pools::Postgres { max_skew, .. } => clock::tolerable(self.clock_skew(), *max_skew),
        }
    }

    /// Asks the database for its time, from which [`Db::now`] counts on.
    pub async fn correct_clock(&self) -> Result<(), DbError> {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Pools::Postgres { connections, .. } => Ok(self.clock.correct(connections).await?),
        }
    }

    pub async fn ping(&self) -> Result<(), DbError> {
        query("SELECT 1 AS one").fetch_one(self).await.map(drop)
    }

    fn shortest_commit_delay(&self) -> Duration {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => commit_delay::SHORTEST_ON_SQLITE,
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => commit_delay::SHORTEST_ON_POSTGRES,
        }
    }

    /// OpenTelemetry's name of the database.
    fn system(&self) -> &'static str {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => "postgresql",
        }
    }

    /// `sqlite` or `postgres`.
    #[cfg(any(test, feature = "testing"))]
    pub fn kind(&self) -> &'static str {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Pools::Postgres { .. } => "postgres",
        }
    }

    /// Adds gauges for used, idle and allowed connections.
    pub fn measure(&self, readings: &mut Readings) {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(connections) => {
                measure("readers", connections.readers.counts(), readings);
                measure("writer", connections.writer.counts(), readings);
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { connections, .. } => measure("postgres", connections.counts(), readings),
        }
    }

    pub async fn close(&self) {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(connections) => connections.close().await,
            #[cfg(feature = "postgres")]
            Pools::Postgres { connections, .. } => connections.close().await,
        }
    }
}

fn measure(name: &str, (used, idle, most): (usize, usize, u32), readings: &mut Readings) {
    for (state, count) in [("idle", idle), ("used", used)] {
        let labels = [("db_client_connection_pool_name", name), ("db_client_connection_state", state)];
        let help = "Connections to the database by state.";
        readings.gauge("db_client_connection_count", help, &labels, count as f64);
    }
    let (labels, most) = ([("db_client_connection_pool_name", name)], most.into());
    readings.gauge("db_client_connection_max", "Maximum number of connections.", &labels, most);
}

/// Hook for tests: records each statement, and can crash the program before it.
fn about_to(run: &str) {
    #[cfg(any(test, feature = "testing"))]
    test_hooks::about_to(run);
    #[cfg(not(any(test, feature = "testing")))]
    let _ = run;
}

/// A transaction, rolled back if dropped without [`Tx::commit`].
pub struct Tx {
    inner: TxInner,
    clock: Clock,
    deferred: DeferredWrites,
    on_commit: Vec<Box<dyn FnOnce() + Send>>,
    span: TxSpan,
    /// A statement has failed.
    has_failed: bool,
}

enum TxInner {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::SqliteTx),
    #[cfg(feature = "postgres")]
    Postgres(connections::PgTx),
}

impl Tx {
    async fn run<T, E: From<DbError>>(
        mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = work(&mut self).await?;
        self.commit().await?;
        Ok(done)
    }

    /// The database's time; see [`Db::now`].
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Whether transactions lock single rows. On SQLite they lock the whole database, so a row that exists only to be
    /// locked is not needed.
    pub fn locks_rows(&self) -> bool {
        match &self.inner {
            #[cfg(feature = "sqlite")]
            TxInner::Sqlite(_) => false,
            #[cfg(feature = "postgres")]
            TxInner::Postgres(_) => true,
        }
    }

    /// Whether a statement has failed, so that the transaction can only be rolled back.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Runs `action` right after the commit; never after a rollback.
    pub fn on_commit(&mut self, action: impl FnOnce() + Send + 'static) {
        self.on_commit.push(Box::new(action));
    }

    /// Links the transaction's span to others that it works for.
    pub fn link(&mut self, others: impl Iterator<Item = SpanContext>) {
        self.span.link(others);
    }

    /// The write of type `T` at the end of this transaction; empty at first.
    pub fn deferred<T: DeferredWrite + Default>(&mut self) -> &mut T {
        self.deferred.get()
    }

    /// Runs the [deferred writes](Tx::deferred) now, for a caller that treats their errors unlike those of the commit.
    pub async fn write_deferred(&mut self) -> Result<(), DbError> {
        loop {
            let writes = self.deferred.take();
            if writes.is_empty() {
                return Ok(());
            }
            for write in writes {
                write.write(self).await?;
            }
        }
    }

    /// Runs the deferred writes, commits, and runs the `on_commit` actions. After an error it is unknown whether the
    /// transaction is committed. A transaction with a failed statement is rolled back: PostgreSQL would answer its
    /// `COMMIT` with a rollback that looks like a success.
    pub async fn commit(mut self) -> Result<(), DbError> {
        self.write_deferred().await?;
        if self.has_failed {
            let why = "a statement of this transaction has failed".to_owned();
            return Err(DbError::Refused(sqlx::Error::Protocol(why)));
        }
        about_to("COMMIT");
        match self.inner {
            #[cfg(feature = "sqlite")]
            TxInner::Sqlite(tx) => tx.commit().await?,
            #[cfg(feature = "postgres")]
            TxInner::Postgres(tx) => tx.commit().await?,
        }
        self.span.committed();
        about_to("go on after COMMIT");
        for action in self.on_commit {
            action();
        }
        Ok(())
    }
}
