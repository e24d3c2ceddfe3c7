//! SQLite: opens a file, and runs statements written for PostgreSQL.

mod connections; // kept between their uses

use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr as _;

use log::LevelFilter;
use sqlx::migrate::Migrator;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Sqlite};

pub(super) use self::connections::{Connections, SqliteTx};
use super::PREPARED_STATEMENTS;
use super::connect::{DbConfig, OpenError, in_order};
use super::text::format_time;
use super::value::Value;

pub(super) async fn open(config: &DbConfig, migrations: Migrator) -> Result<Connections, OpenError> {
    let options = SqliteConnectOptions::from_str(&config.url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode a commit survives a crash of the process; only a power failure can undo the last ones.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        // Otherwise `INSERT OR REPLACE` would bypass the triggers that protect append-only tables.
        .pragma("recursive_triggers", "on")
        .busy_timeout(config.acquire_timeout)
        .statement_cache_capacity(PREPARED_STATEMENTS)
        // Except those that are slow.
        .log_statements(LevelFilter::Off);
    let lock = migration_lock(options.get_filename())?;
    let mut migrating = options.connect().await?;
    for migrator in in_order(sqlx::migrate!("migrations/sqlite"), migrations) {
        migrator.run(&mut migrating).await?;
    }
    migrating.close().await?;
    drop(lock);
    Ok(Connections::new(options, config.connections, config.acquire_timeout))
}

/// Lock for the time of the migrations: sqlx has none for SQLite, and two replicas may start together.
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

/// Adapts `sql` and its parameters to SQLite.
pub(super) fn statement(sql: String, values: Vec<Value>) -> Query<'static, Sqlite, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(adapted(sql)));
    for value in values {
        query = match value {
            Value::Text(value) => query.bind(value),
            Value::Int(value) => query.bind(value),
            Value::Bool(value) => query.bind(value),
            Value::Uuid(value) => query.bind(value.map(|id| id.to_string())),
            Value::Time(value) => query.bind(value.map(format_time)),
            Value::Json(value) => query.bind(value.map(|json| json.to_string())),
            Value::Ints(values) => query.bind(serde_json::json!(values).to_string()),
            Value::Uuids(values) => query.bind(serde_json::json!(values).to_string()),
        };
    }
    query
}

/// `sql` without row locks, and with arrays as tables.
fn adapted(sql: String) -> String {
    let mut sql = match sql.contains("FOR UPDATE") {
        true => sql.replace("FOR UPDATE SKIP LOCKED", "").replace("FOR UPDATE", ""),
        false => sql,
    };
    while let Some((before, rest)) = sql.split_once("= ANY(")
        && let Some((array, after)) = rest.split_once(')')
    {
        sql = format!("{before}IN (SELECT value FROM json_each({array})){after}");
    }
    match sql.contains("UNNEST(") {
        // The column of both is `value`, if PostgreSQL's table has that name.
        true => sql.replace("UNNEST(", "json_each("),
        false => sql,
    }
}

#[cfg(test)]
mod tests {
    use crate::db::{Db, DbConfig, DbError, Migrations, query, testing};

    #[actix_web::test]
    async fn after_a_full_disk_the_next_transaction_succeeds() {
        let db = Db::open(&DbConfig::at(&testing::sqlite_url()), Migrations::none()).await.unwrap();
        query("CREATE TABLE things (name text)").execute(&db).await.unwrap();
        let insert = |length: usize| query("INSERT INTO things VALUES ($1)").bind("x".repeat(length));
        let mut tx = db.begin().await.unwrap();
        insert(1).execute(&mut tx).await.unwrap();
        // On this connection, the database cannot grow.
        query("PRAGMA max_page_count = 1").fetch_all(&mut tx).await.unwrap();
        let full = insert(1_000_000).execute(&mut tx).await;
        assert!(matches!(full, Err(DbError::Unavailable(_))), "{full:?}");
        drop(tx);

        let mut tx = db.begin().await.unwrap();
        query("PRAGMA max_page_count = 1000000").fetch_all(&mut tx).await.unwrap();
        insert(1_000_000).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let kept = query("SELECT COUNT(*) AS rows FROM things").fetch_one(&db).await.unwrap();
        assert_eq!(kept.get::<i64>("rows").unwrap(), 1);
    }
}
