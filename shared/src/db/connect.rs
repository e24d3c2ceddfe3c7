//! Opening a database and bringing it to the schema this program was built with.

use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use futures_util::future::{FutureExt as _, TryFutureExt as _, ready};
use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Db, Pools, within};
use crate::config::Vars;

/// How soon a connection must answer that is given back to its pool.
const ALIVE: Duration = Duration::from_secs(1);

/// Which database, and how it is used.
#[derive(Clone)]
pub struct DbConfig {
    /// `sqlite://…` or `postgres://…`.
    pub url: String,
    /// Connections of this process at most: for everything (PostgreSQL) or for reading (SQLite).
    pub connections: u32,
    /// How long to wait for a free connection, or for a lock that another holds.
    pub acquire_timeout: Duration,
    /// How long a statement may take, and a transaction be left alone; PostgreSQL ends it then.
    pub statement_timeout: Duration,
}

impl DbConfig {
    /// Reads `DATABASE_URL`, `DATABASE_CONNECTIONS`, `DATABASE_ACQUIRE_TIMEOUT` and
    /// `DATABASE_STATEMENT_TIMEOUT`.
    pub fn from_vars(vars: &mut Vars, default_url: &str) -> Self {
        let config = Self {
            url: vars.or("DATABASE_URL", default_url, "sqlite:// or postgres:// URL of the database"),
            connections: vars.or("DATABASE_CONNECTIONS", "8", "connections at most"),
            acquire_timeout: vars.or("DATABASE_ACQUIRE_TIMEOUT", "3s", "how long to wait for one, or a lock"),
            statement_timeout: vars.or("DATABASE_STATEMENT_TIMEOUT", "10s", "how long a statement may take"),
        };
        if config.connections == 0 {
            vars.reject("DATABASE_CONNECTIONS is not usable: write 1 or more");
        }
        config
    }

