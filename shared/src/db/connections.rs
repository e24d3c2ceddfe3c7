//! Connections to PostgreSQL, kept between their uses.
//!
//! sqlx's pool pings a connection before and after each use. A short transaction then needs two more round trips. So a
//! connection whose last use has succeeded is kept here, and the next user gets it without a ping:
//!
//! | end of a use | the connection |
//! |---|---|
//! | a commit, a read or a write has succeeded | is kept; after [`LONGEST`] it returns to the pool |
//! | a transaction was dropped: an error, or a cancelled request | is kept after its `ROLLBACK` has succeeded |
//! | a read or a write has failed, or was cancelled | returns to the pool, which pings |
//! | a `BEGIN` or a `ROLLBACK` has failed, or a `BEGIN` was cancelled | is closed |
//!
//! So a kept connection is never inside a transaction. The server may have closed it in the meantime. Therefore a
//! `BEGIN`, a read and an idempotent write that fail on a kept connection are repeated on one that has just answered. Other
//! statements outside of a transaction may have had their effect, so they run on a tested connection only.
//!
//! If the network was cut silently, a kept connection does not answer at all. For this, a `BEGIN` waits half of the time
//! in which a connection must be found. A read or a write may be slow. If it has no answer after half of this time, a new
//! connection tests the server; if the test fails, the statement fails.

use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::postgres::{statement, timed_out, within};
use super::value::Value;

/// After this time without use, a connection returns to the pool.
const FRESH: Duration = Duration::from_secs(10);
/// After this time, a connection returns to the pool even if it is in use all the time. The pool limits the lifetime
/// of connections.
const LONGEST: Duration = Duration::from_secs(60);
/// The time limit of a `ROLLBACK` and of a cancelled statement before it.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// Clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    /// One for each connection of the pool. Without them, a user could wait for the pool while a connection is kept.
    permits: Arc<Semaphore>,
    /// The connection that was used last is the last.
    kept: Mutex<Vec<Kept>>,
    /// When the server answered a new connection that tested it.
    answered_at: tokio::sync::Mutex<Option<Instant>>,
    acquire_timeout: Duration,
    /// The timeout of every statement.
    timeout: Duration,
}

#[derive(Debug)]
struct Kept {
    connection: PoolConnection<Postgres>,
    left_pool_at: Instant,
    used_at: Instant,
}

/// A connection in use. It returns to the pool when it is dropped, unless it is [kept](Lent::keep).
pub(super) struct Lent {
    /// `None` only at the end, when another owner has it.
    connection: Option<PoolConnection<Postgres>>,
    left_pool_at: Instant,
    /// Whether it was kept, and so not pinged before this use.
    was_kept: bool,
    shared: Arc<Shared>,
    permit: Option<OwnedSemaphorePermit>,
}

/// A transaction, rolled back if it is dropped.
pub(super) struct PgTx {
    lent: Lent,
    state: State,
    timeout: Duration,
}

enum State {
    Beginning,
    Open,
    Ended,
}

