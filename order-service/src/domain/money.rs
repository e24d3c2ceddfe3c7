//! Money: whole euro cents, never negative. Arithmetic is checked.

use super::Quantity;

pub const CURRENCY: &str = "EUR";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("must not be negative")]
    Negative,
    #[error("is more money than can be counted")]
    TooLarge,
}

impl Money {
    pub const ZERO: Self = Self(0);

    pub fn cents(amount: i64) -> Result<Self, MoneyError> {
        if amount < 0 { Err(MoneyError::Negative) } else { Ok(Self(amount)) }
    }

    /// The amount in cents.
    pub fn amount(self) -> i64 {
        self.0
    }

    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::TooLarge)
    }

    pub fn times(self, quantity: Quantity) -> Result<Self, MoneyError> {
        self.0.checked_mul(quantity.get()).map(Self).ok_or(MoneyError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_does_not_fit_is_refused_not_wrapped() {
        let most = Money::cents(i64::MAX).unwrap();
        assert_eq!(most.plus(Money(1)), Err(MoneyError::TooLarge));
        assert_eq!(most.times(Quantity::try_from(2).unwrap()), Err(MoneyError::TooLarge));
        assert_eq!(Money(250).times(Quantity::try_from(3).unwrap()).unwrap().plus(Money(1)), Ok(Money(751)));
    }

    #[test]
    fn there_is_no_negative_money() {
        assert_eq!(Money::cents(-1), Err(MoneyError::Negative));
    }
}
