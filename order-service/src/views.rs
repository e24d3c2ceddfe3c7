//! JSON representations of resources.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::checkout::Saga;
use crate::domain::{Line, Money, Order, Reason, Stock, money::CURRENCY};
use crate::store::{CatalogueItem, SagaRow, TimelineEntry};

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Money)]
pub struct MoneyView {
    /// The amount in cents.
    #[schema(minimum = 0)]
    pub amount: i64,
    /// Always `EUR`.
    pub currency: &'static str,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductView {
    pub id: Uuid,
    pub sku: String,
    pub name: String,
    pub description: String,
    pub price: MoneyView,
    /// The quantity that can be ordered now.
    pub available: i64,
    /// Increases with every change, except of `available`.
    pub version: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView {
    pub id: Uuid,
    pub customer_id: Uuid,
    #[schema(example = "confirmed")]
    pub status: &'static str,
    /// Why the order was rejected; null for any other order.
    pub reason: Option<&'static str>,
    pub lines: Vec<LineView>,
    pub total: MoneyView,
    pub payment_id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Increases with every change.
    pub version: i64,
}

/// Sku, name and price are those of the time of the order.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Line)]
pub struct LineView {
    pub product_id: Uuid,
    pub sku: String,
    pub name: String,
    pub quantity: i64,
    pub unit_price: MoneyView,
    pub total: MoneyView,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
pub struct TimelineEntryView {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The status before; null for a new order.
    pub from: Option<String>,
    /// The status after; equal to `from` if only the saga changed.
    pub to: &'static str,
    #[schema(example = "payment.captured")]
    pub cause: String,
    /// The message that caused the change, if any.
    pub message_id: Option<Uuid>,
    /// The delivery attempt of the message, the attempt of the saga's step, or 1.
    pub attempt: i64,
    pub trace_id: Option<String>,
    /// The replica that made the change.
    pub instance: String,
}

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

#[derive(Debug, Serialize)]
pub struct StockView {
    product_id: Uuid,
    on_hand: i64,
    reserved: i64,
    sold: i64,
    initial: i64,
    adjusted: i64,
}

impl From<Money> for MoneyView {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: CURRENCY }
    }
}

impl From<CatalogueItem> for ProductView {
    fn from(CatalogueItem { product, available }: CatalogueItem) -> Self {
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
            // It fits: the order's total was checked when it was placed, and is not smaller.
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

impl From<Stock> for StockView {
    fn from(stock: Stock) -> Self {
        let Stock { product_id, on_hand, reserved, sold, initial, adjusted } = stock;
        Self { product_id, on_hand, reserved, sold, initial, adjusted }
    }
}
