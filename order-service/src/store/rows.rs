//! Conversions of rows to domain types. An invalid row is an error.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::db::{DbError, Query, Row};
use uuid::Uuid;

use crate::checkout::{Saga, Step};
use crate::domain::{Details, Line, Money, Order, Price, Product, Quantity, Reason, Status, Stock, Terms};

/// The columns of [`order`] and [`saga`].
pub(super) const ORDER: &str = "id, customer_id, lines, total, payment_id, created_at, traceparent, \
    status, reason, version, updated_at, step, attempts, deadline, wake_at, last_error";

/// The columns of [`product`].
pub(super) const PRODUCT: &str = "id, sku, name, description, price, version, created_at, updated_at";

/// An order whose row is locked, and its saga.
#[derive(Debug, Clone)]
pub struct LockedOrder {
    pub order: Order,
    pub(super) saga: Saga,
    pub(super) traceparent: Option<String>,
}

impl LockedOrder {
    pub(super) fn of(row: &Row) -> Result<Self, DbError> {
        Ok(Self { order: order(row)?, saga: saga(row)?, traceparent: row.get("traceparent")? })
    }
}

/// A line in the JSON of the column `lines`; the price is in cents.
#[derive(Deserialize)]
struct LineRow {
    product_id: Uuid,
    sku: String,
    name: String,
    quantity: Quantity,
    unit_price: i64,
}

pub(super) fn lines(lines: &[Line]) -> Value {
    let row = |Line { product_id, sku, name, quantity, unit_price }: &Line| {
        let (quantity, unit_price) = (quantity.get(), unit_price.amount());
        json!({ "product_id": product_id, "sku": sku, "name": name, "quantity": quantity, "unit_price": unit_price })
    };
    lines.iter().map(row).collect()
}

/// The line of a new order for the product in `row`, at its current price.
pub(super) fn new_line(row: &Row, quantity: Quantity) -> Result<Line, DbError> {
    Ok(Line {
        product_id: row.get("id")?,
        sku: row.get("sku")?,
        name: row.get("name")?,
        quantity,
        unit_price: Money::cents(row.get("price")?).map_err(|error| invalid("price", error))?,
    })
}

pub(super) fn order(row: &Row) -> Result<Order, DbError> {
    let lines: Vec<LineRow> =
        serde_json::from_value(row.get("lines")?).map_err(|error| invalid("lines", error))?;
    let lines = lines.into_iter().map(line).collect::<Result<_, _>>()?;
    let terms = Terms {
        id: row.get("id")?,
        customer_id: row.get("customer_id")?,
        lines,
        total: Money::cents(row.get("total")?).map_err(|error| invalid("total", error))?,
        payment_id: row.get("payment_id")?,
        created_at: row.get("created_at")?,
    };
    let status = status(&row.get::<String>("status")?, row.get("reason")?)?;
    Ok(Order::restored(terms, status, row.get("version")?, row.get("updated_at")?))
}

pub(super) fn saga(row: &Row) -> Result<Saga, DbError> {
    let step: String = row.get("step")?;
    Ok(Saga {
        step: Step::named(&step).ok_or_else(|| invalid("step", step))?,
        attempts: row.get("attempts")?,
        deadline: row.get("deadline")?,
        wake_at: row.get("wake_at")?,
        last_error: row.get("last_error")?,
    })
}

/// Binds the columns that change, from `status` to `last_error`, in the order of every statement that writes them.
pub(super) fn bind_state(statement: Query, order: &Order, saga: &Saga) -> Query {
    statement
        .bind(order.status().as_str())
        .bind(order.status().reason().map(Reason::as_str))
        .bind(order.version())
        .bind(order.updated_at())
        .bind(saga.step.as_str())
        .bind(saga.attempts)
        .bind(saga.deadline)
        .bind(saga.wake_at)
        .bind(saga.last_error.as_deref())
}

pub(super) fn status(name: &str, reason: Option<String>) -> Result<Status, DbError> {
    Status::named(name, reason.as_deref()).ok_or_else(|| invalid("status", format!("{name} {reason:?}")))
}

pub(super) fn product(row: &Row) -> Result<Product, DbError> {
    let text = |column: &str| row.get::<String>(column);
    let price: i64 = row.get("price")?;
    Ok(Product {
        id: row.get("id")?,
        sku: text("sku")?.try_into().map_err(|error| invalid("sku", error))?,
        details: Details {
            name: text("name")?.try_into().map_err(|error| invalid("name", error))?,
            description: text("description")?.try_into().map_err(|error| invalid("description", error))?,
            price: Price::try_from(price).map_err(|error| invalid("price", error))?,
        },
        version: row.get("version")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

pub(super) fn stock(row: &Row) -> Result<Stock, DbError> {
    Ok(Stock {
        product_id: row.get("product_id")?,
        on_hand: row.get("on_hand")?,
        reserved: row.get("reserved")?,
        sold: row.get("sold")?,
        initial: row.get("initial")?,
        adjusted: row.get("adjusted")?,
    })
}

fn line(row: LineRow) -> Result<Line, DbError> {
    let LineRow { product_id, sku, name, quantity, unit_price } = row;
    let unit_price = Money::cents(unit_price).map_err(|error| invalid("lines", error))?;
    Ok(Line { product_id, sku, name, quantity, unit_price })
}

fn invalid(column: &str, error: impl std::fmt::Display) -> DbError {
    DbError::Refused(sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.to_string().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_stored_with_its_price_in_cents() {
        let tea = Line {
            product_id: Uuid::now_v7(),
            sku: "TEA".to_owned(),
            name: "Tea".to_owned(),
            quantity: 2.try_into().unwrap(),
            unit_price: Money::cents(350).unwrap(),
        };
        let json = lines(std::slice::from_ref(&tea));
        assert_eq!(json[0]["unit_price"], 350);
        let read: Vec<LineRow> = serde_json::from_value(json).unwrap();
        assert_eq!(line(read.into_iter().next().unwrap()).unwrap(), tea);
    }
}
