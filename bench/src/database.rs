//! Rows, bytes and transactions in the databases, and a way to age their rows.

pub mod books; // whether what the databases hold adds up
pub mod copies; // more orders
mod peer; // databases of another shop

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::db::{Db, DbConfig, DbError, Migrations, Row, now, query};
use xtask::programs;

use crate::environment::{Environment, Replica};
use crate::invariants::snapshot::Entries;

/// Runs SQL that is written in this file only.
pub struct Database {
    pub name: &'static str,
    server: Server,
}

enum Server {
    File(Db),
    Container(Replica),
}

/// The chassis' tables that are pruned, and the columns that decide when.
const PRUNED: [(&str, &str); 3] =
    [("outbox", "sent_at"), ("inbox", "seen_at"), ("idempotency_keys", "expires_at")];

/// The database of the card network, which is a file everywhere.
const CARD_NETWORK: &str = "card-network";

/// The database of pgbench, which is dropped again.
const PGBENCH: &str = "pgbench";

/// Rows, by table.
pub type Kept = [i64; 3];

pub struct Table {
    pub name: String,
    pub rows: i64,
    /// The size on disk, with indices.
    pub bytes: i64,
}

impl Table {
    pub fn is_pruned(&self) -> bool {
        PRUNED.iter().any(|(table, _)| *table == self.name)
    }
}

impl Database {
    /// `{name}` in `urls` stands for the name; a container is found without.
    pub(crate) async fn open(
        environment: Environment,
        urls: &str,
        name: &'static str,
    ) -> Result<Self, String> {
        let file = async |url: &str| {
            let db = Db::open(&DbConfig::at(url), Migrations::none()).await;
            db.map(Server::File).map_err(|why| why.to_string())
        };
        let container = async |service: &str| {
            let found = environment.replicas().await.into_iter().find(|one| one.service == service);
            found.ok_or_else(|| format!("There is no container of {service}."))
        };
        let server = match environment {
            Environment::Embedded => file(&urls.replace("{name}", name)).await?,
            Environment::Compose if name == CARD_NETWORK => {
                let volume = crate::environment::volume(&container(name).await?).await;
                let volume = volume.ok_or("The card network has no volume.")?;
                file(&format!("sqlite://{volume}/{name}.db")).await?
            }
            Environment::Compose => Server::Container(container("postgres").await?),
        };
        Ok(Self { name, server })
    }

    /// The number of rows of the pruned tables.
    pub async fn kept(&self) -> Result<Kept, String> {
        let mut kept = Kept::default();
        for (rows, (table, _)) in kept.iter_mut().zip(PRUNED) {
            *rows = self.number(&format!("SELECT COUNT(*) AS n FROM {table}")).await?;
        }
        Ok(kept)
    }

    /// Bytes on disk, without free pages.
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

    /// All but those of the migrations.
    pub async fn tables(&self) -> Result<Vec<Table>, String> {
        let sizes = match self.server {
            Server::File(_) => {
                "SELECT tbl_name AS name, SUM(pgsize) AS n FROM sqlite_schema JOIN dbstat USING (name) \
                 GROUP BY tbl_name ORDER BY tbl_name"
            }
            Server::Container(_) => {
                "SELECT relname AS name, pg_total_relation_size(relid) AS n FROM pg_stat_user_tables \
                 ORDER BY relname"
            }
        };
        let mut tables = Vec::new();
        for (name, bytes) in self.pairs(sizes).await?.into_iter().filter(|(name, _)| !name.starts_with('_')) {
            let rows = self.number(&format!("SELECT COUNT(*) AS n FROM {name}")).await?;
            tables.push(Table { name, rows, bytes });
        }
        Ok(tables)
    }

    /// The totals of the ledger. This must be the database of payment-service.
    pub async fn entries(&self) -> Result<Entries, String> {
        let balances =
            "SELECT account AS name, CAST(SUM(amount) AS BIGINT) AS n FROM ledger_entries GROUP BY account";
        let balances = self.pairs(balances).await?.into_iter().collect();
        let count = self.number("SELECT COUNT(*) AS n FROM ledger_entries").await?;
        Ok(Entries { balances, count })
    }

