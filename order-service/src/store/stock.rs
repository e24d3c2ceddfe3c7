//! Moves of stock between columns, and adjustments.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use shared::db::{DbError, DeferredWrite, Tx, padded, placeholders, query};
use uuid::Uuid;

use super::{Store, rows};
use crate::domain::{Delta, Line, MAX_ON_HAND, Stock};
use crate::error::Error;

/// A column of the table `stock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StockColumn {
    OnHand,
    Reserved,
    Sold,
}

/// A change of stock by an admin.
#[derive(Debug, Clone)]
pub struct Adjustment {
    pub product_id: Uuid,
    pub delta: Delta,
    pub reason: String,
    pub admin_id: Uuid,
}

impl StockColumn {
    fn as_str(self) -> &'static str {
        match self {
            Self::OnHand => "on_hand",
            Self::Reserved => "reserved",
            Self::Sold => "sold",
        }
    }
}

/// Moves the quantities of all `lines` from `OnHand` to `Reserved`, immediately and with one statement.
///
/// # Errors
/// [`Error::OutOfStock`] with the index in `lines` of each line for whose product there is too little on hand.
pub(super) async fn reserve(tx: &mut Tx, lines: &[&Line]) -> Result<(), Error> {
    let mut quantities = BTreeMap::<Uuid, i64>::new();
    for line in lines {
        *quantities.entry(line.product_id).or_default() += line.quantity.get();
    }
    if quantities.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = quantities.keys().copied().collect();
    if ids.len() > 1 && tx.locks_rows() {
        // In the order of the ids, so that two orders of the same products do not deadlock.
        let lock =
            query("SELECT 1 AS one FROM stock WHERE product_id = ANY($1) ORDER BY product_id FOR UPDATE");
        lock.bind(ids).fetch_all(&mut *tx).await?;
    }
    let quantities: Vec<_> = quantities.into_iter().collect();
    let rows = padded(&quantities);
    let update = query(format!(
        "WITH wanted (product_id, quantity) AS (VALUES {}) \
         UPDATE stock SET on_hand = on_hand - quantity, reserved = reserved + quantity \
         FROM wanted WHERE stock.product_id = wanted.product_id AND on_hand >= quantity \
         RETURNING stock.product_id",
        placeholders(1, 2, rows.len())
    ));
    let update = rows.into_iter().fold(update, |update, (id, quantity)| update.bind(*id).bind(*quantity));
    let mut reserved = BTreeSet::new();
    for row in update.fetch_all(tx).await? {
        reserved.insert(row.get::<Uuid>("product_id")?);
    }
    let missing = (0..).zip(lines).filter(|(_, line)| !reserved.contains(&line.product_id));
    let missing: Vec<_> = missing.map(|(index, _)| index).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::OutOfStock(missing)) }
}

/// Moves the quantities of `lines` between two columns at the end of the transaction. The order already holds them.
pub(super) fn move_at_end(tx: &mut Tx, lines: &[Line], from: StockColumn, to: StockColumn) {
    let moves = tx.deferred::<Moves>();
    for line in lines {
        *moves.0.entry(Move { product_id: line.product_id, from, to }).or_default() += line.quantity.get();
    }
}

/// A move of a quantity from one column of a product to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    product_id: Uuid,
    from: StockColumn,
    to: StockColumn,
}

/// The quantities of a transaction's moves, in the order of the products' ids.
#[derive(Debug, Default)]
struct Moves(BTreeMap<Move, i64>);

impl Move {
    /// Returns whether `from` had enough.
    async fn write(self, tx: &mut Tx, quantity: i64) -> Result<bool, DbError> {
        let (from, to) = (self.from.as_str(), self.to.as_str());
        let moved = query(format!(
            "UPDATE stock SET {from} = {from} - $2, {to} = {to} + $2 WHERE product_id = $1 AND {from} >= $2"
        ));
        Ok(moved.bind(self.product_id).bind(quantity).execute(tx).await? == 1)
    }
}

#[async_trait(?Send)]
impl DeferredWrite for Moves {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let Self(moves) = *self;
        for (change, quantity) in moves {
            if !change.write(&mut *tx, quantity).await? {
                // Impossible: these columns contain what the orders hold.
                let why = format!("the stock of an order is missing: {change:?} of {quantity}");
                return Err(DbError::Contradiction(why));
            }
        }
        Ok(())
    }
}

impl Store {
    /// Returns the quantity on hand after the adjustment.
    pub async fn adjust_stock(&self, tx: &mut Tx, adjustment: &Adjustment) -> Result<i64, Error> {
        let Adjustment { product_id, delta, reason, admin_id } = adjustment;
        let adjusted = query(
            "UPDATE stock SET on_hand = on_hand + $2, adjusted = adjusted + $2 \
             WHERE product_id = $1 AND on_hand + $2 BETWEEN 0 AND $3 RETURNING on_hand",
        )
        .bind(*product_id)
        .bind(delta.get())
        .bind(MAX_ON_HAND)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = adjusted else {
            let product = query("SELECT 1 AS one FROM products WHERE id = $1").bind(*product_id);
            return Err(match product.fetch_optional(&mut *tx).await? {
                Some(_) if delta.get() > 0 => Error::TooMuchOnHand,
                Some(_) => Error::NotOnHand,
                None => Error::NotFound,
            });
        };
        query(
            "INSERT INTO stock_adjustments (id, product_id, delta, reason, admin_id, at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(Uuid::now_v7())
        .bind(*product_id)
        .bind(delta.get())
        .bind(reason.as_str())
        .bind(*admin_id)
        .bind(tx.now())
        .execute(&mut *tx)
        .await?;
        Ok(row.get("on_hand")?)
    }

    pub async fn stock(&self) -> Result<Vec<Stock>, DbError> {
        let rows = query(
            "SELECT product_id, on_hand, reserved, sold, initial, adjusted FROM stock ORDER BY product_id",
        );
        rows.fetch_all(&self.db).await?.iter().map(rows::stock).collect()
    }
}
