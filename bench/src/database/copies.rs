//! Copies of settled orders, made by SQL, so that a database holds a million orders after minutes.
//!
//! A copy is the same order, some hours earlier, with all its rows. The ids are UUIDv7 and begin with a time, so the
//! ids of a copy differ from those of the original only in this time. Copies keep the customer and the product.

use std::ops::Range;
use std::time::Duration;

use uuid::Uuid;

use super::{Database, Server};

/// A copy is so much earlier than the one before it. The first eight digits of a UUIDv7 count steps of 65.536 s, and
/// 125 of these are a whole number of seconds.
pub const SPACING: Duration = Duration::from_secs(8192);
const STEPS: u32 = 125;

const HOUR: Duration = Duration::from_secs(3600);
/// Columns whose values begin with a UUIDv7 that belongs to one order.
const IDS: [&str; 6] = ["id", "order_id", "payment_id", "message_id", "key", "authorization"];
const TIMES: [&str; 7] =
    ["created_at", "updated_at", "deadline", "at", "intended_at", "seen_at", "expires_at"];

/// Rows that belong to one order each.
struct Rows {
    database: &'static str,
    table: &'static str,
    /// The id that says whether a row belongs to an original.
    id: &'static str,
    /// After which the service would have deleted them.
    kept: Duration,
}

const ALL: [Rows; 9] = [
    Rows::of("orders", "orders", "id"),
    Rows::of("orders", "order_events", "order_id"),
    Rows::of("orders", "inbox", "id").kept(HOUR.saturating_mul(7 * 24)),
    Rows::of("orders", "idempotency_keys", "key").kept(HOUR.saturating_mul(24)),
    Rows::of("payments", "payments", "id"),
    Rows::of("payments", "ledger_entries", "payment_id"),
    Rows::of("payments", "inbox", "id").kept(HOUR.saturating_mul(7 * 24)),
    Rows::of("card-network", "authorizations", "key"),
    Rows::of("card-network", "movements", "key"),
];

/// The originals: everything that got its id in a certain time.
#[derive(Debug, Clone)]
pub struct Originals {
    /// Unix time in milliseconds.
    pub placed: Range<u64>,
    /// What each of them buys one of.
    pub product: String,
    /// Who counts in the goods that the copies sell.
    pub admin: String,
}

impl Rows {
    const fn of(database: &'static str, table: &'static str, id: &'static str) -> Self {
        Self { database, table, id, kept: Duration::MAX }
    }

    const fn kept(self, kept: Duration) -> Self {
        Self { kept, ..self }
    }
}

impl Originals {
    /// A condition for SQL.
    fn contain(&self, column: &str) -> String {
        let [from, to] = [self.placed.start, self.placed.end].map(least_id);
        format!("{column} >= '{from}' AND {column} < '{to}'")
    }
}

/// The least UUIDv7 of this millisecond.
fn least_id(ms: u64) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(ms, &[0; 10]).into_uuid()
}

impl Database {
    /// Makes the copies with these numbers in one transaction. Number 1 is [`SPACING`] earlier than the originals.
    pub async fn copy(&self, originals: &Originals, numbers: Range<u32>) -> Result<(), String> {
        let mut statements = Vec::new();
        for rows in ALL.iter().filter(|rows| rows.database == self.name) {
            let kept = numbers.clone().filter(|number| SPACING * *number < rows.kept);
            let numbers: Vec<_> = kept.map(|number| number.to_string()).collect();
            if !numbers.is_empty() {
                statements.push(self.copying(rows, originals, &numbers.join(", ")).await?);
            }
        }
        match self.name {
            "orders" => statements.extend(sales(originals, numbers.len())),
            "payments" => statements.push(totals(originals, numbers.len())),
            _ => {}
        }
        self.run(&statements).await
    }

    /// Does now what PostgreSQL does by itself some time after many inserts: it must not happen during a measurement.
    pub async fn tidy(&self) -> Result<(), String> {
        if let Server::Container(_) = self.server {
            for sql in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
                self.psql(sql).await?;
            }
        }
        Ok(())
    }

    async fn copying(&self, rows: &Rows, originals: &Originals, numbers: &str) -> Result<String, String> {
        let Rows { table, id, .. } = rows;
        let (columns, copies) = match self.server {
            Server::File(_) => (
                format!("SELECT name, 0 AS n FROM pragma_table_info('{table}')"),
                format!("json_each('[{numbers}]') AS copy"),
            ),
            Server::Container(_) => (
                format!(
                    "SELECT column_name AS name, CAST(data_type = 'uuid' AS int) AS n \
                     FROM information_schema.columns WHERE table_name = '{table}'"
                ),
                format!("UNNEST(ARRAY[{numbers}]) AS copy (value)"),
            ),
        };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (column, is_uuid) in self.pairs(&columns).await? {
            values.push(match column.as_str() {
                name if IDS.contains(&name) => self.earlier_id(name, is_uuid == 1),
                name if TIMES.contains(&name) => self.earlier_time(name),
                name => format!("original.{name}"),
            });
            names.push(column);
        }
        Ok(format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {table} AS original CROSS JOIN {copies} WHERE {}",
            names.join(", "),
            values.join(", "),
            originals.contain(&format!("original.{id}"))
        ))
    }

    fn earlier_id(&self, column: &str, is_uuid: bool) -> String {
        match self.server {
            // JSON5 has hexadecimal numbers.
            Server::File(_) => format!(
                "printf('%08x', json_extract('[0x' || substr(original.{column}, 1, 8) || ']', '$[0]') \
                 - {STEPS} * copy.value) || substr(original.{column}, 9)"
            ),
            Server::Container(_) => format!(
                "CAST(lpad(to_hex(CAST(CAST('x' || left(CAST(original.{column} AS text), 8) AS bit(32)) AS bigint) \
                 - {STEPS} * copy.value), 8, '0') || substr(CAST(original.{column} AS text), 9) AS {})",
                if is_uuid { "uuid" } else { "text" }
            ),
        }
    }

    fn earlier_time(&self, column: &str) -> String {
        let seconds = SPACING.as_secs();
        match self.server {
            // Only whole seconds change, and the fraction stays.
            Server::File(_) => format!(
                "strftime('%Y-%m-%dT%H:%M:%S', substr(original.{column}, 1, 19), \
                 '-' || ({seconds} * copy.value) || ' seconds') || substr(original.{column}, 20)"
            ),
            Server::Container(_) => {
                format!("original.{column} - copy.value * interval '{seconds} s'")
            }
        }
    }
}

