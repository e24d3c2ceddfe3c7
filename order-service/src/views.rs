//! JSON representations of resources.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::checkout::Saga;
use crate::domain::{Line, Money, Order, Reason, Stock, money::CURRENCY};
use crate::store::{Listed, SagaRow, TimelineEntry};

/// An amount of money.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Money)]
pub struct MoneyView {
    /// In minor units: cents.
    #[schema(minimum = 0)]
    pub amount: i64,
    /// Always `EUR`.
    pub currency: &'static str,
}

/// A product.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductView {
    /// Its id.
    pub id: Uuid,
    /// What shops and warehouses call it.
    pub sku: String,
    /// What customers call it.
    pub name: String,
    /// What they should know.
    pub description: String,
    /// What one costs.
    pub price: MoneyView,
    /// How much of it can be ordered now.
    pub available: i64,
    /// Grows with every change; `available` does not count.
    pub version: i64,
    /// Since when it is sold.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// An order.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView {
    /// Its id.
    pub id: Uuid,
    /// Who ordered.
    pub customer_id: Uuid,
    /// How far it is.
    #[schema(example = "confirmed")]
    pub status: &'static str,
    /// Why it was rejected, if it was.
    pub reason: Option<&'static str>,
    /// What was ordered.
    pub lines: Vec<LineView>,
    /// What it costs.
    pub total: MoneyView,
    /// Its payment.
    pub payment_id: Uuid,
    /// When it was placed.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Grows with every entry.
    pub version: i64,
}

/// So many of a product, as it was when it was ordered.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Line)]
pub struct LineView {
    /// Which product.
    pub product_id: Uuid,
    /// Its sku then.
    pub sku: String,
    /// Its name then.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// What one cost.
    pub unit_price: MoneyView,
    /// What all cost.
    pub total: MoneyView,
}

/// One change of an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
pub struct TimelineEntryView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The status before; null for the first.
    pub from: Option<String>,
    /// The status after; the same, if it was a step that customers do not see.
    pub to: &'static str,
    /// Why.
    #[schema(example = "payment.captured")]
    pub cause: String,
    /// The message that told of it.
    pub message_id: Option<Uuid>,
    /// The try at which it came.
    pub attempt: i64,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The replica that made it.
    pub instance: String,
}

/// The saga of an order, for admins.
#[derive(Debug, Serialize)]
pub struct SagaView {
    order_id: Uuid,
    state: &'static str,
    step: &'static str,
    attempts: i64,
    last_error: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
}

impl From<Money> for MoneyView {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: CURRENCY }
    }
}

impl From<Listed> for ProductView {
    fn from(Listed { product, available }: Listed) -> Self {
        Self {
            id: product.id,
            sku: product.sku.into(),
            name: product.details.name.into(),
            description: product.details.description.into(),
            price: product.details.price.money().into(),
            available,
            version: product.version,
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        Self {
            id: order.id,
            customer_id: order.customer_id,
            status: order.status().as_str(),
            reason: order.status().reason().map(Reason::as_str),
            lines: order.lines.iter().map(LineView::from).collect(),
            total: order.total.into(),
            payment_id: order.payment_id,
            created_at: order.created_at,
            updated_at: order.updated_at(),
            version: order.version(),
        }
    }
}

impl From<&Line> for LineView {
    fn from(line: &Line) -> Self {
        Self {
            product_id: line.product_id,
            sku: line.sku.clone(),
            name: line.name.clone(),
            quantity: line.quantity.get(),
            unit_price: line.unit_price.into(),
            // It fits: the order's total, which is at least this, was checked when it was placed.
            total: line.total().unwrap_or(Money::ZERO).into(),
        }
    }
}

impl From<TimelineEntry> for TimelineEntryView {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            at: entry.at,
            from: entry.from,
            to: entry.to.as_str(),
            cause: entry.cause,
            message_id: entry.message_id,
            attempt: entry.attempt,
            trace_id: entry.trace_id,
            instance: entry.instance,
        }
    }
}

impl From<SagaRow> for SagaView {
    fn from(SagaRow { order_id, saga }: SagaRow) -> Self {
        let state = saga.progress().as_str();
        let Saga { step, attempts, wake_at, last_error, .. } = saga;
        Self { order_id, state, step: step.as_str(), attempts, last_error, next_attempt_at: wake_at }
    }
}

/// Where all of a product is, for admins.
#[derive(Debug, Serialize)]
pub struct StockView {
    product_id: Uuid,
    on_hand: i64,
    reserved: i64,
    sold: i64,
    initial: i64,
    adjusted: i64,
}

impl From<Stock> for StockView {
    fn from(stock: Stock) -> Self {
        let Stock { product_id, on_hand, reserved, sold, initial, adjusted } = stock;
        Self { product_id, on_hand, reserved, sold, initial, adjusted }
    }
}