impl Connections {
    pub(super) fn new(pool: PgPool, acquire_timeout: Duration, timeout: Duration) -> Self {
        let connections = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
        let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        let (kept, answered_at) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Shared { pool, permits, kept, answered_at, acquire_timeout, timeout }))
    }

    /// The connections in use, the idle ones, and the maximum.
    pub(super) fn counts(&self) -> (usize, usize, u32) {
        let pool = &self.0.pool;
        let size = usize::try_from(pool.size()).unwrap_or(usize::MAX);
        let idle = pool.num_idle() + self.0.kept().len();
        (size.saturating_sub(idle), idle, pool.options().get_max_connections())
    }

    /// Begins a transaction, with the `lock_timeout` if it is not that of the connection.
    pub(super) async fn begin(&self, lock_timeout: Option<Duration>) -> Result<PgTx, sqlx::Error> {
        let mut lent = self.lend(self.deadline()).await?;
        // The wait for a free connection says nothing about the network.
        let deadline = self.deadline();
        if lent.was_kept {
            match PgTx::begin(lent, lock_timeout, half_of_rest(deadline)).await {
                Ok(begun) => return Ok(begun),
                Err(error) => self.distrust(&error),
            }
            lent = self.tested(deadline).await?;
        }
        PgTx::begin(lent, lock_timeout, deadline).await
    }

    /// Runs a statement that may run twice: it only reads, or it is idempotent.
    pub(super) async fn fetch_all(&self, sql: String, values: Vec<Value>) -> Result<Vec<PgRow>, sqlx::Error> {
        let lent = self.lend(self.deadline()).await?;
        let deadline = self.deadline();
        if !lent.was_kept {
            return lent.fetch_all(sql, values).await;
        }
        let reading = lent.fetch_all(sql.clone(), values.clone());
        match self.unless_silent(reading, deadline).await {
            Err(error) if is_lost(&error) => {
                self.distrust(&error);
                self.tested(self.deadline()).await?.fetch_all(sql, values).await
            }
            read => read,
        }
    }

    /// Runs a statement outside of a transaction; returns the number of changed rows.
    pub(super) async fn execute(&self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        let mut lent = self.tested(self.deadline()).await?;
        let done = within(self.0.timeout, statement(sql, values).execute(&mut *lent)).await?;
        lent.keep();
        Ok(done.rows_affected())
    }

    /// A statement on a kept connection. The network may have been cut silently since its last use, and the statement
    /// may also be slow. So if there is no answer for a while, the server must answer a new connection.
    async fn unless_silent<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
        deadline: Instant,
    ) -> Result<T, sqlx::Error> {
        let mut statement = pin!(statement);
        match timeout_at(half_of_rest(deadline), &mut statement).await {
            Ok(done) => done,
            Err(_) => tokio::select! {
                done = statement => done,
                Err(error) = self.must_answer(deadline) => {
                    self.distrust(&error);
                    Err(timed_out())
                }
            },
        }
    }

    /// Fails if the server does not answer a new connection. One connection tests it for all who ask at the same time.
    async fn must_answer(&self, deadline: Instant) -> Result<(), sqlx::Error> {
        let asked_at = Instant::now();
        let testing = async {
            let mut answered_at = self.0.answered_at.lock().await;
            if answered_at.is_none_or(|answered_at| answered_at < asked_at) {
                match PgConnection::connect_with(&self.0.pool.connect_options()).await {
                    Ok(connection) => drop(connection.close().await),
                    // An answer, too: for example that there are too many connections.
                    Err(sqlx::Error::Database(_)) => {}
                    Err(error) => return Err(error),
                }
                *answered_at = Some(Instant::now());
            }
            Ok(())
        };
        timeout_at(deadline, testing).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// A connection that has just answered.
    pub(super) async fn tested(&self, mut deadline: Instant) -> Result<Lent, sqlx::Error> {
        loop {
            let mut lent = self.lend(deadline).await?;
            if !lent.was_kept {
                return Ok(lent);
            }
            deadline = self.deadline();
            match timeout_at(half_of_rest(deadline), lent.ping()).await.unwrap_or_else(|_| Err(timed_out())) {
                Ok(()) => return Ok(lent),
                Err(error) => self.distrust(&error),
            }
        }
    }

    /// The end of the time in which a connection must be found.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.acquire_timeout
    }

    pub(super) async fn close(&self) {
        self.0.permits.close();
        // From now on no connection is kept.
        let closed = self.0.pool.close();
        drop(std::mem::take(&mut *self.0.kept()));
        closed.await;
    }

    async fn lend(&self, deadline: Instant) -> Result<Lent, sqlx::Error> {
        let shared = &self.0;
        let lent = async {
            let permit = shared.permits.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let (connection, left_pool_at, was_kept) = match shared.take() {
                Some(Kept { connection, left_pool_at, .. }) => (connection, left_pool_at, true),
                None => (shared.pool.acquire().await?, Instant::now(), false),
            };
            let connection = Some(connection);
            Ok(Lent { connection, left_pool_at, was_kept, shared: shared.clone(), permit: Some(permit) })
        };
        if Instant::now() >= deadline {
            return Err(sqlx::Error::PoolTimedOut);
        }
        timeout_at(deadline, lent).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Returns all kept connections to the pool, which tests them: if one is lost, the others probably are, too.
    fn distrust(&self, why: &sqlx::Error) {
        log::debug!(error:% = why; "a kept connection to the database is lost");
        drop(std::mem::take(&mut *self.0.kept()));
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Kept> {
        let mut kept = self.kept();
        let last = kept.pop().filter(|last| last.used_at.elapsed() < FRESH);
        if last.is_none() {
            // The others were used even earlier.
            kept.clear();
        }
        last
    }

    fn keep(&self, connection: PoolConnection<Postgres>, left_pool_at: Instant) {
        let now = Instant::now();
        let mut kept = self.kept();
        if now - left_pool_at < LONGEST && !self.pool.is_closed() {
            kept.push(Kept { connection, left_pool_at, used_at: now });
        }
        let stale = kept.iter().take_while(|kept| now - kept.used_at >= FRESH).count();
        kept.drain(..stale);
    }
}

/// Closes the kept connections. They cannot return to the pool, because this may run outside of a runtime.
impl Drop for Shared {
    fn drop(&mut self) {
        for kept in self.kept().drain(..) {
            drop(kept.connection.leak());
        }
    }
}

impl Lent {
    /// Keeps the connection for the next user. Its last statement has succeeded, and it is in no transaction.
    fn keep(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.keep(connection, self.left_pool_at);
        }
    }

    /// Closes the connection at the end.
    fn distrust(&mut self) {
        self.connection.iter_mut().for_each(PoolConnection::close_on_drop);
    }

    /// Hands the connection over to another owner.
    fn hand_over(&mut self) -> Self {
        let (connection, permit) = (self.connection.take(), self.permit.take());
        Self { connection, permit, shared: self.shared.clone(), ..*self }
    }

    async fn roll_back(mut self) {
        let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut *self);
        match within(ROLLBACK_TIMEOUT, rolled_back).await {
            Ok(_) => self.keep(),
            Err(_) => self.distrust(),
        }
    }

    /// The server's time now.
    pub(super) async fn time(mut self) -> Result<OffsetDateTime, sqlx::Error> {
        let timeout = self.shared.timeout;
        let time = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *self);
        let time = within(timeout, time).await?;
        self.keep();
        Ok(time)
    }

    async fn fetch_all(mut self, sql: String, values: Vec<Value>) -> Result<Vec<PgRow>, sqlx::Error> {
        let rows = within(self.shared.timeout, statement(sql, values).fetch_all(&mut *self)).await?;
        self.keep();
        Ok(rows)
    }
}

