//! The `refunds` table.

use shared::db::{DbError, Row, Tx, query};

use super::rows::{money, unknown};
use crate::domain::{Payment, Refund, RefundStatus};

/// Inserts a new refund, or updates the status of an old one.
pub(super) async fn write(tx: &mut Tx, refund: &Refund) -> Result<(), DbError> {
    query(
        "INSERT INTO refunds (id, payment_id, amount, reason, status, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET status = excluded.status",
    )
    .bind(refund.id)
    .bind(refund.payment_id)
    .bind(refund.amount.amount())
    .bind(refund.reason.as_str())
    .bind(refund.status.as_str())
    .bind(refund.created_at)
    .execute(tx)
    .await?;
    Ok(())
}

/// The oldest pending refund of `payment`.
pub(super) async fn next(tx: &mut Tx, payment: &Payment) -> Result<Option<Refund>, DbError> {
    let next = query(
        "SELECT id, amount, reason, status, created_at FROM refunds \
         WHERE payment_id = $1 AND status = 'pending' ORDER BY id LIMIT 1",
    );
    next.bind(payment.id).fetch_optional(tx).await?.map(|row| refund(payment, &row)).transpose()
}

fn refund(payment: &Payment, row: &Row) -> Result<Refund, DbError> {
    let status: String = row.get("status")?;
    Ok(Refund {
        id: row.get("id")?,
        payment_id: payment.id,
        amount: money(row.get("amount")?, payment.amount.currency())?,
        reason: row.get("reason")?,
        status: RefundStatus::named(&status).ok_or_else(|| unknown(&status))?,
        created_at: row.get("created_at")?,
    })
}
