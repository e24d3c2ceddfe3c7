//! What the databases count: rows, bytes, transactions. And the means to let time pass in them.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::db::{Db, DbConfig, DbError, Migrations, Row, now, query};

use crate::ground::{Ground, Program};

/// What may be asked of a database, in SQL of ours only.
pub struct Database {
    /// `users`, `orders` or `payments`.
    pub name: &'static str,
    server: Server,
}

enum Server {
    File(Db),
    Container(Program),
}

/// The chassis' tables, whose rows are kept for a while only, and the columns that say since when.
const FOR_A_WHILE: [(&str, &str); 3] =
    [("outbox", "sent_at"), ("inbox", "seen_at"), ("idempotency_keys", "expires_at")];

/// The rows of the tables above.
pub type Kept = [i64; 3];

impl Database {
    /// Those of order-service and payment-service.
    ///
    /// # Errors
    /// In words, why one cannot be opened.
    pub async fn all(ground: Ground) -> Result<Vec<Self>, String> {
        let mut databases = Vec::new();
        for name in ["orders", "payments"] {
            let server = match ground {
                Ground::Embedded => {
                    let config = DbConfig::at(&format!("sqlite://data/{name}.db"));
                    let db = Db::open(&config, Migrations::none()).await;
                    Server::File(db.map_err(|why| why.to_string())?)
                }
                Ground::Compose => {
                    let mut programs = ground.programs().await.into_iter();
                    let found = programs.find(|one| one.service == "postgres");
                    Server::Container(found.ok_or("There is no container of postgres.")?)
                }
            };
            databases.push(Self { name, server });
        }
        Ok(databases)
    }

    /// The rows in each table of those that are pruned.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn kept(&self) -> Result<Kept, String> {
        let mut kept = Kept::default();
        for (rows, (table, _)) in kept.iter_mut().zip(FOR_A_WHILE) {
            *rows = self.number(&format!("SELECT COUNT(*) AS n FROM {table}")).await?;
        }
        Ok(kept)
    }

    /// The bytes that it has on disk, or in use.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn bytes(&self) -> Result<i64, String> {
        let sql = match self.server {
            Server::File(_) => {
                "SELECT (page_count - freelist_count) * page_size AS n \
                 FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
            }
            Server::Container(_) => "SELECT pg_database_size(current_database()) AS n",
        };
        self.number(sql).await
    }

    /// Makes everything in it as old as that, as far as the rules of retention look.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn age(&self, time: Duration) -> Result<(), String> {
        for (table, column) in FOR_A_WHILE {
            match &self.server {
                Server::File(db) => {
                    let update = format!("UPDATE {table} SET {column} = $1 WHERE {column} IS NOT NULL");
                    let aged = query(update).bind(now() - time).execute(db).await;
                    aged.map_err(|error| error.to_string())?;
                }
                Server::Container(_) => {
                    let seconds = time.as_secs();
                    let then = format!("now() - interval '{seconds} s'");
                    self.psql(&format!("UPDATE {table} SET {column} = {then} WHERE {column} IS NOT NULL"))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// The transactions so far in the whole server: those that wrote, and all. `None` where nobody counts.
    pub async fn transactions(&self) -> Option<[i64; 2]> {
        let Server::Container(_) = self.server else { return None };
        let wrote = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS n";
        let all = "SELECT SUM(xact_commit + xact_rollback)::bigint AS n FROM pg_stat_database \
                   WHERE datname IN ('users', 'orders', 'payments')";
        Some([self.number(wrote).await.ok()?, self.number(all).await.ok()?])
    }

    /// The milliseconds from the writing of each of the last events here to its effect in `other`.
    ///
    /// # Errors
    /// When a database does not answer.
    pub async fn deliveries(&self, other: &Self) -> Result<Vec<i64>, String> {
        let written = self.moments("outbox", "created_at", "seq").await?;
        let seen: BTreeMap<_, _> = other.moments("inbox", "seen_at", "seen_at").await?.into_iter().collect();
        Ok(written.iter().filter_map(|(id, at)| Some(seen.get(id)? - at)).collect())
    }

    /// Ids and times, in ms, of the last rows.
    async fn moments(&self, table: &str, column: &str, order: &str) -> Result<Vec<(String, i64)>, String> {
        let ms = match self.server {
            Server::File(_) => format!("CAST((julianday({column}) - 2440587.5) * 86400000 AS INTEGER)"),
            Server::Container(_) => format!("(extract(epoch FROM {column}) * 1000)::bigint"),
        };
        let sql = format!("SELECT id, {ms} AS ms FROM {table} ORDER BY {order} DESC LIMIT 2000");
        match &self.server {
            Server::File(db) => {
                let rows = query(sql).fetch_all(db).await.map_err(|error| error.to_string())?;
                let row = |row: &Row| Ok((row.get("id")?, row.get("ms")?));
                rows.iter().map(row).collect::<Result<_, DbError>>().map_err(|error| error.to_string())
            }
            Server::Container(_) => {
                let printed = self.psql(&sql).await?;
                let row = |line: &str| {
                    let (id, ms) = line.split_once('|')?;
                    Some((id.to_owned(), ms.parse().ok()?))
                };
                Ok(printed.lines().filter_map(row).collect())
            }
        }
    }

    async fn number(&self, sql: &str) -> Result<i64, String> {
        match &self.server {
            Server::File(db) => {
                let row = query(sql).fetch_one(db).await;
                row.and_then(|row| row.get("n")).map_err(|error| error.to_string())
            }
            Server::Container(_) => {
                let printed = self.psql(sql).await?;
                printed.trim().parse().map_err(|_| format!("no number: {printed}"))
            }
        }
    }

    async fn psql(&self, sql: &str) -> Result<String, String> {
        let Server::Container(server) = &self.server else { return Err("no container".to_owned()) };
        let command = ["exec", &server.name, "psql", "-qtA", "-U", "postgres", "-d", self.name, "-c", sql];
        let printed = crate::ground::output("docker", &command).await;
        printed.ok_or_else(|| format!("PostgreSQL does not answer: {sql}"))
    }
}
