//! Databases for tests: a new one each time, on every engine that this machine has.
//!
//! SQLite is always there. PostgreSQL is the server at `TEST_POSTGRES_URL`; without that variable
//! its half of a test is skipped with a line that says so, and with `CI=true` the test fails.

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

pub use super::watched::{crash_at, whole_table_reads};
use super::{Db, DbConfig, Migrations};

/// A new database on each engine, with the chassis' tables only.
pub async fn databases() -> Vec<Db> {
    let mut databases = Vec::new();
    for url in urls().await {
        databases.push(
            Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap_or_else(|why| panic!("{why}")),
        );
    }
    databases
}

/// The URL of a new, empty database on each engine.
pub async fn urls() -> Vec<String> {
    let mut urls = vec![sqlite_url()];
    urls.extend(postgres_url().await);
    urls
}

/// The URL of a new SQLite file.
pub fn sqlite_url() -> String {
    let file = std::env::temp_dir().join(format!("test-{}.db", Uuid::now_v7()));
    format!("sqlite://{}", file.display())
}

/// The URL of a new database on the PostgreSQL server for tests, if there is one.
pub async fn postgres_url() -> Option<String> {
    let server = crate::testing::server("TEST_POSTGRES_URL", "PostgreSQL")?;
    let name = format!("test_{}", Uuid::now_v7().simple());
    let mut url = url::Url::parse(&server).unwrap_or_else(|why| panic!("TEST_POSTGRES_URL: {why}"));
    let mut connection =
        PgConnection::connect(&server).await.unwrap_or_else(|why| panic!("TEST_POSTGRES_URL: {why}"));
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap_or_else(|why| panic!("{why}"));
    url.set_path(&name);
    Some(url.into())
}
