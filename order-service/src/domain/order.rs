//! An order: its fixed terms, its status and its version.

use std::ops::Deref;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{IllegalTransition, Money, MoneyError, Quantity, Status};

/// The status changes only by [`Order::change_to`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    terms: Terms,
    status: Status,
    version: i64,
    updated_at: OffsetDateTime,
}

/// The part of an order that never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub id: Uuid,
    pub customer_id: Uuid,
    pub lines: Vec<Line>,
    pub total: Money,
    /// This service gives the payment its id.
    pub payment_id: Uuid,
    pub created_at: OffsetDateTime,
}

/// Sku, name and price are those of the time of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub product_id: Uuid,
    pub sku: String,
    pub name: String,
    pub quantity: Quantity,
    pub unit_price: Money,
}

impl Line {
    pub fn total(&self) -> Result<Money, MoneyError> {
        self.unit_price.times(self.quantity)
    }
}

impl Order {
    pub fn place(customer_id: Uuid, lines: Vec<Line>, now: OffsetDateTime) -> Result<Self, MoneyError> {
        let total = lines.iter().try_fold(Money::ZERO, |sum, line| sum.plus(line.total()?))?;
        let (id, payment_id) = (Uuid::now_v7(), Uuid::now_v7());
        let terms = Terms { id, customer_id, lines, total, payment_id, created_at: now };
        Ok(Self { terms, status: Status::AwaitingPayment, version: 1, updated_at: now })
    }

    /// An order as it was stored.
    pub fn restored(terms: Terms, status: Status, version: i64, updated_at: OffsetDateTime) -> Self {
        Self { terms, status, version, updated_at }
    }

    pub fn change_to(self, status: Status, now: OffsetDateTime) -> Result<Self, IllegalTransition> {
        match self.status.may_become(status) {
            true => Ok(Self { status, ..self.touched(now) }),
            false => Err(IllegalTransition { from: self.status, to: status }),
        }
    }

    /// The next version with the same status, after a step of the saga.
    pub fn touched(self, now: OffsetDateTime) -> Self {
        Self { version: self.version + 1, updated_at: now, ..self }
    }

    /// This order at an earlier version.
    pub fn as_of(&self, status: Status, version: i64, at: OffsetDateTime) -> Self {
        Self { terms: self.terms.clone(), status, version, updated_at: at }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    /// 1 for a new order; each change adds 1.
    pub fn version(&self) -> i64 {
        self.version
    }

    pub fn updated_at(&self) -> OffsetDateTime {
        self.updated_at
    }
}

impl Deref for Order {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(quantity: i64, cents: i64) -> Line {
        Line {
            product_id: Uuid::now_v7(),
            sku: "TEA".to_owned(),
            name: "Tea".to_owned(),
            quantity: quantity.try_into().unwrap(),
            unit_price: Money::cents(cents).unwrap(),
        }
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines() {
        let order = Order::place(Uuid::now_v7(), vec![line(2, 350), line(1, 99)], OffsetDateTime::UNIX_EPOCH);
        assert_eq!(order.unwrap().total.amount(), 799);
    }

    #[test]
    fn a_total_that_does_not_fit_is_refused() {
        let lines = vec![line(1, i64::MAX), line(1, 1)];
        let refused = Order::place(Uuid::now_v7(), lines, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(refused, Err(MoneyError::TooLarge));
    }

    #[test]
    fn an_illegal_transition_changes_nothing() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let order = Order::place(Uuid::now_v7(), vec![line(1, 1)], now).unwrap();
        let refused = order.clone().change_to(Status::Shipped, now).unwrap_err();
        assert_eq!((refused.from, refused.to), (Status::AwaitingPayment, Status::Shipped));
        assert_eq!(order.change_to(Status::Confirmed, now).unwrap().version(), 2);
    }
}
