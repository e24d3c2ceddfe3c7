//! Configuration, migrations and errors of opening a database.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};

use crate::config::Vars;

#[derive(Clone)]
pub struct DbConfig {
    /// `sqlite://…` or `postgres://…`.
    pub url: String,
    /// Maximum connections of this process: in total (PostgreSQL), or for reading (SQLite).
    pub connections: u32,
    /// How long to wait for a free connection, or for a row lock.
    pub acquire_timeout: Duration,
    /// PostgreSQL cancels a statement that runs longer, and a transaction that is idle for longer.
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

    /// For tests and tools: longer timeouts than in a service, because creating many databases can stall
    /// the disk.
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
    pub sqlite: Migrator,
    pub postgres: Migrator,
}

impl Migrations {
    /// No migrations but the chassis' own; other tables stay as they are.
    pub fn none() -> Self {
        let none = || {
            let mut none = Migrator::with_migrations(Vec::new());
            none.set_ignore_missing(true);
            none
        };
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
}

/// The chassis records its migrations in a table of its own, apart from the service's.
pub(super) fn chassis(mut migrations: Migrator) -> Migrator {
    migrations.dangerous_set_table_name("_chassis_migrations");
    migrations
}

#[cfg(test)]
mod tests {
    use super::*;

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
