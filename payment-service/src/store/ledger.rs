//! The ledger: immutable entries, and a running total for each account.

use shared::db::{Db, DbError, Tx, query};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::Transfer;

/// Rows over which the total of an account is spread, so that writers do not queue for one row.
const SLOTS: u128 = 16;

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

/// Writes both entries of `transfer` and adds them to the totals.
pub(super) async fn write(
    tx: &mut Tx,
    payment_id: Uuid,
    transfer: &Transfer,
    at: OffsetDateTime,
) -> Result<(), DbError> {
    let currency = transfer.amount.currency();
    let [(first, first_amount), (second, second_amount)] = transfer.entries();
    query(
        "INSERT INTO ledger_entries (payment_id, cause, account, amount, currency, at) \
         VALUES ($1, $2, $3, $4, $5, $6), ($1, $2, $7, $8, $5, $6)",
    )
    .bind(payment_id)
    .bind(transfer.cause.to_string())
    .bind(first.as_str())
    .bind(first_amount)
    .bind(currency.as_str())
    .bind(at)
    .bind(second.as_str())
    .bind(second_amount)
    .execute(&mut *tx)
    .await?;
    // Every writer locks the accounts in the same order, so that none deadlock.
    query(
        "INSERT INTO ledger_totals (account, currency, slot, balance, entries) \
         VALUES ($1, $2, $3, $4, 1), ($5, $2, $3, $6, 1) \
         ON CONFLICT (account, currency, slot) DO UPDATE \
         SET balance = ledger_totals.balance + excluded.balance, entries = ledger_totals.entries + 1",
    )
    .bind(first.as_str())
    .bind(currency.as_str())
    .bind((payment_id.as_u128() % SLOTS) as i64)
    .bind(first_amount)
    .bind(second.as_str())
    .bind(second_amount)
    .execute(tx)
    .await?;
    Ok(())
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
