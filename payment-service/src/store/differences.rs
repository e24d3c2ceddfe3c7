//! The `differences` table: where the card network contradicts our books.

use std::collections::BTreeSet;

use shared::db::{Db, DbError, Row, Tx, query};
use time::OffsetDateTime;
use uuid::Uuid;

use super::rows::unknown;
use crate::domain::{Amount, Difference, Figure};

/// A difference that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDifference {
    /// Of the authorization at the card network.
    pub key: String,
    /// `None` if it is not in our books.
    pub payment_id: Option<Uuid>,
    pub difference: Difference,
    pub found_at: OffsetDateTime,
    /// When both agreed again.
    pub resolved_at: Option<OffsetDateTime>,
}

/// Writes a difference, or updates the figures of a known one.
pub(super) async fn write(
    tx: &mut Tx,
    key: &str,
    payment_id: Option<Uuid>,
    difference: &Difference,
) -> Result<(), DbError> {
    let Difference { figure, ours, theirs } = difference;
    log::error!(
        key, figure = figure.as_str(), ours = ours.amount, theirs = theirs.amount;
        "the card network contradicts our books"
    );
    query(
        "INSERT INTO differences \
            (key, figure, payment_id, ours, our_currency, theirs, their_currency, found_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (key, figure) DO UPDATE \
         SET payment_id = excluded.payment_id, ours = excluded.ours, our_currency = excluded.our_currency, \
             theirs = excluded.theirs, their_currency = excluded.their_currency, resolved_at = NULL",
    )
    .bind(key)
    .bind(figure.as_str())
    .bind(payment_id)
    .bind(ours.amount)
    .bind(ours.currency.as_str())
    .bind(theirs.amount)
    .bind(theirs.currency.as_str())
    .bind(tx.now())
    .execute(tx)
    .await?;
    Ok(())
}

/// Marks a difference that is gone.
pub(super) async fn resolve(tx: &mut Tx, key: &str, figure: Figure) -> Result<(), DbError> {
    log::info!(key, figure = figure.as_str(); "the card network agrees with our books again");
    query("UPDATE differences SET resolved_at = $3 WHERE key = $1 AND figure = $2 AND resolved_at IS NULL")
        .bind(key)
        .bind(figure.as_str())
        .bind(tx.now())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn count_open(db: &Db) -> Result<i64, DbError> {
    let count = query("SELECT COUNT(*) AS open FROM differences WHERE resolved_at IS NULL");
    count.fetch_one(db).await?.get("open")
}

/// Key and figure of the open ones.
pub(super) async fn open(db: &Db) -> Result<BTreeSet<(String, Figure)>, DbError> {
    let rows = query("SELECT key, figure FROM differences WHERE resolved_at IS NULL").fetch_all(db).await?;
    rows.iter().map(|row| Ok((row.get("key")?, figure(row)?))).collect()
}

pub(super) async fn list(db: &Db, is_open: bool, limit: i64) -> Result<Vec<FoundDifference>, DbError> {
    let which = match is_open {
        true => "resolved_at IS NULL ORDER BY found_at DESC",
        false => "resolved_at IS NOT NULL ORDER BY resolved_at DESC",
    };
    let rows = query(format!(
        "SELECT key, figure, payment_id, ours, our_currency, theirs, their_currency, found_at, resolved_at \
         FROM differences WHERE {which} LIMIT $1"
    ));
    rows.bind(limit).fetch_all(db).await?.iter().map(found).collect()
}

fn found(row: &Row) -> Result<FoundDifference, DbError> {
    let amount = |amount, currency| {
        Ok::<_, DbError>(Amount { amount: row.get(amount)?, currency: row.get(currency)? })
    };
    let (ours, theirs) = (amount("ours", "our_currency")?, amount("theirs", "their_currency")?);
    Ok(FoundDifference {
        key: row.get("key")?,
        payment_id: row.get("payment_id")?,
        difference: Difference { figure: figure(row)?, ours, theirs },
        found_at: row.get("found_at")?,
        resolved_at: row.get("resolved_at")?,
    })
}

fn figure(row: &Row) -> Result<Figure, DbError> {
    let name: String = row.get("figure")?;
    Figure::named(&name).ok_or_else(|| unknown(&name))
}
