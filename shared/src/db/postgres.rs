//! PostgreSQL: opens a database and runs statements.

use std::future::Future;
use std::str::FromStr as _;
use std::time::Duration;

use futures_util::future::{FutureExt as _, TryFutureExt as _};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection as _, PgPool, Postgres};

use super::PREPARED_STATEMENTS;
use super::connect::{DbConfig, OpenError};
use super::migrate::migrate;
use super::value::Value;

/// The time limit for the ping of a released connection.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the pool and the client-side timeout of every statement.
pub(super) async fn open(config: &DbConfig, migrations: Migrator) -> Result<(PgPool, Duration), OpenError> {
    let options = PgConnectOptions::from_str(&config.url)?.statement_cache_capacity(PREPARED_STATEMENTS);
    let pool = |connections: u32| {
        PgPoolOptions::new().max_connections(connections).acquire_timeout(config.acquire_timeout)
    };
    let owner = config.migrations_url.as_deref().map_or(Ok(options.clone()), PgConnectOptions::from_str)?;
    let migrating = pool(1).connect_with(owner).await?;
    migrate(&mut *migrating.acquire().await?, migrations).await?;
    migrating.close().await;

    let DbConfig { connections, acquire_timeout, statement_timeout, .. } = *config;
    let ms = |duration: Duration| format!("{}ms", duration.as_millis());
    let options = options.options([
        ("statement_timeout", ms(statement_timeout)),
        ("lock_timeout", ms(acquire_timeout)),
        // Otherwise a replica that hangs or is cut off would keep its locks.
        ("idle_in_transaction_session_timeout", ms(statement_timeout)),
    ]);
    let pool = pool(connections)
        .idle_timeout(Duration::from_secs(300))
        // sqlx pings a released connection, without a timeout of its own.
        .after_release(|connection, _| within(PING_TIMEOUT, connection.ping()).map_ok(|()| true).boxed())
        .connect_with(options)
        .await?;
    let timeout = acquire_timeout + statement_timeout + Duration::from_secs(1);
    Ok((pool, timeout))
}

/// A client-side timeout, for a server that has become unreachable.
pub(super) async fn within<T>(
    timeout: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let done = tokio::time::timeout(timeout, statement).await;
    done.unwrap_or_else(|_| Err(timed_out()))
}

pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// `sql` with its parameters.
pub(super) fn statement(sql: String, values: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in values {
        query = match value {
            Value::Text(value) => query.bind(value),
            Value::Int(value) => query.bind(value),
            Value::Bool(value) => query.bind(value),
            Value::Uuid(value) => query.bind(value),
            Value::Time(value) => query.bind(value),
            Value::Json(value) => query.bind(value.map(Json)),
            Value::Ints(values) => query.bind(values),
            Value::Uuids(values) => query.bind(values),
        };
    }
    query
}

#[cfg(test)]
mod tests {
    use sqlx::SqlSafeStr as _;
    use sqlx::migrate::{Migration, MigrationType};

    use super::*;
    use crate::db::{Db, DbError, Migrations, now, query, testing};
    use crate::testing::Gate;

    /// A migration that takes longer than a statement may, and fails when it runs a second time.
    fn slow() -> Migrations {
        let sql = "SELECT pg_sleep(0.5); CREATE TABLE things (id uuid PRIMARY KEY)".into_sql_str();
        let migration = Migration::new(1, "things".into(), MigrationType::Simple, sql, false);
        Migrations { postgres: Migrator::with_migrations(vec![migration]), ..Migrations::none() }
    }

    fn impatient(url: &str) -> DbConfig {
        // Connecting is slow when many tests connect at once.
        let acquire_timeout = Duration::from_secs(2);
        DbConfig { acquire_timeout, statement_timeout: Duration::from_millis(200), ..DbConfig::at(url) }
    }

