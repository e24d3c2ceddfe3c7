//! Configuration, migrations and errors of opening a database.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};

use crate::config::Vars;

#[derive(Clone)]
pub struct DbConfig {
    /// `sqlite://…` or `postgres://…`.
    pub url: String,
    /// PostgreSQL: the login that migrates, and owns the tables. If absent, that of `url`.
    pub migrations_url: Option<String>,
    /// Maximum connections of this process: in total (PostgreSQL), or for reading (SQLite).
    pub connections: u32,
    /// How long to wait for a free connection, or for a row lock.
    pub acquire_timeout: Duration,
    /// PostgreSQL cancels a statement that runs longer, and a transaction that is idle for longer.
    pub statement_timeout: Duration,
    /// PostgreSQL: a replica whose clock differs more from the database's is not ready.
    pub max_clock_skew: Duration,
}

impl DbConfig {
    /// Reads `DATABASE_URL`, `DATABASE_MIGRATIONS_URL`, `DATABASE_CONNECTIONS`, `DATABASE_ACQUIRE_TIMEOUT`,
    /// `DATABASE_STATEMENT_TIMEOUT` and `DATABASE_MAX_CLOCK_SKEW`.
    pub fn from_vars(vars: &mut Vars, default_url: &str) -> Self {
        let config = Self {
            url: vars.or("DATABASE_URL", default_url, "sqlite:// or postgres:// URL of the database"),
            migrations_url: vars
                .optional("DATABASE_MIGRATIONS_URL", "the same for PostgreSQL, with the login that migrates"),
            connections: vars.or("DATABASE_CONNECTIONS", "8", "connections at most"),
            acquire_timeout: vars.or("DATABASE_ACQUIRE_TIMEOUT", "3s", "how long to wait for one, or a lock"),
            statement_timeout: vars.or("DATABASE_STATEMENT_TIMEOUT", "10s", "how long a statement may take"),
            max_clock_skew: vars.or("DATABASE_MAX_CLOCK_SKEW", "5s", "from its time; beyond it, not ready"),
        };
        if config.connections == 0 {
            vars.reject("DATABASE_CONNECTIONS is not usable: write 1 or more");
        }
        config
    }

    /// A configuration for tests and tools: longer timeouts than in a service, because creating many databases can
    /// stall the disk.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            migrations_url: None,
            connections: 8,
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(30),
            max_clock_skew: Duration::from_secs(5),
        }
    }
}

/// A service's migrations, one folder per database: `migrations/sqlite`, `migrations/postgres`.
#[derive(Debug)]
pub struct Migrations {
    pub sqlite: Migrator,
    pub postgres: Migrator,
}

impl Migrations {
    /// Only the migrations of the chassis; other tables stay as they are.
    pub fn none() -> Self {
        let none = || Migrator::with_migrations(Vec::new());
        Self { sqlite: none(), postgres: none() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Unknown scheme, or this program was built without that database.
    #[error("DATABASE_URL must start with sqlite:// or postgres://, and the program be built with it")]
    Scheme,
    /// The file or its folder cannot be created or opened.
    #[error("the database file {path} cannot be opened: {source}")]
    File { path: String, source: std::io::Error },
    /// The database refuses the connection, or cannot be reached.
    #[error("the database cannot be opened: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database cannot be migrated: {0}")]
    Migrate(#[from] MigrateError),
    /// PostgreSQL: other sessions used the tables for too long. Nothing was changed.
    #[error("the database cannot be migrated now, because others use the tables {tables}: {source}")]
    Locked { tables: String, source: MigrateError },
}

/// The migrations of the chassis, which has a table of its own to record them, and then the service's.
///
/// A database may have newer migrations than this program knows: during an upgrade, and after a rollback. They
/// are ignored, because a migration must suit the version before it (CONTRIBUTING.md, "Changes to tables").
pub(super) fn in_order(mut chassis: Migrator, mut service: Migrator) -> [Migrator; 2] {
    chassis.dangerous_set_table_name("_chassis_migrations");
    chassis.set_ignore_missing(true);
    service.set_ignore_missing(true);
    [chassis, service]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Db, query, testing};

    #[actix_web::test]
    async fn a_program_starts_on_a_database_with_newer_migrations_than_it_knows() {
        for url in testing::urls().await {
            let config = DbConfig::at(&url);
            let newer = Db::open(&config, Migrations::none()).await.unwrap();
            for table in ["_chassis_migrations", "_sqlx_migrations"] {
                let applied = query(format!(
                    "INSERT INTO {table} (version, description, success, checksum, execution_time) \
                     SELECT 9999, 'of a newer version', TRUE, checksum, 0 FROM _chassis_migrations LIMIT 1"
                ));
                assert_eq!(applied.execute(&newer).await.unwrap(), 1, "{table}");
            }
            newer.close().await;
            let older = Db::open(&config, Migrations::none()).await.unwrap();
            older.ping().await.unwrap();
        }
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
            vars.finish(Some(config))
        };
        let config = read("20").unwrap();
        assert_eq!((config.url.as_str(), config.connections), ("sqlite://data/things.db", 20));
        assert_eq!(config.acquire_timeout, Duration::from_millis(500));
        assert_eq!(config.statement_timeout, Duration::from_secs(2));
        assert!(read("0").is_err() && read("many").is_err());
    }
}
