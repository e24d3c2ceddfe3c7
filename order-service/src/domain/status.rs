//! The status of an order, and the table of transitions.
//!
//! ```text
//!                  ┌──────────────► confirmed ──► shipped ──► delivered
//! awaiting_payment ┼─► rejected         │
//!                  └─► cancelling ──────┼─► cancelled
//!                          └────────────┴─► refunding ──► refunded
//! ```
//!
//! An order in `awaiting_payment`, `cancelling` or `refunding` becomes `needs_attention` when its saga is
//! stuck. A late event of payment-service or an admin continues it.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The stock is reserved, the payment is running.
    AwaitingPayment,
    /// Paid.
    Confirmed,
    Shipped,
    Delivered,
    /// The order was not paid.
    Rejected(Reason),
    /// Cancelled before it was paid; the payment is not undone yet.
    Cancelling,
    /// Undone before it was paid.
    Cancelled,
    /// Cancelled after it was paid; the refund is running.
    Refunding,
    Refunded,
    /// The saga of the order is stuck.
    NeedsAttention,
}

/// Why an order was not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    CardDeclined,
    InsufficientFunds,
    /// The authorization was not confirmed in time.
    PaymentTimeout,
    /// The card network could not be reached.
    PaymentUnavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {} cannot become {}", .from.as_str(), .to.as_str())]
pub struct IllegalTransition {
    pub from: Status,
    pub to: Status,
}

impl Status {
    /// The table of transitions.
    pub fn may_become(self, next: Self) -> bool {
        use Status::*;
        match self {
            AwaitingPayment => matches!(next, Confirmed | Rejected(_) | Cancelling | NeedsAttention),
            Confirmed => matches!(next, Shipped | Refunding),
            Shipped => matches!(next, Delivered),
            Cancelling => matches!(next, Cancelled | Refunding | NeedsAttention),
            Refunding => matches!(next, Refunded | NeedsAttention),
            NeedsAttention => {
                matches!(next, Confirmed | Rejected(_) | Cancelling | Cancelled | Refunding | Refunded)
            }
            Delivered | Rejected(_) | Cancelled | Refunded => false,
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Rejected(_) | Self::Cancelled | Self::Refunded)
    }

    /// Whether the saga will soon change this status without a request from a person.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::AwaitingPayment | Self::Cancelling | Self::Refunding)
    }

    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Rejected(_) => "rejected",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Refunding => "refunding",
            Self::Refunded => "refunded",
            Self::NeedsAttention => "needs_attention",
        }
    }

    /// The reason of a rejected order; `None` for other statuses.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Rejected(reason) => Some(reason),
            _ => None,
        }
    }

    /// The status with this name and reason; `None` if there is none.
    pub fn named(name: &str, reason: Option<&str>) -> Option<Self> {
        let reason = match reason {
            Some(reason) => Some(Reason::named(reason)?),
            None => None,
        };
        Self::all().find(|status| status.as_str() == name && status.reason() == reason)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        use Status::*;
        let others = [
            AwaitingPayment,
            Confirmed,
            Shipped,
            Delivered,
            Cancelling,
            Cancelled,
            Refunding,
            Refunded,
            NeedsAttention,
        ];
        others.into_iter().chain(Reason::ALL.map(Rejected))
    }
}

impl Reason {
    pub const ALL: [Self; 4] =
        [Self::CardDeclined, Self::InsufficientFunds, Self::PaymentTimeout, Self::PaymentUnavailable];

    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CardDeclined => "card_declined",
            Self::InsufficientFunds => "insufficient_funds",
            Self::PaymentTimeout => "payment_timeout",
            Self::PaymentUnavailable => "payment_unavailable",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_back() {
        for status in Status::all() {
            let reason = status.reason().map(Reason::as_str);
            assert_eq!(Status::named(status.as_str(), reason), Some(status));
        }
        assert_eq!(Status::named("paid", None), None);
        assert_eq!(Status::named("confirmed", Some("card_declined")), None);
        assert_eq!(Status::named("rejected", None), None);
    }

    #[test]
    fn only_final_statuses_have_no_next_status() {
        for status in Status::all() {
            let has_next = Status::all().any(|next| status.may_become(next));
            assert_eq!(has_next, !status.is_final(), "{status:?}");
        }
    }

    #[test]
    fn no_status_becomes_awaiting_payment_or_itself() {
        for status in Status::all() {
            assert!(!status.may_become(Status::AwaitingPayment) && !status.may_become(status), "{status:?}");
        }
    }

    #[test]
    fn only_a_confirmed_order_ships() {
        let shipping: Vec<_> = Status::all().filter(|status| status.may_become(Status::Shipped)).collect();
        assert_eq!(shipping, [Status::Confirmed]);
    }
}
