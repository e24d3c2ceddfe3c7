//! Whether what the databases hold adds up, computed by the databases themselves, so that a million orders can be
//! checked. The invariants that [`crate::invariants`] checks by snapshots, except those of the clients' answers.

use super::{Database, Server};

/// A promise, and how many rows were checked and break it.
pub struct Checked {
    pub promise: &'static str,
    pub rows: i64,
    pub broken: i64,
}

/// What is promised, the table that is checked, and the rows that break it. `LINES` stands for the lines of each order,
/// which SQLite and PostgreSQL read in different ways.
type Promise = (&'static str, &'static str, &'static str);

const ORDERS: [Promise; 6] = [
    ("no checkout is running", "orders", "FROM orders WHERE step <> 'done' OR wake_at IS NOT NULL"),
    (
        "an order has an entry in its timeline for each version",
        "orders",
        "FROM orders WHERE version <> (SELECT COUNT(*) FROM order_events WHERE order_id = orders.id)",
    ),
    (
        "on hand + reserved + sold = initial + adjusted",
        "stock",
        "FROM stock WHERE on_hand + reserved + sold <> initial + adjusted OR reserved <> 0",
    ),
    (
        "goods sold match the confirmed and later orders",
        "stock",
        "FROM stock LEFT JOIN (SELECT line.value ->> 'product_id' AS product, \
            SUM(CAST(line.value ->> 'quantity' AS bigint)) AS goods FROM orders CROSS JOIN LINES \
            WHERE status IN ('confirmed', 'shipped', 'delivered') GROUP BY 1) AS paid \
         ON paid.product = CAST(stock.product_id AS text) WHERE sold <> COALESCE(goods, 0)",
    ),
    UNSENT,
    DEAD,
];

const PAYMENTS: [Promise; 7] = [
    ("every payment is settled", "payments", "FROM payments WHERE intent IS NOT NULL"),
    (
        "the ledger has what each card paid",
        "payments",
        "FROM payments WHERE CASE WHEN status IN ('captured', 'partially_refunded', 'refunded') \
            THEN amount - refunded ELSE 0 END \
         <> COALESCE((SELECT SUM(entry.amount) FROM ledger_entries AS entry \
            WHERE entry.payment_id = payments.id AND entry.account = 'card_network'), 0)",
    ),
    (
        "the ledger's entries of a payment have a sum of 0",
        "ledger_entries",
        "FROM (SELECT payment_id FROM ledger_entries GROUP BY payment_id HAVING SUM(amount) <> 0) AS unbalanced",
    ),
    (
        "the totals of the ledger match its entries",
        "ledger_totals",
        "FROM (SELECT account, currency, SUM(amount), COUNT(*) FROM ledger_entries GROUP BY account, currency \
            EXCEPT SELECT account, currency, SUM(balance), SUM(entries) FROM ledger_totals \
            GROUP BY account, currency) AS differing",
    ),
    ("no figure differs from the card network's", "payments", "FROM differences WHERE resolved_at IS NULL"),
    UNSENT,
    DEAD,
];

const NETWORK: [Promise; 2] = [
    (
        "no charge is captured twice",
        "authorizations",
        "FROM (SELECT authorization FROM movements WHERE kind = 'capture' GROUP BY authorization \
            HAVING COUNT(*) > 1) AS twice",
    ),
    (
        "no card pays more than was authorized",
        "authorizations",
        "FROM authorizations WHERE amount < COALESCE((SELECT SUM(movements.amount) FROM movements \
            WHERE authorization = authorizations.key AND kind = 'capture'), 0)",
    ),
];

const UNSENT: Promise = ("the outbox is empty", "outbox", "FROM outbox WHERE sent_at IS NULL");
const DEAD: Promise = ("no message is a dead letter", "outbox", "FROM dead_letters");

/// Orders, payments or charges with money, and the money in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paid {
    pub count: i64,
    pub amount: i64,
}

impl Database {
    /// Checks everything that one database alone can tell.
    pub async fn check(&self) -> Result<Vec<Checked>, String> {
        let promises = match self.name {
            "orders" => &ORDERS[..],
            "payments" => &PAYMENTS[..],
            _ => &NETWORK[..],
        };
        let lines = match self.server {
            Server::File(_) => "json_each(orders.lines) AS line",
            Server::Container(_) => "jsonb_array_elements(orders.lines) AS line (value)",
        };
        let mut checked = Vec::new();
        for (promise, table, breaking) in promises {
            let rows = self.number(&format!("SELECT COUNT(*) AS n FROM {table}")).await?;
            let breaking = breaking.replace("LINES", lines);
            let broken = self.number(&format!("SELECT COUNT(*) AS n {breaking}")).await?;
            checked.push(Checked { promise, rows, broken });
        }
        Ok(checked)
    }

    /// The orders, payments or charges that are paid and not undone. The three databases must agree.
    pub async fn paid(&self) -> Result<Paid, String> {
        let (amount, paid) = match self.name {
            "orders" => ("total", "orders WHERE status IN ('confirmed', 'shipped', 'delivered')"),
            "payments" => ("amount", "payments WHERE status = 'captured'"),
            _ => ("amount", "movements WHERE kind = 'capture'"),
        };
        Ok(Paid {
            count: self.number(&format!("SELECT COUNT(*) AS n FROM {paid}")).await?,
            amount: self
                .number(&format!("SELECT CAST(COALESCE(SUM({amount}), 0) AS bigint) AS n FROM {paid}"))
                .await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use shared::db::{Db, DbConfig, Migrations, query};
    use uuid::Uuid;

    use super::*;

    #[actix_web::test]
    async fn a_charge_that_is_captured_twice_breaks_the_promises_of_the_card_network() {
        let folder = std::env::temp_dir().join(format!("bench-{}", Uuid::now_v7()));
        let url = format!("sqlite://{}/card-network.db", folder.display());
        let db = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
        for sql in [
            "CREATE TABLE authorizations (key TEXT, amount INTEGER)",
            "CREATE TABLE movements (authorization TEXT, kind TEXT, amount INTEGER)",
            "INSERT INTO authorizations VALUES ('a', 5), ('b', 5)",
            "INSERT INTO movements VALUES ('a', 'capture', 5), ('b', 'capture', 5)",
        ] {
            query(sql).execute(&db).await.unwrap();
        }
        let database = Database { name: "card-network", server: Server::File(db.clone()) };
        let broken = async || {
            let checked = database.check().await.unwrap();
            checked.iter().map(|one| (one.rows, one.broken)).collect::<Vec<_>>()
        };
        assert_eq!(broken().await, [(2, 0), (2, 0)]);
        assert_eq!(database.paid().await.unwrap(), Paid { count: 2, amount: 10 });
        query("INSERT INTO movements VALUES ('a', 'capture', 5)").execute(&db).await.unwrap();
        assert_eq!(broken().await, [(2, 1), (2, 1)]);
        db.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
