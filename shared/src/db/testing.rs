//! Databases for tests: a new one for each call, on every available engine. It is dropped when the thread that
//! created it ends, that is, at the end of the test.
//!
//! SQLite is always available. PostgreSQL is the server at `TEST_POSTGRES_URL`. Without that variable the
//! PostgreSQL part of a test is skipped with a message; with `CI=true` the test fails.

use std::cell::RefCell;
use std::path::PathBuf;

use uuid::Uuid;

pub use super::test_hooks::{
    OF_A_TEST, crash_at, multiply, query_plans, runs, sequential_scans, whole_table_reads,
};
use super::{Db, DbConfig, Migrations};

thread_local! {
    static MADE: RefCell<Vec<Made>> = const { RefCell::new(Vec::new()) };
}

enum Made {
    Folder(PathBuf),
    #[cfg(feature = "postgres")]
    Database {
        server: String,
        name: String,
    },
}

/// Ignores errors, because the test is over.
impl Drop for Made {
    fn drop(&mut self) {
        match self {
            Self::Folder(folder) => drop(std::fs::remove_dir_all(folder)),
            #[cfg(feature = "postgres")]
            Self::Database { server, name } => {
                let (server, drop_it) = (server.clone(), format!("DROP DATABASE {name} WITH (FORCE)"));
                // In another thread, because this thread's runtime has ended.
                let dropping = std::thread::spawn(move || {
                    let system = actix_web::rt::System::new();
                    system.block_on(run(&server, drop_it))
                });
                drop(dropping.join());
            }
        }
    }
}

#[cfg(feature = "postgres")]
async fn run(server: &str, sql: String) -> Result<(), sqlx::Error> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(server).await?;
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

/// A new database on each engine, with the chassis' tables.
pub async fn databases() -> Vec<Db> {
    let mut databases = Vec::new();
    for url in urls().await {
        databases.push(
            Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap_or_else(|why| panic!("{why}")),
        );
    }
    databases
}

/// URLs of new, empty databases, one per engine.
pub async fn urls() -> Vec<String> {
    let sqlite = cfg!(feature = "sqlite").then(sqlite_url);
    sqlite.into_iter().chain(postgres_url().await).collect()
}

pub fn sqlite_url() -> String {
    let folder = std::env::temp_dir().join(format!("test-{}", Uuid::now_v7()));
    let url = format!("sqlite://{}", folder.join("test.db").display());
    MADE.with_borrow_mut(|made| made.push(Made::Folder(folder)));
    url
}

/// `None` without a PostgreSQL server for tests, or without the feature `postgres`.
pub async fn postgres_url() -> Option<String> {
    #[cfg(not(feature = "postgres"))]
    return None;
    #[cfg(feature = "postgres")]
    {
        let server = crate::testing::server("TEST_POSTGRES_URL", "PostgreSQL")?;
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut url = url::Url::parse(&server).unwrap_or_else(|why| panic!("TEST_POSTGRES_URL: {why}"));
        let create = run(&server, format!("CREATE DATABASE {name}")).await;
        create.unwrap_or_else(|why| panic!("TEST_POSTGRES_URL: {why}"));
        url.set_path(&name);
        MADE.with_borrow_mut(|made| made.push(Made::Database { server, name }));
        Some(url.into())
    }
}
