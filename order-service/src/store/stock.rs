//! Moves of stock, and adjustments.

use shared::db::{DbError, Tx, now, query};
use uuid::Uuid;

use super::{Store, rows};
use crate::domain::{Delta, Line, MOST_ON_HAND, Stock};
use crate::error::Error;

/// Where goods are: a column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    OnHand,
    Reserved,
    Sold,
}

/// What an admin counted.
#[derive(Debug, Clone)]
pub struct Adjustment {
    /// Of which product.
    pub product_id: Uuid,
    /// How much came in, or went out if negative.
    pub delta: Delta,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub admin_id: Uuid,
}

/// What an adjustment led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjusted {
    /// Its id.
    pub id: Uuid,
    /// What can be ordered now.
    pub available: i64,
}

impl Place {
    fn column(self) -> &'static str {
        match self {
            Self::OnHand => "on_hand",
            Self::Reserved => "reserved",
            Self::Sold => "sold",
        }
    }
}

/// Moves the goods of all `lines`; answers the lines of which there was not enough.
///
/// Rows are locked in the order of the products' ids, so that two orders of the same products never
/// wait for each other.
pub(super) async fn shift(
    tx: &mut Tx,
    lines: &[Line],
    from: Place,
    to: Place,
) -> Result<Vec<usize>, DbError> {
    let (from, to) = (from.column(), to.column());
    let mut sorted: Vec<(usize, &Line)> = lines.iter().enumerate().collect();
    sorted.sort_by_key(|(_, line)| line.product_id);
    let mut missing = Vec::new();
    for (index, line) in sorted {
        let moved = query(format!(
            "UPDATE stock SET {from} = {from} - $2, {to} = {to} + $2 WHERE product_id = $1 AND {from} >= $2"
        ))
        .bind(line.product_id)
        .bind(line.quantity.get())
        .execute(&mut *tx)
        .await?;
        if moved == 0 {
            missing.push(index);
        }
    }
    missing.sort_unstable();
    Ok(missing)
}

impl Store {
    /// Counts goods in or out.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOnHand`] if more goes out than is on hand, or
    /// [`Error::TooMuch`] if more would be on hand than a product may have.
    pub async fn adjust_stock(&self, tx: &mut Tx, adjustment: &Adjustment) -> Result<Adjusted, Error> {
        let Adjustment { product_id, delta, reason, admin_id } = adjustment;
        let counted = query(
            "UPDATE stock SET on_hand = on_hand + $2, adjusted = adjusted + $2 \
             WHERE product_id = $1 AND on_hand + $2 BETWEEN 0 AND $3 RETURNING on_hand",
        )
        .bind(*product_id)
        .bind(delta.get())
        .bind(MOST_ON_HAND)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = counted else {
            let known = query("SELECT 1 AS one FROM products WHERE id = $1").bind(*product_id);
            let known = known.fetch_optional(&mut *tx).await?.is_some();
            return Err(match known {
                true if delta.get() > 0 => Error::TooMuch,
                true => Error::NotOnHand,
                false => Error::NotFound,
            });
        };
        let id = Uuid::now_v7();
        query(
            "INSERT INTO stock_adjustments (id, product_id, delta, reason, admin_id, at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(*product_id)
        .bind(delta.get())
        .bind(reason.as_str())
        .bind(*admin_id)
        .bind(now())
        .execute(&mut *tx)
        .await?;
        Ok(Adjusted { id, available: row.get("on_hand")? })
    }

    /// Where everything is.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn stock(&self) -> Result<Vec<Stock>, DbError> {
        let rows = query(
            "SELECT product_id, on_hand, reserved, sold, initial, adjusted FROM stock ORDER BY product_id",
        );
        rows.fetch_all(&self.db).await?.iter().map(rows::stock).collect()
    }
}