const THERE: &str = "the connection has no other owner yet";

#[allow(clippy::expect_used, reason = "the connection has no other owner yet")]
impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().expect(THERE)
    }
}

#[allow(clippy::expect_used, reason = "the connection has no other owner yet")]
impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect(THERE)
    }
}

impl PgTx {
    async fn begin(
        lent: Lent,
        lock_timeout: Option<Duration>,
        deadline: Instant,
    ) -> Result<Self, sqlx::Error> {
        let timeout = lent.shared.timeout;
        let mut tx = Self { lent, state: State::Beginning, timeout };
        // Both in one round trip.
        let sql = match lock_timeout {
            Some(timeout) => format!("BEGIN; SET LOCAL lock_timeout = '{}ms'", timeout.as_millis()),
            None => "BEGIN".to_owned(),
        };
        let begun = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx.lent);
        timeout_at(deadline, begun).await.unwrap_or_else(|_| Err(timed_out()))?;
        tx.state = State::Open;
        Ok(tx)
    }

    pub(super) async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        let done = within(self.timeout, statement(sql, values).execute(&mut *self.lent)).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn fetch_all(
        &mut self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        within(self.timeout, statement(sql, values).fetch_all(&mut *self.lent)).await
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        within(self.timeout, sqlx::raw_sql("COMMIT").execute(&mut *self.lent)).await?;
        self.state = State::Ended;
        self.lent.keep();
        Ok(())
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        match (&self.state, Handle::try_current()) {
            (State::Ended, _) => {}
            (State::Open, Ok(runtime)) => drop(runtime.spawn(self.lent.hand_over().roll_back())),
            // Perhaps the server has begun the transaction.
            (State::Beginning, _) | (State::Open, Err(_)) => self.lent.distrust(),
        }
    }
}