/// Counts in as many goods as the copies sell, because nobody may have more than a million of a product in stock.
fn sales(originals: &Originals, copies: usize) -> [String; 2] {
    let Originals { product, admin, .. } = originals;
    let of = format!("FROM orders WHERE {}", originals.contain("id"));
    let sold = format!("{copies} * (SELECT COUNT(*) {of})");
    let id = Uuid::now_v7();
    [
        format!(
            "UPDATE stock SET adjusted = adjusted + {sold}, sold = sold + {sold} WHERE product_id = '{product}'"
        ),
        format!(
            "INSERT INTO stock_adjustments (id, product_id, delta, reason, admin_id, at) VALUES \
             ('{id}', '{product}', {sold}, 'for the copies', '{admin}', (SELECT MAX(updated_at) {of}))"
        ),
    ]
}

/// Adds the entries of the copies to one slot of each account.
fn totals(originals: &Originals, copies: usize) -> String {
    format!(
        "UPDATE ledger_totals SET balance = ledger_totals.balance + {copies} * added.balance, \
            entries = ledger_totals.entries + {copies} * added.entries \
         FROM (SELECT account, currency, CAST(SUM(amount) AS bigint) AS balance, COUNT(*) AS entries \
            FROM ledger_entries WHERE {} GROUP BY account, currency) AS added \
         WHERE ledger_totals.account = added.account AND ledger_totals.currency = added.currency \
         AND ledger_totals.slot = (SELECT MIN(slot) FROM ledger_totals AS one \
            WHERE one.account = ledger_totals.account AND one.currency = ledger_totals.currency)",
        originals.contain("payment_id")
    )
}

#[cfg(test)]
mod tests {
    use shared::db::{Db, DbConfig, Migrations, query};

    use super::*;

    /// 2026-11-30T04:00:00Z.
    const PLACED: u64 = 1_796_011_200_000;

    #[actix_web::test]
    async fn a_copy_is_its_original_some_hours_earlier_and_the_totals_count_it() {
        let folder = std::env::temp_dir().join(format!("bench-{}", Uuid::now_v7()));
        let url = format!("sqlite://{}/payments.db", folder.display());
        let db = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        let id = least_id(PLACED + 1);
        let at = "2026-11-30T04:00:00.000001Z";
        for sql in [
            "CREATE TABLE payments (id TEXT PRIMARY KEY, customer_id TEXT, amount INTEGER, created_at TEXT)",
            "CREATE TABLE ledger_entries (payment_id TEXT, account TEXT, amount INTEGER, currency TEXT, at TEXT)",
            "CREATE TABLE ledger_totals \
             (account TEXT, currency TEXT, slot INTEGER, balance INTEGER, entries INTEGER)",
            &format!("INSERT INTO payments VALUES ('{id}', 'ann', 5, '{at}')"),
            // Not an original: it is earlier.
            &format!("INSERT INTO payments VALUES ('{}', 'ann', 5, '{at}')", least_id(PLACED - 1)),
            &format!("INSERT INTO ledger_entries VALUES ('{id}', 'sales', -5, 'EUR', '{at}')"),
            &format!("INSERT INTO inbox VALUES ('payment-service', '{id}', '{at}')"),
            "INSERT INTO ledger_totals VALUES ('sales', 'EUR', 3, 0, 0), ('sales', 'EUR', 7, -5, 1)",
        ] {
            query(sql).execute(&db).await.unwrap();
        }
        let database = Database { name: "payments", server: Server::File(db) };
        let placed = PLACED..PLACED + 10;
        let originals = Originals { placed, product: String::new(), admin: String::new() };
        database.copy(&originals, 1..101).await.unwrap();

        let one = "SELECT customer_id || amount || created_at AS name, 0 AS n FROM payments WHERE id = ";
        let expected = least_id(PLACED + 1 - 2 * 8_192_000);
        let copies = database.pairs(&format!("{one}'{expected}'")).await.unwrap();
        assert_eq!(copies, [("ann52026-11-29T23:26:56.000001Z".to_owned(), 0)]);
        for (count, expected) in [
            ("FROM payments", 102),
            ("FROM ledger_entries", 101),
            // The service has deleted those of more than a week ago.
            ("FROM inbox", 74),
            ("FROM ledger_totals WHERE slot = 3 AND balance = -500 AND entries = 100", 1),
        ] {
            assert_eq!(
                database.number(&format!("SELECT COUNT(*) AS n {count}")).await,
                Ok(expected),
                "{count}"
            );
        }
        let Server::File(db) = database.server else { unreachable!() };
        db.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