    /// How many of the orders placed since `begun` are confirmed, and how long after it the last of them was.
    /// This must be the database of order-service.
    pub async fn confirmed(&self, begun: SystemTime) -> Result<(usize, Duration), String> {
        let (placed, changed) = (self.ms("created_at"), self.ms("updated_at"));
        let begun = begun.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let of = format!("FROM orders WHERE status = 'confirmed' AND {placed} >= {begun}");
        let count = self.number(&format!("SELECT COUNT(*) AS n {of}")).await?;
        let time = self.number(&format!("SELECT COALESCE(MAX({changed}) - {begun}, 0) AS n {of}")).await?;
        let time = Duration::from_millis(time.try_into().unwrap_or_default());
        Ok((count.try_into().unwrap_or_default(), time))
    }

    /// Makes every row of the pruned tables this old.
    pub async fn age(&self, time: Duration) -> Result<(), String> {
        for (table, column) in PRUNED {
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

    /// The transactions so far in the whole server: those that wrote, and all. SQLite does not count them.
    pub async fn transactions(&self) -> Option<[i64; 2]> {
        let Server::Container(_) = self.server else { return None };
        let wrote = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS n";
        let databases: Vec<_> = programs().iter().filter_map(|program| program.database).collect();
        let all = format!(
            "SELECT SUM(xact_commit + xact_rollback)::bigint AS n FROM pg_stat_database \
             WHERE datname IN ('{}')",
            databases.join("', '")
        );
        Some([self.number(wrote).await.ok()?, self.number(&all).await.ok()?])
    }

    /// The transactions per second of pgbench, 16 clients with simple updates, in the same container. `None` on SQLite.
    pub async fn pgbench(&self) -> Result<Option<f64>, String> {
        let Server::Container(server) = &self.server else { return Ok(None) };
        let script = format!(
            "createdb -U postgres {PGBENCH} && pgbench -U postgres -i -q -s 10 {PGBENCH} && \
             pgbench -U postgres -N -M prepared -c 16 -j 2 -T 10 {PGBENCH}; dropdb -U postgres {PGBENCH}"
        );
        let command = ["exec", &server.name, "sh", "-c", &script];
        let printed = crate::environment::output("docker", &command, None).await.unwrap_or_default();
        let tps =
            printed.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        tps.map(Some).ok_or_else(|| format!("pgbench does not print its result: {printed}"))
    }

    /// The number of transactions, by the number of events that each handled: these have the same time.
    pub async fn batches(&self) -> Result<BTreeMap<i64, i64>, String> {
        let sizes = "SELECT CAST(size AS text) AS name, COUNT(*) AS n \
                     FROM (SELECT COUNT(*) AS size FROM inbox GROUP BY seen_at) AS batches GROUP BY size";
        let sizes = self.pairs(sizes).await?.into_iter();
        Ok(sizes.map(|(size, count)| (size.parse().unwrap_or_default(), count)).collect())
    }

    /// Delivery times of the last events that arrived in `other`: the milliseconds from the insert into the outbox
    /// here to its insert into the inbox there. So the first commit and the delivery are included, the effect
    /// and the second commit are not.
    pub async fn deliveries(&self, other: &Self) -> Result<Vec<i64>, String> {
        let written = self.moments("outbox", "created_at", "seq").await?;
        let seen: BTreeMap<_, _> = other.moments("inbox", "seen_at", "seen_at").await?.into_iter().collect();
        Ok(written.iter().filter_map(|(id, at)| Some(seen.get(id)? - at)).collect())
    }

    /// Ids and times, in ms, of the last rows.
    async fn moments(&self, table: &str, column: &str, order: &str) -> Result<Vec<(String, i64)>, String> {
        let ms = self.ms(column);
        self.pairs(&format!("SELECT id AS name, {ms} AS n FROM {table} ORDER BY {order} DESC LIMIT 2000"))
            .await
    }

    /// SQL for the time in a column, in milliseconds.
    fn ms(&self, column: &str) -> String {
        match self.server {
            Server::File(_) => {
                format!("CAST(ROUND((julianday({column}) - 2440587.5) * 86400000) AS INTEGER)")
            }
            Server::Container(_) => format!("(extract(epoch FROM {column}) * 1000)::bigint"),
        }
    }

    /// The columns `name` and `n` of each row.
    async fn pairs(&self, sql: &str) -> Result<Vec<(String, i64)>, String> {
        match &self.server {
            Server::File(db) => {
                let rows = query(sql).fetch_all(db).await.map_err(|error| error.to_string())?;
                let row = |row: &Row| Ok((row.get("name")?, row.get("n")?));
                rows.iter().map(row).collect::<Result<_, DbError>>().map_err(|error| error.to_string())
            }
            Server::Container(_) => {
                let printed = self.psql(sql).await?;
                let row = |line: &str| {
                    let (name, n) = line.split_once('|')?;
                    Some((name.to_owned(), n.parse().ok()?))
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

    /// Runs the statements in one transaction.
    async fn run(&self, statements: &[String]) -> Result<(), String> {
        match &self.server {
            Server::File(db) => {
                let all = db.transaction(async |tx| {
                    for statement in statements {
                        query(statement.as_str()).execute(&mut *tx).await?;
                    }
                    Ok::<_, DbError>(())
                });
                all.await.map_err(|error| error.to_string())
            }
            Server::Container(_) => self.psql(&statements.join("; ")).await.map(drop),
        }
    }

    async fn psql(&self, sql: &str) -> Result<String, String> {
        let Server::Container(server) = &self.server else { return Err("no container".to_owned()) };
        let command = ["exec", &server.name, "psql", "-qtA", "-U", "postgres", "-d", self.name, "-c", sql];
        let printed = crate::environment::output("docker", &command, None).await;
        printed.ok_or_else(|| format!("PostgreSQL does not answer: {sql}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The schema of no service, but of the same names.
    async fn database(folder: &Path) -> Database {
        let url = format!("sqlite://{}/orders.db", folder.display());
        let db = Db::open(&DbConfig::at(&url), Migrations::none()).await;
        let db = db.unwrap();
        for sql in [
            "CREATE TABLE ledger_entries (account TEXT, amount INTEGER)",
            "INSERT INTO ledger_entries VALUES ('sales', -500), ('sales', -1), ('card_network', 501)",
            "CREATE TABLE orders (status TEXT, created_at TEXT, updated_at TEXT)",
        ] {
            query(sql).execute(&db).await.unwrap();
        }
        Database { name: "orders", server: Server::File(db) }
    }

    #[actix_web::test]
    async fn sqlite_reports_its_tables_entries_and_orders() {
        let folder = std::env::temp_dir().join(format!("bench-{}", uuid::Uuid::now_v7()));
        let database = database(&folder).await;
        let Server::File(db) = &database.server else { unreachable!() };
        let (begun, seconds) = (SystemTime::now(), Duration::from_secs);
        let (before, soon, later) = (now() - seconds(9), now() + seconds(1), now() + seconds(3));
        for (status, placed, changed) in
            [("confirmed", before, soon), ("confirmed", soon, later), ("rejected", soon, later + seconds(1))]
        {
            let insert = query("INSERT INTO orders VALUES ($1, $2, $3)").bind(status);
            insert.bind(placed).bind(changed).execute(db).await.unwrap();
        }

        let tables = database.tables().await.unwrap();
        let rows: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
        assert_eq!(rows[..3], [("admin_acts", 0), ("dead_letters", 0), ("idempotency_keys", 0)]);
        assert!(rows.contains(&("ledger_entries", 3)) && tables.iter().all(|table| table.bytes > 0));
        let entries = database.entries().await.unwrap();
        assert_eq!((entries.balances["sales"], entries.count), (-501, 3));
        let (confirmed, time) = database.confirmed(begun).await.unwrap();
        assert_eq!((confirmed, time.as_secs()), (1, 3));
        for seen_at in [soon, soon, later] {
            let insert = query("INSERT INTO inbox VALUES ('a', $1, $2)").bind(uuid::Uuid::now_v7());
            insert.bind(seen_at).execute(db).await.unwrap();
        }
        assert_eq!(database.batches().await.unwrap(), BTreeMap::from([(1, 1), (2, 1)]));
        db.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
