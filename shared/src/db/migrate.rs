//! Migrates a PostgreSQL database, while other programs use it.
//!
//! `ALTER TABLE` waits for every transaction that uses the table, and every later request waits behind it. So a
//! migration waits for a lock shorter than requests do, then lets them pass, and tries again.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::migrate::{Migrate as _, MigrateError, Migration, Migrator};
use sqlx::postgres::PgConnection;

use super::connect::{OpenError, in_order};

/// The lock timeout of a migration. Shorter than `DATABASE_ACQUIRE_TIMEOUT`, for which requests wait.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// An advisory lock lets only one program migrate at a time. A program that waits for this lock has an open statement,
/// and `CREATE INDEX CONCURRENTLY` of the program that has the lock waits for the end of that statement: a deadlock. So
/// the waiting program gives up before PostgreSQL's `deadlock_timeout` (1 s), and tries again.
const TURN_TIMEOUT: Duration = Duration::from_millis(500);

/// Rows of these tables are written by the login that migrates; others read them.
const ONLY_OWNERS_WRITE: &str = "DO $$ DECLARE held record; BEGIN \
    FOR held IN SELECT DISTINCT table_name, grantee FROM information_schema.role_table_grants \
        WHERE table_schema = current_schema() AND grantee NOT IN (grantor, 'PUBLIC') AND privilege_type <> 'SELECT' \
        AND table_name IN ('_chassis_migrations', '_sqlx_migrations') LOOP \
        EXECUTE format('REVOKE ALL ON %I FROM %I', held.table_name, held.grantee); \
        EXECUTE format('GRANT SELECT ON %I TO %I', held.table_name, held.grantee); \
    END LOOP; END $$";

/// Runs the migrations of the chassis, and then the service's.
pub(super) async fn migrate(connection: &mut PgConnection, migrations: Migrator) -> Result<(), OpenError> {
    set_lock_timeout(connection, TURN_TIMEOUT).await?;
    while let Err(error) = connection.lock().await {
        if !is_lock_timeout(&error) {
            return Err(error.into());
        }
    }
    for mut migrator in in_order(sqlx::migrate!("migrations/postgres"), migrations) {
        migrator.set_locking(false);
        // One that uses no transaction takes no lock that disturbs requests, and may wait for long ones.
        for slow in migrator.iter().filter(|migration| migration.no_tx) {
            run_to(connection, &migrator, slow.version - 1, LOCK_TIMEOUT).await?;
            run_to(connection, &migrator, slow.version, Duration::ZERO).await?;
        }
        run_to(connection, &migrator, i64::MAX, LOCK_TIMEOUT).await?;
    }
    sqlx::query(ONLY_OWNERS_WRITE).execute(&mut *connection).await?;
    Ok(connection.unlock().await?)
}

async fn run_to(
    connection: &mut PgConnection,
    migrator: &Migrator,
    version: i64,
    lock_timeout: Duration,
) -> Result<(), OpenError> {
    set_lock_timeout(connection, lock_timeout).await?;
    for attempt in 1.. {
        let error = match migrator.run_to(version, &mut *connection).await {
            Ok(()) => break,
            Err(error) if is_lock_timeout(&error) => error,
            Err(error) => return Err(error.into()),
        };
        let tables = locked_tables(connection, migrator, &error).await?;
        log::warn!(table = tables.as_str(), attempt; "a migration waits for a lock");
        if attempt == ATTEMPTS {
            return Err(OpenError::Locked { tables, source: error });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn set_lock_timeout(connection: &mut PgConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    let set = AssertSqlSafe(format!("SET lock_timeout = '{}ms'", timeout.as_millis()));
    sqlx::query(set).execute(connection).await.map(drop)
}

/// The tables that the migration names and other sessions have locked.
async fn locked_tables(
    connection: &mut PgConnection,
    migrator: &Migrator,
    error: &MigrateError,
) -> Result<String, sqlx::Error> {
    let MigrateError::ExecuteMigration(_, version) = error else { return Ok(String::new()) };
    let failed: Option<&Migration> = migrator.iter().find(|migration| migration.version == *version);
    let text = failed.map(|migration| migration.sql.as_str().to_lowercase()).unwrap_or_default();
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let locked: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT c.relname::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
         WHERE l.granted AND l.pid <> pg_backend_pid() \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.relkind IN ('r', 'p') ORDER BY 1",
    )
    .fetch_all(connection)
    .await?;
    let named: Vec<_> = locked.into_iter().filter(|table| words.contains(&table.as_str())).collect();
    Ok(named.join(", "))
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    // lock_not_available
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

#[cfg(test)]
mod tests {
    use sqlx::SqlSafeStr as _;
    use sqlx::migrate::MigrationType;
    use tokio::time::Instant;

    use super::*;
    use crate::db::{Db, DbConfig, Migrations, query, testing};

    fn migrations(all: &[(&'static str, bool)]) -> Migrations {
        let migration = |(number, (sql, no_tx)): (i64, &(&'static str, bool))| {
            Migration::new(number, "things".into(), MigrationType::Simple, sql.into_sql_str(), *no_tx)
        };
        let all = (1..).zip(all).map(migration).collect();
        Migrations { postgres: Migrator::with_migrations(all), ..Migrations::none() }
    }

    #[actix_web::test]
    async fn a_migration_without_its_lock_gives_up_soon_names_the_table_and_lets_requests_pass() {
        let Some(url) = testing::postgres_url().await else { return };
        let config = DbConfig { acquire_timeout: Duration::from_secs(3), ..DbConfig::at(&url) };
        let db = Db::open(&config, Migrations::none()).await.unwrap();
        query("CREATE TABLE things (id bigint PRIMARY KEY)").execute(&db).await.unwrap();
        let patient = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        let mut holder = patient.begin().await.unwrap();
        query("SELECT id FROM things").fetch_all(&mut holder).await.unwrap();

        let begun = Instant::now();
        let adds = migrations(&[("ALTER TABLE things ADD COLUMN name text", false)]);
        let opening = actix_web::rt::spawn(async move { Db::open(&config, adds).await.map(drop) });
        let mut served = 0;
        while !opening.is_finished() {
            query("SELECT id FROM things").fetch_all(&db).await.unwrap();
            served += 1;
            tokio::task::yield_now().await;
        }
        let error = opening.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("things"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30) && served > 10, "{served}");

        drop(holder);
        let adds = migrations(&[("ALTER TABLE things ADD COLUMN name text", false)]);
        Db::open(&DbConfig::at(&url), adds).await.unwrap();
        query("SELECT name FROM things").fetch_all(&db).await.unwrap();
    }

    #[actix_web::test]
    async fn replicas_that_start_together_make_an_index_concurrently() {
        let Some(url) = testing::postgres_url().await else { return };
        let index = || {
            migrations(&[
                (
                    "CREATE TABLE things (id bigint); INSERT INTO things SELECT generate_series(1, 300000)",
                    false,
                ),
                ("CREATE INDEX CONCURRENTLY things_id ON things (id)", true),
                ("ALTER TABLE things ADD COLUMN name text", false),
            ])
        };
        let config = DbConfig::at(&url);
        let opened = futures_util::future::join_all((0..8).map(|_| Db::open(&config, index()))).await;
        for opened in opened {
            query("SELECT name FROM things WHERE id = 1").fetch_all(&opened.unwrap()).await.unwrap();
        }
    }
}