    #[actix_web::test]
    async fn replicas_that_start_together_migrate_once_and_wait_for_each_other() {
        let Some(url) = testing::postgres_url().await else { return };
        let config = DbConfig { acquire_timeout: Duration::from_secs(3), ..impatient(&url) };
        let opened = futures_util::future::join_all((0..8).map(|_| Db::open(&config, slow()))).await;
        for opened in opened {
            let rows = query("SELECT id FROM things").fetch_all(&opened.unwrap()).await.unwrap();
            assert!(rows.is_empty());
        }
    }

    #[actix_web::test]
    async fn a_statement_and_a_wait_for_a_lock_end_in_time() {
        let Some(url) = testing::postgres_url().await else { return };
        let db = Db::open(&impatient(&url), Migrations::none()).await.unwrap();
        let slow = query("SELECT pg_sleep(30)").execute(&db).await;
        assert!(matches!(slow, Err(DbError::Unavailable(_))), "{slow:?}");

        let patient = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        query("CREATE TABLE things (id bigint PRIMARY KEY)").execute(&patient).await.unwrap();
        query("INSERT INTO things VALUES (1)").execute(&patient).await.unwrap();
        let mut holder = patient.begin().await.unwrap();
        query("SELECT id FROM things FOR UPDATE").fetch_all(&mut holder).await.unwrap();
        let mut waiter = db.begin().await.unwrap();
        let waited = query("SELECT id FROM things FOR UPDATE").fetch_all(&mut waiter).await;
        assert!(matches!(waited, Err(DbError::Locked(_) | DbError::Unavailable(_))), "{waited:?}");
    }

    #[actix_web::test]
    async fn a_replica_that_hangs_in_a_transaction_loses_its_locks() {
        let Some(url) = testing::postgres_url().await else { return };
        let hanging = Db::open(&impatient(&url), Migrations::none()).await.unwrap();
        let running = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        query("CREATE TABLE things (at timestamptz)").execute(&running).await.unwrap();
        query("INSERT INTO things VALUES ($1)").bind(now()).execute(&running).await.unwrap();
        let mut holder = hanging.begin().await.unwrap();
        query("SELECT at FROM things FOR UPDATE").fetch_all(&mut holder).await.unwrap();

        let mut waiter = running.begin().await.unwrap();
        query("SELECT at FROM things FOR UPDATE").fetch_all(&mut waiter).await.unwrap();
        let late = query("UPDATE things SET at = $1").bind(now()).execute(&mut holder).await;
        assert!(matches!(late, Err(DbError::Unavailable(_))), "{late:?}");
    }

    #[actix_web::test]
    async fn a_statement_to_an_unreachable_server_fails_within_its_timeout() {
        let Some(url) = testing::postgres_url().await else { return };
        let gate = Gate::before(&url).await;
        let db = Db::open(&impatient(&gate.url(&url)), Migrations::none()).await.unwrap();
        let mut begun = db.begin().await.unwrap();
        query("SELECT 1 AS one").fetch_one(&mut begun).await.unwrap();
        gate.stall();
        let statement = query("SELECT 1 AS one").fetch_one(&mut begun);
        let done = tokio::time::timeout(Duration::from_secs(10), statement).await.expect("it ends");
        assert!(matches!(done, Err(DbError::Unavailable(_))), "{done:?}");
    }

    #[actix_web::test]
    async fn after_a_network_outage_the_pool_has_its_full_size_again() {
        let Some(url) = testing::postgres_url().await else { return };
        let mut gate = Gate::before(&url).await;
        let config = DbConfig { connections: 1, ..impatient(&gate.url(&url)) };
        let db = Db::open(&config, Migrations::none()).await.unwrap();
        let mut begun = db.begin().await.unwrap();
        gate.stall();
        query("SELECT 1 AS one").fetch_one(&mut begun).await.unwrap_err();
        drop(begun);
        gate.open().await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while let Err(why) = db.begin().await {
            assert!(tokio::time::Instant::now() < deadline, "{why}");
        }
    }
}
