//! Connections to an SQLite file, kept between their uses.
//!
//! Each connection has a thread. sqlx's pool pings a connection before and after each use, and a ping takes as long as a
//! short statement. A connection to a file cannot be lost, so these connections are lent without a ping.
//!
//! Several processes may write to the file, one at a time. A transaction that finds the file locked tries again every
//! millisecond. SQLite itself would make longer and longer pauses, up to 100 ms.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
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

/// A connection in use. It returns to its pool when it is dropped, unless its thread is busy.
struct Lent {
    /// `None` at the end, or if the thread has ended.
    connection: Option<SqliteConnection>,
    /// A statement has begun and not ended: it was cancelled.
    is_busy: bool,
    pool: Arc<Pool>,
    /// Released after the connection has returned.
    _permit: OwnedSemaphorePermit,
}

/// A transaction that writes; rolled back if it is dropped.
pub(in crate::db) struct SqliteTx {
    lent: Lent,
    is_open: bool,
}

impl Connections {
    /// `timeout`: how long to wait for a free connection, and for other processes that write.
    pub(super) fn new(options: SqliteConnectOptions, readers: u32, timeout: Duration) -> Self {
        let pool = |options, most| Arc::new(Pool::new(options, most));
        // SQLite itself must not wait.
        let writer = options.clone().pragma("busy_timeout", "0");
        Self { writer: pool(writer, 1), readers: pool(options, readers), timeout }
    }

