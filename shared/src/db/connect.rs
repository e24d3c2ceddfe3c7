//! Opening a database and bringing it to the schema this program was built with.

use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Db, Pools};

/// How long a request waits for a connection, and SQLite for another process's write.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections for reading (SQLite) or for everything (PostgreSQL), per process.
const CONNECTIONS: u32 = 8;

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
    /// Opens the database at `url` and migrates it: the chassis' tables first, then the service's.
    /// Several replicas may start at once.
    ///
    /// # Errors
    /// Any [`OpenError`]; none shows a password.
    pub async fn open(url: &str, migrations: Migrations) -> Result<Self, OpenError> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => open_sqlite(url, migrations.sqlite).await,
            "postgres" | "postgresql" => open_postgres(url, migrations.postgres).await,
            _ => Err(OpenError::Scheme),
        }
    }
}

async fn open_sqlite(url: &str, migrations: Migrator) -> Result<Db, OpenError> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode a commit survives the end of the process; only a power cut can undo the last ones.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(ACQUIRE_TIMEOUT);
    let lock = migration_lock(options.get_filename())?;
    let pool = |connections: u32| {
        SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT)
    };
    let writer = pool(1).connect_with(options.clone()).await?;
    chassis(sqlx::migrate!("migrations/sqlite")).run(&writer).await?;
    migrations.run(&writer).await?;
    drop(lock);
    let readers = pool(CONNECTIONS).connect_with(options).await?;
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

async fn open_postgres(url: &str, migrations: Migrator) -> Result<Db, OpenError> {
    let options =
        PgConnectOptions::from_str(url)?.options([("statement_timeout", "10s"), ("lock_timeout", "3s")]);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_secs(300))
        .connect_with(options)
        .await?;
    chassis(sqlx::migrate!("migrations/postgres")).run(&pool).await?;
    migrations.run(&pool).await?;
    Ok(Db(Pools::Postgres(pool)))
}

/// The chassis keeps its own list of what it has run, apart from the service's.
fn chassis(mut migrations: Migrator) -> Migrator {
    migrations.dangerous_set_table_name("_chassis_migrations");
    migrations
}
