//! Databases for tests: a new one each time, on every engine that this machine has. It is dropped when the
//! thread that made it ends, which is when its test ends.
//!
//! SQLite is always there. PostgreSQL is the server at `TEST_POSTGRES_URL`; without that variable
//! its half of a test is skipped with a line that says so, and with `CI=true` the test fails.

use std::cell::RefCell;
use std::path::PathBuf;

use uuid::Uuid;

pub use super::watched::{crash_at, whole_table_reads};
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

/// Without a word of what fails: the test is over, and its result is known.
impl Drop for Made {
    fn drop(&mut self) {
        match self {
            Self::Folder(folder) => drop(std::fs::remove_dir_all(folder)),
            #[cfg(feature = "postgres")]
            Self::Database { server, name } => {
                let (server, drop_it) = (server.clone(), format!("DROP DATABASE {name} WITH (FORCE)"));
                // Another thread, because this one's runtime is gone.
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
    let sqlite = cfg!(feature = "sqlite").then(sqlite_url);
    sqlite.into_iter().chain(postgres_url().await).collect()
}

/// The URL of a new SQLite file.
pub fn sqlite_url() -> String {
    let folder = std::env::temp_dir().join(format!("test-{}", Uuid::now_v7()));
    let url = format!("sqlite://{}", folder.join("test.db").display());
    MADE.with_borrow_mut(|made| made.push(Made::Folder(folder)));
    url
}

/// The URL of a new database on the PostgreSQL server for tests, if there is one and the feature is on.
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