    pub(in crate::db) async fn begin(&self) -> Result<SqliteTx, sqlx::Error> {
        let deadline = Instant::now() + self.timeout;
        // A cancelled BEGIN must be rolled back, too.
        let mut tx = SqliteTx { lent: self.writer.lend(deadline).await?, is_open: true };
        loop {
            match tx.lent.run("BEGIN IMMEDIATE").await {
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
        self.readers.lend(Instant::now() + self.timeout).await?.fetch_all(sql, values).await
    }

    /// Runs a statement that writes, in a transaction of its own, and returns its rows. The thread of the connection is
    /// asked once, not for BEGIN and COMMIT too.
    pub(in crate::db) async fn write(
        &self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let deadline = Instant::now() + self.timeout;
        let mut lent = self.writer.lend(deadline).await?;
        loop {
            match lent.fetch_all(sql.clone(), values.clone()).await {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                written => return written,
            }
        }
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
            Ok(Lent { connection: Some(connection), is_busy: false, pool: self.clone(), _permit: permit })
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
    async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        let done = statement(sql, values).execute(self.begin_statement()?).await;
        Ok(self.end_statement(done)?.rows_affected())
    }

    async fn fetch_all(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let rows = statement(sql, values).fetch_all(self.begin_statement()?).await;
        self.end_statement(rows)
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let done = sqlx::raw_sql(sql).fetch_many(self.begin_statement()?).next().await;
        // Without a result, the thread has ended before the statement.
        self.end_statement(done.unwrap_or(Err(sqlx::Error::WorkerCrashed))).map(drop)
    }

    fn begin_statement(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.is_busy = true;
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Gives the connection up if its thread has ended.
    fn end_statement<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.is_busy = false;
        if let Err(sqlx::Error::WorkerCrashed) = result {
            self.connection = None;
        }
        result
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|_| !self.is_busy);
        self.pool.idle().extend(connection);
    }
}

impl SqliteTx {
    pub(in crate::db) async fn execute(
        &mut self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<u64, sqlx::Error> {
        self.lent.execute(sql, values).await
    }

    pub(in crate::db) async fn fetch_all(
        &mut self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        self.lent.fetch_all(sql, values).await
    }

    pub(in crate::db) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.lent.run("COMMIT").await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        if self.is_open {
            // This hands the statement over to the thread, which runs it even if nobody waits: after the statements before
            // it, and before those of the next user. An error means that SQLite has ended the transaction itself, on a full
            // disk for example.
            if self.lent.run("ROLLBACK").now_or_never().is_none() {
                self.lent.is_busy = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use crate::db::{Db, DbConfig, Migrations, query, testing};

    const SLOW: &str = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000000) \
        SELECT COUNT(*) AS count FROM numbers";

    async fn open(url: &str) -> Db {
        Db::open(&DbConfig { connections: 2, ..DbConfig::at(url) }, Migrations::none()).await.unwrap()
    }

    #[actix_web::test]
    async fn a_dropped_transaction_is_rolled_back_before_anybody_else_writes() {
        let url = testing::sqlite_url();
        let (db, other) = (open(&url).await, open(&url).await);
        query("CREATE TABLE things (id INTEGER PRIMARY KEY)").execute(&db).await.unwrap();
        for (writer, cancels) in [(&db, false), (&other, false), (&db, true), (&other, true)] {
            let mut tx = db.begin().await.unwrap();
            query("INSERT INTO things VALUES (1)").execute(&mut tx).await.unwrap();
            if cancels {
                query(SLOW).fetch_all(&mut tx).now_or_never();
            }
            drop(tx);
            query("INSERT INTO things VALUES (2)").execute(writer).await.unwrap();
            let kept = query("SELECT id FROM things").fetch_all(&db).await.unwrap();
            assert_eq!(kept.len(), 1);
            query("DELETE FROM things").execute(writer).await.unwrap();
        }
    }

    #[actix_web::test]
    async fn a_cancelled_begin_leaves_no_transaction_open() {
        let url = testing::sqlite_url();
        let (db, other) = (open(&url).await, open(&url).await);
        let first = db.begin().await.unwrap();
        assert!(other.begin().now_or_never().is_none(), "the file is locked");
        drop(first);
        // The thread of the connection may answer immediately.
        assert!((0..100).any(|_| db.begin().now_or_never().is_none()), "none was cancelled");
        other.begin().await.unwrap().commit().await.unwrap();
        db.begin().await.unwrap().commit().await.unwrap();
    }

    #[actix_web::test]
    async fn nobody_waits_for_a_cancelled_read() {
        let db = open(&testing::sqlite_url()).await;
        db.ping().await.unwrap();
        let slow = tokio::time::timeout(Duration::from_millis(5), query(SLOW).fetch_all(&db)).await;
        slow.expect_err("it is slow");
        // The connection has one thread, which is still busy.
        let mut slow = std::pin::pin!(query(SLOW).fetch_all(&db));
        tokio::select! {
            biased;
            pong = async { db.ping().await } => pong.unwrap(),
            slow = &mut slow => panic!("{slow:?} came first"),
        }
    }

    #[actix_web::test]
    async fn processes_that_write_at_the_same_time_wait_for_each_other() {
        let url = testing::sqlite_url();
        let (db, other) = (open(&url).await, open(&url).await);
        query("CREATE TABLE things (id INTEGER PRIMARY KEY)").execute(&db).await.unwrap();
        let write = async |db: &Db| {
            for _ in 0..50 {
                query("INSERT INTO things DEFAULT VALUES").execute(db).await.unwrap();
            }
        };
        futures_util::join!(write(&db), write(&other));
        let kept = query("SELECT COUNT(*) AS count FROM things").fetch_one(&db).await.unwrap();
        assert_eq!(kept.get::<i64>("count").unwrap(), 100);
    }

    #[actix_web::test]
    async fn an_idempotent_write_waits_for_other_processes_and_is_committed() {
        let url = testing::sqlite_url();
        let (db, other) = (open(&url).await, open(&url).await);
        query("CREATE TABLE things (id INTEGER PRIMARY KEY)").execute(&db).await.unwrap();
        let holder = other.begin().await.unwrap();
        let insert = query("INSERT INTO things VALUES (1), (2) RETURNING id");
        let mut write = std::pin::pin!(insert.write_idempotent(&db, std::iter::empty()));
        tokio::time::timeout(Duration::from_millis(50), &mut write).await.expect_err("the file is locked");
        holder.commit().await.unwrap();
        assert_eq!(write.await.unwrap().len(), 2);
        assert_eq!(query("SELECT id FROM things").fetch_all(&other).await.unwrap().len(), 2);
    }
}
