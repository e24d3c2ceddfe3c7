//! A refund: a part of a captured payment that is given back.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Money;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The idempotency key at the card network is derived from it.
    pub id: Uuid,
    pub payment_id: Uuid,
    pub amount: Money,
    /// Given by the admin, or by the order.
    pub reason: String,
    pub status: RefundStatus,
    pub created_at: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundStatus {
    /// The card network has not confirmed it yet.
    Pending,
    Succeeded,
    /// The card network refused it.
    Failed,
}

impl RefundStatus {
    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Pending, Self::Succeeded, Self::Failed].into_iter().find(|status| status.as_str() == name)
    }
}
