//! The `differences` table: where the card network contradicts our books.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use shared::db::{Db, DbError, DeferredWrite, Row, Tx, query};
use time::OffsetDateTime;
use uuid::Uuid;

use super::rows::unknown;
use crate::domain::{Amount, AmountKind, Difference};

/// A difference that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDifference {
    /// The key of the authorization at the card network.
    pub key: String,
    /// `None` if it is not in our books.
    pub payment_id: Option<Uuid>,
    pub difference: Difference,
    pub found_at: OffsetDateTime,
    /// When both agreed again.
    pub resolved_at: Option<OffsetDateTime>,
}

/// A place in the list of differences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub key: String,
    pub figure: AmountKind,
}

/// The differences that a transaction has found. Their order is that in which every transaction locks the rows.
#[derive(Default)]
struct Found(BTreeMap<(String, AmountKind), (Option<Uuid>, Difference)>);

/// Writes a difference at the end of `tx`, or updates the figures of a known one.
pub(super) fn defer(tx: &mut Tx, key: &str, payment_id: Option<Uuid>, difference: &Difference) {
    let found = (payment_id, difference.clone());
    tx.deferred::<Found>().0.insert((key.to_owned(), difference.figure), found);
}

#[async_trait(?Send)]
impl DeferredWrite for Found {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let Self(found) = *self;
        for ((key, _), (payment_id, difference)) in &found {
            write(tx, key, *payment_id, difference).await?;
        }
        Ok(())
    }
}

async fn write(
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
pub(super) async fn resolve(tx: &mut Tx, key: &str, figure: AmountKind) -> Result<(), DbError> {
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
pub(super) async fn open(db: &Db) -> Result<BTreeSet<(String, AmountKind)>, DbError> {
    let rows = query("SELECT key, figure FROM differences WHERE resolved_at IS NULL").fetch_all(db).await?;
    rows.iter().map(|row| Ok((row.get("key")?, figure(row)?))).collect()
}

/// Lists at most `limit` of the open or the resolved differences after the position `after`, by key and figure from the
/// end. Keys of payments sort by time, so the newest come first.
pub(super) async fn list(
    db: &Db,
    is_open: bool,
    after: Option<&Position>,
    limit: i64,
) -> Result<Vec<FoundDifference>, DbError> {
    let which = if is_open { "resolved_at IS NULL" } else { "resolved_at IS NOT NULL" };
    let older = if after.is_some() { "AND (key, figure) < ($2, $3)" } else { "" };
    let rows = query(format!(
        "SELECT key, figure, payment_id, ours, our_currency, theirs, their_currency, found_at, resolved_at \
         FROM differences WHERE {which} {older} ORDER BY key DESC, figure DESC LIMIT $1"
    ));
    let rows = rows.bind(limit);
    let rows = match after {
        Some(Position { key, figure }) => rows.bind(key.as_str()).bind(figure.as_str()),
        None => rows,
    };
    rows.fetch_all(db).await?.iter().map(found).collect()
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

fn figure(row: &Row) -> Result<AmountKind, DbError> {
    let name: String = row.get("figure")?;
    AmountKind::named(&name).ok_or_else(|| unknown(&name))
}
