//! Payments, refunds and money as JSON.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{Amount, Money, Payment, Refund};
use crate::store::FoundDifference;

/// A payment.
#[derive(Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentView {
    pub id: Uuid,
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount: MoneyView,
    pub refunded: MoneyView,
    /// `authorizing`, `authorized`, `captured`, `declined`, `voided`, `refunding`,
    /// `partially_refunded`, `refunded` or `unknown`.
    pub status: &'static str,
    /// Null unless declined.
    pub decline_code: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Grows with every change; the `ETag`.
    pub version: i64,
}

/// A refund.
#[derive(Serialize, ToSchema)]
#[schema(as = Refund)]
pub struct RefundView {
    pub id: Uuid,
    pub payment_id: Uuid,
    pub amount: MoneyView,
    pub reason: String,
    /// `pending`, `succeeded` or `failed`.
    pub status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A figure in which the card network contradicts our books.
#[derive(Serialize)]
pub struct DifferenceView<'a> {
    /// The key of the authorization at the card network.
    key: &'a str,
    payment_id: Option<Uuid>,
    /// `held`, `captured` or `refunded`.
    figure: &'static str,
    ours: MoneyView,
    theirs: MoneyView,
    #[serde(with = "time::serde::rfc3339")]
    found_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    resolved_at: Option<OffsetDateTime>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Money)]
pub struct MoneyView {
    /// Minor units (cents).
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
}

impl From<&Payment> for PaymentView {
    fn from(payment: &Payment) -> Self {
        Self {
            id: payment.id,
            order_id: payment.order_id,
            customer_id: payment.customer_id,
            amount: payment.amount.into(),
            refunded: payment.refunded.into(),
            status: payment.state.status.as_str(),
            decline_code: payment.decline_code.clone(),
            created_at: payment.created_at,
            updated_at: payment.updated_at,
            version: payment.version,
        }
    }
}

impl From<&Refund> for RefundView {
    fn from(refund: &Refund) -> Self {
        Self {
            id: refund.id,
            payment_id: refund.payment_id,
            amount: refund.amount.into(),
            reason: refund.reason.clone(),
            status: refund.status.as_str(),
            created_at: refund.created_at,
        }
    }
}

impl<'a> From<&'a FoundDifference> for DifferenceView<'a> {
    fn from(found: &'a FoundDifference) -> Self {
        let FoundDifference { key, payment_id, difference, found_at, resolved_at } = found;
        Self {
            key,
            payment_id: *payment_id,
            figure: difference.figure.as_str(),
            ours: (&difference.ours).into(),
            theirs: (&difference.theirs).into(),
            found_at: *found_at,
            resolved_at: *resolved_at,
        }
    }
}

impl From<&Amount> for MoneyView {
    fn from(amount: &Amount) -> Self {
        Self { amount: amount.amount, currency: amount.currency.clone() }
    }
}

impl From<Money> for MoneyView {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: money.currency().as_str().to_owned() }
    }
}
