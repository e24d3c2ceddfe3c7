//! The `payments` table.

use std::collections::BTreeSet;

use shared::db::{Conn, Db, DbError, Query, Row, Tx, padded, placeholders, query};
use shared::request::Paging;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Filter;
use crate::domain::{Currency, Intent, Money, MoneyError, Payment, PaymentRecord, State, Status};

const COLUMNS: &str = "id, order_id, customer_id, amount, currency, refunded, refund_pending, refund_all, \
    token, status, intent, decline_code, intended_at, attempts, stuck, traceparent, version, created_at, \
    updated_at";

pub(super) enum Inserted {
    New,
    Exists,
}

pub(super) enum Updated {
    Written,
    /// The row has another version.
    Stale,
}

/// A payment to be updated, with the columns that are not part of it.
#[derive(Debug)]
pub(super) struct ChangedPayment {
    pub(super) latest: Payment,
    pub(super) stored_version: i64,
    pub(super) due: Option<OffsetDateTime>,
    pub(super) traceparent: Option<String>,
}

pub(super) async fn insert(
    tx: &mut Tx,
    payment: &Payment,
    due: Option<OffsetDateTime>,
    traceparent: Option<&str>,
) -> Result<Inserted, DbError> {
    let insert = query(
        "INSERT INTO payments (refunded, refund_pending, refund_all, token, status, intent, decline_code, \
            intended_at, attempts, stuck, version, updated_at, due_at, traceparent, \
            id, order_id, customer_id, amount, currency, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) \
         ON CONFLICT (id) DO NOTHING",
    );
    let inserted = bind_changing(insert, payment, due)
        .bind(traceparent)
        .bind(payment.id)
        .bind(payment.order_id)
        .bind(payment.customer_id)
        .bind(payment.amount.amount())
        .bind(payment.amount.currency().as_str())
        .bind(payment.created_at)
        .execute(tx)
        .await?;
    Ok(if inserted == 1 { Inserted::New } else { Inserted::Exists })
}

/// Writes the columns that may change, if the row still has the version `from`.
pub(super) async fn update(
    tx: &mut Tx,
    from: i64,
    payment: &Payment,
    due: Option<OffsetDateTime>,
    traceparent: Option<&str>,
) -> Result<Updated, DbError> {
    let update = query(
        "UPDATE payments SET refunded = $1, refund_pending = $2, refund_all = $3, token = $4, status = $5, \
            intent = $6, decline_code = $7, intended_at = $8, attempts = $9, stuck = $10, version = $11, \
            updated_at = $12, due_at = $13, traceparent = COALESCE($14, traceparent) \
         WHERE id = $15 AND version = $16",
    );
    let updated =
        bind_changing(update, payment, due).bind(traceparent).bind(payment.id).bind(from).execute(tx).await?;
    Ok(if updated == 1 { Updated::Written } else { Updated::Stale })
}

/// Writes the columns that may change of several payments, if their rows still have the stored versions. Returns the number
/// of updated rows.
pub(super) async fn update_all(tx: &mut Tx, changed: &[ChangedPayment]) -> Result<u64, DbError> {
    if changed.is_empty() {
        return Ok(0);
    }
    let rows = padded(changed);
    let update = query(format!(
        "WITH new (refunded, refund_pending, refund_all, token, status, intent, decline_code, intended_at, attempts, \
            stuck, version, updated_at, due_at, traceparent, id, stored_version) AS (VALUES {}) \
         UPDATE payments SET refunded = new.refunded, refund_pending = new.refund_pending, \
            refund_all = new.refund_all, token = new.token, status = new.status, intent = new.intent, \
            decline_code = new.decline_code, intended_at = new.intended_at, attempts = new.attempts, \
            stuck = new.stuck, version = new.version, updated_at = new.updated_at, due_at = new.due_at, \
            traceparent = COALESCE(new.traceparent, payments.traceparent) \
         FROM new WHERE payments.id = new.id AND payments.version = new.stored_version",
        placeholders(1, 16, rows.len())
    ));
    let update = rows.into_iter().fold(
        update,
        |update, ChangedPayment { latest, stored_version, due, traceparent }| {
            let update = bind_changing(update, latest, *due).bind(traceparent.as_deref());
            update.bind(latest.id).bind(*stored_version)
        },
    );
    update.execute(tx).await
}

fn bind_changing(query: Query, payment: &Payment, due: Option<OffsetDateTime>) -> Query {
    query
        .bind(payment.refunded.amount())
        .bind(payment.refund_pending.amount())
        .bind(payment.refund_all)
        .bind(payment.token.as_deref())
        .bind(payment.state.status.as_str())
        .bind(payment.state.intent.map(Intent::as_str))
        .bind(payment.decline_code.as_deref())
        .bind(payment.intended_at)
        .bind(payment.attempts)
        .bind(payment.stuck)
        .bind(payment.version)
        .bind(payment.updated_at)
        .bind(due)
}

/// The row is locked until the end of `tx`.
pub(super) async fn lock(tx: &mut Tx, id: Uuid) -> Result<Option<Payment>, DbError> {
    let select = query(format!("SELECT {COLUMNS} FROM payments WHERE id = $1 FOR UPDATE")).bind(id);
    select.fetch_optional(tx).await?.as_ref().map(payment).transpose()
}

