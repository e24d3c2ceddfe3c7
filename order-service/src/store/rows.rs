//! Rows into domain types. A row that makes no sense is an error, never a guess.

use serde::{Deserialize, Serialize};
use shared::db::{DbError, Row};
use uuid::Uuid;

use crate::checkout::{Saga, Step};
use crate::domain::{Details, Line, Money, Order, Price, Product, Quantity, Status, Stock, Terms};

/// The columns of [`order`] and [`saga`].
pub(super) const ORDER: &str = "id, customer_id, lines, total, payment_id, created_at, traceparent, \
    status, reason, version, updated_at, step, attempts, deadline, wake_at, last_error";

/// The columns of [`product`].
pub(super) const PRODUCT: &str = "id, sku, name, description, price, version, created_at, updated_at";

/// A line in the JSON of the column `lines`; the price is in cents.
#[derive(Serialize, Deserialize)]
struct LineRow {
    product_id: Uuid,
    sku: String,
    name: String,
    quantity: Quantity,
    unit_price: i64,
}

/// The column `lines`.
pub(super) fn lines(lines: &[Line]) -> serde_json::Value {
    serde_json::json!(lines.iter().map(LineRow::from).collect::<Vec<_>>())
}

pub(super) fn order(row: &Row) -> Result<Order, DbError> {
    let lines: Vec<LineRow> =
        serde_json::from_value(row.get("lines")?).map_err(|error| senseless("lines", error))?;
    let lines = lines.into_iter().map(Line::try_from).collect::<Result<_, _>>()?;
    let terms = Terms {
        id: row.get("id")?,
        customer_id: row.get("customer_id")?,
        lines,
        total: Money::cents(row.get("total")?).map_err(|error| senseless("total", error))?,
        payment_id: row.get("payment_id")?,
        created_at: row.get("created_at")?,
    };
    let status = status(&row.get::<String>("status")?, row.get("reason")?)?;
    Ok(Order::restored(terms, status, row.get("version")?, row.get("updated_at")?))
}

pub(super) fn saga(row: &Row) -> Result<Saga, DbError> {
    let step: String = row.get("step")?;
    Ok(Saga {
        step: Step::named(&step).ok_or_else(|| senseless("step", step))?,
        attempts: row.get("attempts")?,
        deadline: row.get("deadline")?,
        wake_at: row.get("wake_at")?,
        last_error: row.get("last_error")?,
    })
}

pub(super) fn status(name: &str, reason: Option<String>) -> Result<Status, DbError> {
    Status::named(name, reason.as_deref()).ok_or_else(|| senseless("status", format!("{name} {reason:?}")))
}

pub(super) fn product(row: &Row) -> Result<Product, DbError> {
    let text = |column: &str| row.get::<String>(column);
    let price: i64 = row.get("price")?;
    Ok(Product {
        id: row.get("id")?,
        sku: text("sku")?.try_into().map_err(|error| senseless("sku", error))?,
        details: Details {
            name: text("name")?.try_into().map_err(|error| senseless("name", error))?,
            description: text("description")?.try_into().map_err(|error| senseless("description", error))?,
            price: Price::try_from(price).map_err(|error| senseless("price", error))?,
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

impl From<&Line> for LineRow {
    fn from(line: &Line) -> Self {
        let Line { product_id, sku, name, quantity, unit_price } = line.clone();
        Self { product_id, sku, name, quantity, unit_price: unit_price.amount() }
    }
}

impl TryFrom<LineRow> for Line {
    type Error = DbError;

    fn try_from(row: LineRow) -> Result<Self, DbError> {
        let LineRow { product_id, sku, name, quantity, unit_price } = row;
        let unit_price = Money::cents(unit_price).map_err(|error| senseless("lines", error))?;
        Ok(Self { product_id, sku, name, quantity, unit_price })
    }
}

fn senseless(column: &str, why: impl std::fmt::Display) -> DbError {
    DbError::Refused(sqlx::Error::ColumnDecode { index: column.to_owned(), source: why.to_string().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_with_its_price_in_cents() {
        let line = Line {
            product_id: Uuid::now_v7(),
            sku: "TEA".to_owned(),
            name: "Tea".to_owned(),
            quantity: 2.try_into().unwrap(),
            unit_price: Money::cents(350).unwrap(),
        };
        let json = lines(std::slice::from_ref(&line));
        assert_eq!(json[0]["unit_price"], 350);
        let read: Vec<LineRow> = serde_json::from_value(json).unwrap();
        assert_eq!(Line::try_from(read.into_iter().next().unwrap()).unwrap(), line);
    }
}
