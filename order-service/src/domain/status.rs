//! The table of an order's statuses.
//!
//! ```text
//!                  ┌──────────────► confirmed ──► shipped ──► delivered
//! awaiting_payment ┼─► rejected         │
//!                  └─► cancelling ──────┼─► cancelled
//!                          └────────────┴─► refunding ──► refunded
//! ```
//!
//! From `awaiting_payment`, `cancelling` and `refunding` an order that gets nowhere becomes
//! `needs_attention`; the answer that comes late, or an admin, takes it on from there.

/// What the customer sees of an order's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The goods are reserved, the payment is on its way.
    AwaitingPayment,
    /// Paid.
    Confirmed,
    /// On its way to the customer.
    Shipped,
    /// With the customer.
    Delivered,
    /// Not paid.
    Rejected(Reason),
    /// The customer does not want it any more; the payment is not undone yet.
    Cancelling,
    /// Undone before it was paid.
    Cancelled,
    /// The customer does not want it any more; the money is on its way back.
    Refunding,
    /// The money is back.
    Refunded,
    /// It got stuck: somebody has to look.
    NeedsAttention,
}

/// Why an order was not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The card network refused.
    CardDeclined,
    /// There is not enough money behind the card.
    InsufficientFunds,
    /// Nobody said in time whether it is paid.
    PaymentTimeout,
    /// The card network could not be reached.
    PaymentUnavailable,
}

/// An order cannot become that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {} cannot become {}", .from.as_str(), .to.as_str())]
pub struct IllegalTransition {
    /// What it is.
    pub from: Status,
    /// What it was to become.
    pub to: Status,
}

impl Status {
    /// Whether an order may go from this status to `next`: the one table of transitions.
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

    /// Whether no order ever leaves this status.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Rejected(_) | Self::Cancelled | Self::Refunded)
    }

    /// Whether the order will leave this status by itself, and soon.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::AwaitingPayment | Self::Cancelling | Self::Refunding)
    }

    /// Its name in the API and in the database.
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

    /// Why, if it is rejected.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Rejected(reason) => Some(reason),
            _ => None,
        }
    }

    /// The status of that name; a rejected one has a reason and no other has.
    pub fn named(name: &str, reason: Option<&str>) -> Option<Self> {
        let reason = match reason {
            Some(reason) => Some(Reason::named(reason)?),
            None => None,
        };
        Self::all().find(|status| status.as_str() == name && status.reason() == reason)
    }

    /// All of them.
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
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::CardDeclined, Self::InsufficientFunds, Self::PaymentTimeout, Self::PaymentUnavailable];

    /// Its name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CardDeclined => "card_declined",
            Self::InsufficientFunds => "insufficient_funds",
            Self::PaymentTimeout => "payment_timeout",
            Self::PaymentUnavailable => "payment_unavailable",
        }
    }

    /// The reason of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_what_it_names() {
        for status in Status::all() {
            let reason = status.reason().map(Reason::as_str);
            assert_eq!(Status::named(status.as_str(), reason), Some(status));
        }
        assert_eq!(Status::named("paid", None), None);
        assert_eq!(Status::named("confirmed", Some("card_declined")), None);
        assert_eq!(Status::named("rejected", None), None);
    }

    #[test]
    fn nothing_leaves_a_final_status_and_everything_leaves_the_others() {
        for status in Status::all() {
            let leaves = Status::all().any(|next| status.may_become(next));
            assert_eq!(leaves, !status.is_final(), "{status:?}");
        }
    }

    #[test]
    fn an_order_never_goes_back_to_awaiting_payment_or_to_what_it_is() {
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