/// The rows are locked until the end of `tx`, in the order of the orders' ids.
pub(super) async fn lock_all(tx: &mut Tx, ids: Vec<Uuid>) -> Result<Vec<Payment>, DbError> {
    let select =
        query(format!("SELECT {COLUMNS} FROM payments WHERE id = ANY($1) ORDER BY order_id FOR UPDATE"));
    select.bind(ids).fetch_all(tx).await?.iter().map(payment).collect()
}

pub(super) async fn by_id<'c>(conn: impl Into<Conn<'c>>, id: Uuid) -> Result<Option<Payment>, DbError> {
    let select = query(format!("SELECT {COLUMNS} FROM payments WHERE id = $1")).bind(id);
    select.fetch_optional(conn).await?.as_ref().map(payment).transpose()
}

/// A page, newest first, and one row more.
pub(super) async fn list(db: &Db, filter: Filter, paging: &Paging) -> Result<Vec<Payment>, DbError> {
    // With both filters, COALESCE prevents the use of the index on the customer. The index on the order is better,
    // because an order has few payments.
    let customer =
        if filter.order_id.is_some() { "COALESCE(customer_id, customer_id) =" } else { "customer_id =" };
    let wanted = [(customer, filter.customer_id), ("order_id =", filter.order_id), ("id <", paging.cursor)];
    let wanted: Vec<_> = wanted.into_iter().filter_map(|(column, id)| Some((column, id?))).collect();
    let conditions: Vec<_> =
        wanted.iter().enumerate().map(|(index, (column, _))| format!("{column} ${}", index + 1)).collect();
    let conditions = if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
    let limit = wanted.len() + 1;
    let sql = format!("SELECT {COLUMNS} FROM payments WHERE {conditions} ORDER BY id DESC LIMIT ${limit}");
    let select = wanted.into_iter().fold(query(sql), |query, (_, id)| query.bind(id));
    select.bind(paging.fetch()).fetch_all(db).await?.iter().map(payment).collect()
}

pub(super) async fn page_after(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<Payment>, DbError> {
    let select = query(format!("SELECT {COLUMNS} FROM payments WHERE id > $1 ORDER BY id LIMIT $2"));
    let rows = select.bind(after.unwrap_or(Uuid::nil())).bind(limit).fetch_all(db).await?;
    rows.iter().map(payment).collect()
}

pub(super) async fn by_ids(db: &Db, ids: &BTreeSet<Uuid>) -> Result<Vec<Payment>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let select = query(format!("SELECT {COLUMNS} FROM payments WHERE id = ANY($1)"));
    let ids: Vec<_> = ids.iter().copied().collect();
    select.bind(ids).fetch_all(db).await?.iter().map(payment).collect()
}

/// Leases payments that are due, the longest waiting first, with the trace of each.
pub(super) async fn claim(
    tx: &mut Tx,
    leased_until: OffsetDateTime,
    limit: i64,
) -> Result<Vec<(Payment, Option<String>)>, DbError> {
    let claim = query(format!(
        "UPDATE payments SET due_at = $1, version = version + 1 WHERE id IN ( \
            SELECT id FROM payments WHERE due_at <= $2 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED) \
         RETURNING {COLUMNS}"
    ));
    let rows = claim.bind(leased_until).bind(tx.now()).bind(limit).fetch_all(tx).await?;
    // An unreadable row, perhaps written by a newer version, must not block the others.
    let read = rows.iter().map(|row| Ok((payment(row)?, row.get("traceparent")?)));
    let logged = |error: &DbError| log::error!(error:%; "a due payment cannot be read");
    Ok(read.filter_map(|read| read.inspect_err(logged).ok()).collect())
}

fn payment(row: &Row) -> Result<Payment, DbError> {
    let currency = Currency::try_from(row.get::<String>("currency")?).map_err(unreadable)?;
    let money = |column| money(row.get(column)?, currency);
    let status: String = row.get("status")?;
    let intent: Option<String> = row.get("intent")?;
    let intent = intent.map(|name| Intent::named(&name).ok_or_else(|| unknown(&name))).transpose()?;
    Ok(Payment::from_record(PaymentRecord {
        id: row.get("id")?,
        order_id: row.get("order_id")?,
        customer_id: row.get("customer_id")?,
        amount: money("amount")?,
        refunded: money("refunded")?,
        refund_pending: money("refund_pending")?,
        refund_all: row.get("refund_all")?,
        token: row.get("token")?,
        state: State { status: Status::named(&status).ok_or_else(|| unknown(&status))?, intent },
        decline_code: row.get("decline_code")?,
        intended_at: row.get("intended_at")?,
        attempts: row.get("attempts")?,
        stuck: row.get("stuck")?,
        version: row.get("version")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    }))
}

pub(super) fn money(amount: i64, currency: Currency) -> Result<Money, DbError> {
    Money::new(amount, currency).map_err(unreadable)
}

fn unreadable(error: MoneyError) -> DbError {
    sqlx::Error::Decode(Box::new(error)).into()
}

/// A status or intent of a newer version of the service.
pub(super) fn unknown(name: &str) -> DbError {
    sqlx::Error::Decode(format!("{name:?} is not known here").into()).into()
}
