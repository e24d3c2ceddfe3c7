//! A refund: part of a captured payment on its way back.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Money;

/// Money on its way back to the customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Its id, and what its key at the card network is made of.
    pub id: Uuid,
    /// The payment it is part of.
    pub payment_id: Uuid,
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: String,
    /// How far it is.
    pub status: RefundStatus,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
}

/// How far a refund is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundStatus {
    /// The card network has not confirmed it yet.
    Pending,
    /// The money went back.
    Succeeded,
    /// The card network refused.
    Failed,
}

impl RefundStatus {
    /// Its name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// The status of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Pending, Self::Succeeded, Self::Failed].into_iter().find(|status| status.as_str() == name)
    }
}