    /// The database at `url`, for tests and tools: with longer timeouts than a service has, because a disk
    /// that many databases are made on stands still now and then.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connections: 8,
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// A service's migrations, one folder per database: `migrations/sqlite`, `migrations/postgres`.
#[derive(Debug)]
pub struct Migrations {
    /// For SQLite.
    pub sqlite: Migrator,
    /// For PostgreSQL.
    pub postgres: Migrator,
}

impl Migrations {
    /// No tables but the chassis' own; those of others are left as they are.
    pub fn none() -> Self {
        let none = || {
            let mut none = Migrator::with_migrations(Vec::new());
            none.set_ignore_missing(true);
            none
        };
        Self { sqlite: none(), postgres: none() }
    }
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no database this program knows.
    #[error("DATABASE_URL must start with sqlite:// or postgres://")]
    Scheme,
    /// The file or its folder cannot be made or opened.
    #[error("the database file {path} cannot be opened: {source}")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database refused, or cannot be reached.
    #[error("the database cannot be opened: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database cannot be migrated: {0}")]
    Migrate(#[from] MigrateError),
}

impl Db {
    /// Opens the database and migrates it: the chassis' tables first, then the service's. Several
    /// replicas may start at once.
    ///
    /// # Errors
    /// Any [`OpenError`]; none shows a password.
    pub async fn open(config: &DbConfig, migrations: Migrations) -> Result<Self, OpenError> {
        let scheme = config.url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => open_sqlite(config, migrations.sqlite).await,
            "postgres" | "postgresql" => open_postgres(config, migrations.postgres).await,
            _ => Err(OpenError::Scheme),
        }
    }
}

async fn open_sqlite(config: &DbConfig, migrations: Migrator) -> Result<Db, OpenError> {
    let options = SqliteConnectOptions::from_str(&config.url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode a commit survives the end of the process; only a power cut can undo the last ones.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        // Or `INSERT OR REPLACE` would get past the triggers that keep a ledger as it is.
        .pragma("recursive_triggers", "on")
        .busy_timeout(config.acquire_timeout);
    let lock = migration_lock(options.get_filename())?;
    let pool = |connections: u32| {
        SqlitePoolOptions::new().max_connections(connections).acquire_timeout(config.acquire_timeout)
    };
    // After an I/O error or on a full disk SQLite ends a transaction by itself, which sqlx does not notice:
    // it would begin no other on that connection.
    let writer = pool(1).before_acquire(|writer, _| ready(Ok(!writer.is_in_transaction())).boxed());
    let writer = writer.connect_with(options.clone()).await?;
    chassis(sqlx::migrate!("migrations/sqlite")).run(&writer).await?;
    migrations.run(&writer).await?;
    drop(lock);
    let readers = pool(config.connections).connect_with(options).await?;
    Ok(Db(Pools::Sqlite { readers, writer }))
}

/// Held while migrating: sqlx has no lock for SQLite, and two replicas may start at once.
fn migration_lock(database: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::File { path: database.display().to_string(), source };
    if let Some(folder) = database.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    let lock = File::create(name).map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
}

async fn open_postgres(config: &DbConfig, migrations: Migrator) -> Result<Db, OpenError> {
    let options = PgConnectOptions::from_str(&config.url)?;
    let pool = |connections: u32| {
        PgPoolOptions::new().max_connections(connections).acquire_timeout(config.acquire_timeout)
    };
    // sqlx holds an advisory lock while it migrates. Who waits for it waits longer than a request may.
    let migrating = pool(1).connect_with(options.clone()).await?;
    chassis(sqlx::migrate!("migrations/postgres")).run(&migrating).await?;
    migrations.run(&migrating).await?;
    migrating.close().await;

    let DbConfig { connections, acquire_timeout, statement_timeout, .. } = *config;
    let ms = |duration: Duration| format!("{}ms", duration.as_millis());
    let options = options.options([
        ("statement_timeout", ms(statement_timeout)),
        ("lock_timeout", ms(acquire_timeout)),
        // Or a replica that is paused or cut off keeps the locks that it holds.
        ("idle_in_transaction_session_timeout", ms(statement_timeout)),
    ]);
    let pool = pool(connections)
        .idle_timeout(Duration::from_secs(300))
        // sqlx asks a connection that comes back whether it lives, and would wait for as long as TCP does.
        .after_release(|connection, _| within(ALIVE, connection.ping()).map_ok(|()| true).boxed())
        .connect_with(options)
        .await?;
    let timeout = acquire_timeout + statement_timeout + Duration::from_secs(1);
    Ok(Db(Pools::Postgres { pool, timeout }))
}

/// The chassis keeps its own list of what it has run, apart from the service's.
fn chassis(mut migrations: Migrator) -> Migrator {
    migrations.dangerous_set_table_name("_chassis_migrations");
    migrations
}

#[cfg(test)]
mod tests {
    use sqlx::SqlSafeStr as _;
    use sqlx::migrate::{Migration, MigrationType};

    use super::*;
    use crate::db::{DbError, now, query, testing};
    use crate::testing::Gate;

    /// A migration that takes longer than a statement may, and fails when it runs a second time.
    fn slow() -> Migrations {
        let sql = "SELECT pg_sleep(0.5); CREATE TABLE things (id uuid PRIMARY KEY)".into_sql_str();
        let migration = Migration::new(1, "things".into(), MigrationType::Simple, sql, false);
        Migrations { postgres: Migrator::with_migrations(vec![migration]), ..Migrations::none() }
    }

    fn impatient(url: &str) -> DbConfig {
        // To connect takes a while where many tests do.
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
    async fn a_replica_that_stands_still_in_a_transaction_loses_its_locks() {
        let Some(url) = testing::postgres_url().await else { return };
        let stands_still = Db::open(&impatient(&url), Migrations::none()).await.unwrap();
        let goes_on = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        query("CREATE TABLE things (at timestamptz)").execute(&goes_on).await.unwrap();
        query("INSERT INTO things VALUES ($1)").bind(now()).execute(&goes_on).await.unwrap();
        let mut holder = stands_still.begin().await.unwrap();
        query("SELECT at FROM things FOR UPDATE").fetch_all(&mut holder).await.unwrap();

        let mut waiter = goes_on.begin().await.unwrap();
        query("SELECT at FROM things FOR UPDATE").fetch_all(&mut waiter).await.unwrap();
        let late = query("UPDATE things SET at = $1").bind(now()).execute(&mut holder).await;
        assert!(matches!(late, Err(DbError::Unavailable(_))), "{late:?}");
    }

    #[actix_web::test]
    async fn nobody_waits_long_for_a_server_that_cannot_be_reached_any_more() {
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
    async fn when_the_network_is_back_no_connection_is_lost_that_was_used_when_it_went() {
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

    #[actix_web::test]
    async fn after_a_full_disk_the_next_transaction_is_as_good_as_any() {
        let db = Db::open(&DbConfig::at(&testing::sqlite_url()), Migrations::none()).await.unwrap();
        query("CREATE TABLE things (name text)").execute(&db).await.unwrap();
        let insert = |length: usize| query("INSERT INTO things VALUES ($1)").bind("x".repeat(length));
        let mut tx = db.begin().await.unwrap();
        insert(1).execute(&mut tx).await.unwrap();
        // No more pages than there are, on this connection.
        query("PRAGMA max_page_count = 1").fetch_all(&mut tx).await.unwrap();
        let full = insert(1_000_000).execute(&mut tx).await;
        assert!(matches!(full, Err(DbError::Unavailable(_))), "{full:?}");
        drop(tx);

        let mut tx = db.begin().await.unwrap();
        insert(1_000_000).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let kept = query("SELECT COUNT(*) AS rows FROM things").fetch_one(&db).await.unwrap();
        assert_eq!(kept.get::<i64>("rows").unwrap(), 1);
    }

    #[test]
    fn the_pool_and_its_limits_are_variables() {
        let read = |connections: &str| {
            let mut vars = Vars::from_pairs([
                ("DATABASE_CONNECTIONS", connections),
                ("DATABASE_ACQUIRE_TIMEOUT", "500ms"),
                ("DATABASE_STATEMENT_TIMEOUT", "2s"),
            ]);
            let config = DbConfig::from_vars(&mut vars, "sqlite://data/things.db");
            vars.finish(config)
        };
        let config = read("20").unwrap();
        assert_eq!((config.url.as_str(), config.connections), ("sqlite://data/things.db", 20));
        assert_eq!(config.acquire_timeout, Duration::from_millis(500));
        assert_eq!(config.statement_timeout, Duration::from_secs(2));
        assert!(read("0").is_err() && read("many").is_err());
    }
}
