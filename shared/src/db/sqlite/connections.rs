//! Connections to an SQLite file, kept between their uses.
//!
//! sqlx's pool pings a connection before and after each use. A ping is a round trip to the thread of the connection, as
//! a statement is, and a file does not go away. So connections are kept here, and lent without a ping.
//!
//! Several processes may write to the file, one at a time. A transaction that finds it locked tries again every
//! millisecond: SQLite itself would sleep for longer and longer, up to 100 ms, while the file may be free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::statement;
use crate::db::value::Value;

const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Clones share the connections.
#[derive(Clone, Debug)]
pub(in crate::db) struct Connections {
    /// Within this process writers queue for a single connection, which is fairer and cheaper than polling the file's
    /// lock.
    pub(in crate::db) writer: Arc<Pool>,
    pub(in crate::db) readers: Arc<Pool>,
    timeout: Duration,
}

#[derive(Debug)]
pub(in crate::db) struct Pool {
    options: SqliteConnectOptions,
    most: u32,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<SqliteConnection>>,
}

/// A connection in use. It returns to its pool when it is dropped.
struct Lent {
    /// `None` only at the end.
    connection: Option<SqliteConnection>,
    pool: Arc<Pool>,
    /// Released after the connection has returned.
    _permit: OwnedSemaphorePermit,
}

/// A transaction that writes; rolled back if it is dropped.
pub(in crate::db) struct SqliteTx {
    /// `None` at the end.
    lent: Option<Lent>,
}

impl Connections {
    /// `timeout`: how long to wait for a free connection, and for other processes that write.
    pub(super) fn new(options: SqliteConnectOptions, readers: u32, timeout: Duration) -> Self {
        let pool = |options, most| Arc::new(Pool::new(options, most));
        // The pauses of SQLite, see above. They also block the thread of the connection.
        let writer = options.clone().pragma("busy_timeout", "0");
        Self { writer: pool(writer, 1), readers: pool(options, readers), timeout }
    }

    pub(in crate::db) async fn begin(&self) -> Result<SqliteTx, sqlx::Error> {
        let deadline = Instant::now() + self.timeout;
        // Also a BEGIN that is cancelled has to be rolled back.
        let mut tx = SqliteTx { lent: Some(self.writer.lend(deadline).await?) };
        loop {
            match tx.run("BEGIN IMMEDIATE").await {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                begun => return begun.map(|()| tx),
            }
        }
    }

    /// Runs a statement outside of a transaction; returns the number of changed rows.
    pub(in crate::db) async fn execute(&self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        let mut tx = self.begin().await?;
        let changed = tx.execute(sql, values).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// Runs a statement that only reads.
    pub(in crate::db) async fn fetch_all(
        &self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut lent = self.readers.lend(Instant::now() + self.timeout).await?;
        let rows = statement(sql, values).fetch_all(lent.connection()?).await;
        lent.checked(rows)
    }

    /// Waits until none is in use, and closes all.
    pub(in crate::db) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Pool {
    fn new(options: SqliteConnectOptions, most: u32) -> Self {
        let permits = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { options, most, permits: Arc::new(Semaphore::new(permits)), idle: Mutex::default() }
    }

    /// The connections in use, the idle ones, and the maximum.
    pub(in crate::db) fn counts(&self) -> (usize, usize, u32) {
        let most = usize::try_from(self.most).unwrap_or(usize::MAX);
        (most.saturating_sub(self.permits.available_permits()), self.idle().len(), self.most)
    }

    async fn lend(self: &Arc<Self>, deadline: Instant) -> Result<Lent, sqlx::Error> {
        let lent = async {
            let permit = self.permits.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let idle = self.idle().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            Ok(Lent { connection: Some(connection), pool: self.clone(), _permit: permit })
        };
        timeout_at(deadline, lent).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn close(&self) {
        let all = self.permits.acquire_many(self.most).await;
        self.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            connection.close().await.unwrap_or_default();
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

impl Lent {
    fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let done = sqlx::raw_sql(sql).execute(self.connection()?).await;
        self.checked(done).map(drop)
    }

    async fn roll_back(mut self) {
        // On a full disk, for example, SQLite itself has ended the transaction.
        if self.run("ROLLBACK").await.is_err() {
            self.connection = None;
        }
    }

    /// Gives the connection up if its thread has ended.
    fn checked<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if let Err(sqlx::Error::WorkerCrashed) = result {
            self.connection = None;
        }
        result
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let connection = self.connection.take();
        self.pool.idle().extend(connection);
    }
}

impl SqliteTx {
    pub(in crate::db) async fn execute(
        &mut self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<u64, sqlx::Error> {
        let lent = self.lent()?;
        let done = statement(sql, values).execute(lent.connection()?).await;
        Ok(lent.checked(done)?.rows_affected())
    }

    pub(in crate::db) async fn fetch_all(
        &mut self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let lent = self.lent()?;
        let rows = statement(sql, values).fetch_all(lent.connection()?).await;
        lent.checked(rows)
    }

    pub(in crate::db) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.run("COMMIT").await?;
        self.lent = None;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        self.lent()?.run(sql).await
    }

    fn lent(&mut self) -> Result<&mut Lent, sqlx::Error> {
        self.lent.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        if let Some(mut lent) = self.lent.take() {
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(lent.roll_back())),
                // The end of the connection is also that of its transaction.
                Err(_) => lent.connection = None,
            }
        }
    }
}