fn half_of_rest(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// Whether the server has ended the connection, or shuts down.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::db::{Db, DbConfig, DbError, Migrations, query, testing};
    use crate::testing::Gate;

    /// A database with one connection, and another program that can end it.
    async fn one_connection() -> Option<(Db, Db)> {
        let url = testing::postgres_url().await?;
        let other = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        query("CREATE TABLE things (number bigint NOT NULL)").execute(&other).await.unwrap();
        let config = DbConfig { connections: 1, ..DbConfig::at(&url) };
        Some((Db::open(&config, Migrations::none()).await.unwrap(), other))
    }

    async fn session(db: &Db) -> i64 {
        let id = query("SELECT pg_backend_pid()::bigint AS id").fetch_one(db).await.unwrap();
        id.get("id").unwrap()
    }

    async fn end_session(other: &Db, session: i64) {
        let ended = query("SELECT pg_terminate_backend($1::int, 5000) AS ended").bind(session);
        assert!(ended.fetch_one(other).await.unwrap().get::<bool>("ended").unwrap());
    }

    async fn insert(db: &Db, number: i64) {
        let mut tx = db.begin().await.unwrap();
        query("INSERT INTO things VALUES ($1)").bind(number).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn numbers(db: &Db) -> Vec<i64> {
        let rows = query("SELECT number FROM things ORDER BY number").fetch_all(db).await.unwrap();
        rows.iter().map(|row| row.get("number").unwrap()).collect()
    }

    #[actix_web::test]
    async fn a_transaction_succeeds_after_the_server_has_ended_the_kept_connection() {
        let Some((db, other)) = one_connection().await else { return };
        for number in 0..3 {
            end_session(&other, session(&db).await).await;
            insert(&db, number).await;
        }
        assert_eq!(numbers(&other).await, [0, 1, 2]);
    }

    #[actix_web::test]
    async fn a_read_and_a_single_write_succeed_after_the_server_has_ended_the_kept_connection() {
        let Some((db, other)) = one_connection().await else { return };
        insert(&db, 1).await;
        end_session(&other, session(&db).await).await;
        assert_eq!(numbers(&db).await, [1]);
        end_session(&other, session(&db).await).await;
        assert_eq!(query("DELETE FROM things").execute(&db).await.unwrap(), 1);
    }

    #[actix_web::test]
    async fn an_idempotent_write_is_repeated_after_the_server_has_ended_the_kept_connection() {
        let Some((db, other)) = one_connection().await else { return };
        insert(&db, 1).await;
        let write = async |number: i64| {
            let update =
                query("UPDATE things SET number = $1 WHERE number < $1 RETURNING number").bind(number);
            update.write_idempotent(&db, std::iter::empty()).await.unwrap().len()
        };
        let first = session(&db).await;
        assert_eq!((write(2).await, session(&db).await), (1, first), "on the kept connection");
        end_session(&other, first).await;
        assert_eq!((write(3).await, numbers(&other).await), (1, vec![3]));
    }

    #[actix_web::test]
    async fn a_connection_is_used_again_and_never_inside_the_transaction_of_another_user() {
        let Some((db, other)) = one_connection().await else { return };
        let first = session(&db).await;
        insert(&db, 1).await;
        let mut dropped = db.begin().await.unwrap();
        query("INSERT INTO things VALUES (2)").execute(&mut dropped).await.unwrap();
        drop(dropped);
        let mut failed = db.begin().await.unwrap();
        query("INSERT INTO nowhere VALUES (3)").execute(&mut failed).await.unwrap_err();
        drop(failed);
        query("SELECT number FROM nowhere").fetch_all(&db).await.unwrap_err();
        assert_eq!(numbers(&db).await, [1], "not inside the transaction that was dropped");
        insert(&db, 4).await;
        assert_eq!(session(&db).await, first, "no connection was lost");
        assert_eq!(numbers(&other).await, [1, 4]);
    }

    /// A database behind a gate, with a connection that is kept.
    async fn kept_behind_gate(acquire_timeout: Duration) -> Option<(Db, Gate)> {
        let url = testing::postgres_url().await?;
        let gate = Gate::before(&url).await;
        let config = DbConfig { acquire_timeout, ..DbConfig::at(&gate.url(&url)) };
        let db = Db::open(&config, Migrations::none()).await.unwrap();
        session(&db).await;
        Some((db, gate))
    }

    #[actix_web::test]
    async fn when_the_network_is_cut_silently_a_read_and_a_transaction_fail_in_the_time_to_find_a_connection()
    {
        for reads in [true, false] {
            let Some((db, gate)) = kept_behind_gate(Duration::from_secs(2)).await else { return };
            gate.stall();
            let begun = Instant::now();
            let failed = if reads { db.ping().await } else { db.begin().await.map(drop) };
            assert!(matches!(failed, Err(DbError::Unavailable(_))), "{failed:?}");
            assert!(begun.elapsed() < Duration::from_millis(3500), "{reads}: after {:?}", begun.elapsed());
        }
    }

    #[actix_web::test]
    async fn a_read_on_a_kept_connection_may_be_slower_than_the_time_to_find_a_connection() {
        let Some((db, _gate)) = kept_behind_gate(Duration::from_secs(6)).await else { return };
        let slow = query("SELECT 1::bigint AS one FROM pg_sleep(7)").fetch_one(&db).await.unwrap();
        assert_eq!(slow.get::<i64>("one").unwrap(), 1);
    }

    #[actix_web::test]
    async fn more_users_than_connections_take_turns() {
        let Some((db, other)) = one_connection().await else { return };
        futures_util::future::join_all((0..50).map(|number| insert(&db, number))).await;
        assert_eq!(numbers(&other).await, (0..50).collect::<Vec<_>>());
        drop(other);
        db.close().await;
        assert!(db.begin().await.is_err() && db.ping().await.is_err(), "it is closed");
    }
}
