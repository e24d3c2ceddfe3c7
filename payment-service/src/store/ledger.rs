//! The ledger: immutable entries, and a running total for each account.

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::db::{Db, DbError, DeferredWrite, Row, Tx, placeholders, query};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Account, Currency, Transfer};

/// Rows over which the total of an account is spread, so that writers do not queue for one row.
const SLOTS: u128 = 16;

/// The changes of totals in one transaction. Their order is that in which every transaction locks the rows.
#[derive(Default)]
struct Totals {
    /// All transfers of a transaction use the same slot, and so change the same rows.
    slot: i64,
    changes: BTreeMap<(Account, Currency), Change>,
}

#[derive(Default)]
struct Change {
    balance: i64,
    entries: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub balances: Vec<Balance>,
    /// The number of entries.
    pub entries: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    pub account: String,
    pub currency: String,
    /// Debits less credits.
    pub balance: i64,
}

/// Writes both entries of `transfer`, and adds them to the totals, at the end of `tx`.
pub(super) fn defer(tx: &mut Tx, payment_id: Uuid, transfer: &Transfer, at: OffsetDateTime) {
    tx.deferred::<NewTransfers>().0.push((payment_id, *transfer, at));
    let currency = transfer.amount.currency();
    let totals = tx.deferred::<Totals>();
    totals.slot = (payment_id.as_u128() % SLOTS) as i64;
    for (account, amount) in transfer.entries() {
        let change = totals.changes.entry((account, currency)).or_default();
        change.balance += amount;
        change.entries += 1;
    }
}

/// The transfers of one transaction: payment, transfer, time.
#[derive(Default)]
struct NewTransfers(Vec<(Uuid, Transfer, OffsetDateTime)>);

#[async_trait(?Send)]
impl DeferredWrite for NewTransfers {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let insert = query(format!(
            "INSERT INTO ledger_entries (payment_id, cause, account, amount, currency, at) VALUES {}",
            placeholders(1, 6, 2 * self.0.len())
        ));
        let insert = self.0.iter().fold(insert, |insert, (payment_id, transfer, at)| {
            transfer.entries().into_iter().fold(insert, |insert, (account, amount)| {
                let insert = insert.bind(*payment_id).bind(transfer.cause.to_string()).bind(account.as_str());
                insert.bind(amount).bind(transfer.amount.currency().as_str()).bind(*at)
            })
        });
        insert.execute(tx).await.map(drop)
    }

    fn locks_contended_rows(&self) -> bool {
        false
    }
}

#[async_trait(?Send)]
impl DeferredWrite for Totals {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let Self { slot, changes } = *self;
        // The rows are locked in the order in which they are listed.
        let add = query(format!(
            "INSERT INTO ledger_totals (account, currency, slot, balance, entries) VALUES {} \
             ON CONFLICT (account, currency, slot) DO UPDATE SET \
                balance = ledger_totals.balance + excluded.balance, \
                entries = ledger_totals.entries + excluded.entries",
            placeholders(1, 5, changes.len())
        ));
        let add = changes.into_iter().fold(add, |add, ((account, currency), change)| {
            let add = add.bind(account.as_str()).bind(currency.as_str()).bind(slot);
            add.bind(change.balance).bind(change.entries)
        });
        add.execute(tx).await.map(drop)
    }
}

/// One side of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What moved the money; equal for both entries of a transfer.
    pub cause: String,
    pub account: String,
    /// Debits are positive, credits negative.
    pub amount: i64,
    pub currency: String,
    pub at: OffsetDateTime,
}

/// The entries of one payment, oldest first.
pub(super) async fn entries(db: &Db, payment_id: Uuid) -> Result<Vec<Entry>, DbError> {
    let rows = query(
        "SELECT cause, account, amount, currency, at FROM ledger_entries WHERE payment_id = $1 \
         ORDER BY at, cause, account",
    )
    .bind(payment_id)
    .fetch_all(db)
    .await?;
    let entry = |row: &Row| {
        Ok(Entry {
            cause: row.get("cause")?,
            account: row.get("account")?,
            amount: row.get("amount")?,
            currency: row.get("currency")?,
            at: row.get("at")?,
        })
    };
    rows.iter().map(entry).collect()
}

pub(super) async fn read(db: &Db) -> Result<Ledger, DbError> {
    let totals = query(
        "SELECT account, currency, CAST(SUM(balance) AS BIGINT) AS balance, \
            CAST(SUM(entries) AS BIGINT) AS entries \
         FROM ledger_totals GROUP BY account, currency ORDER BY account, currency",
    );
    let mut ledger = Ledger { balances: Vec::new(), entries: 0 };
    for row in totals.fetch_all(db).await? {
        ledger.entries += row.get::<i64>("entries")?;
        ledger.balances.push(Balance {
            account: row.get("account")?,
            currency: row.get("currency")?,
            balance: row.get("balance")?,
        });
    }
    Ok(ledger)
}

impl Ledger {
    /// The sum of all balances: anything but 0 is a bookkeeping error.
    pub fn sum(&self) -> i64 {
        self.balances.iter().map(|balance| balance.balance).sum()
    }
}
