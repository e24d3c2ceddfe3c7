//! Money: whole minor units of one currency, never negative, with checked arithmetic.

use serde::Deserialize;

/// An amount in minor units (cents).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    amount: i64,
    currency: Currency,
}

/// Three capital letters (ISO 4217).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Currency([u8; 3]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("an amount cannot be negative")]
    Negative,
    #[error("the amount is too large")]
    TooLarge,
    #[error("amounts of different currencies cannot be put together")]
    OtherCurrency,
    #[error("a currency is three capital letters")]
    NoCurrency,
}

impl Money {
    /// # Errors
    /// [`MoneyError::Negative`].
    pub fn new(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount < 0 { Err(MoneyError::Negative) } else { Ok(Self { amount, currency }) }
    }

    pub fn zero(currency: Currency) -> Self {
        Self { amount: 0, currency }
    }

    /// The amount in minor units.
    pub fn amount(self) -> i64 {
        self.amount
    }

    pub fn currency(self) -> Currency {
        self.currency
    }

    pub fn is_zero(self) -> bool {
        self.amount == 0
    }

    /// # Errors
    /// [`MoneyError::OtherCurrency`] or [`MoneyError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::TooLarge)?;
        Ok(Self { amount, ..self })
    }

    /// # Errors
    /// [`MoneyError::OtherCurrency`], or [`MoneyError::Negative`] if `other` is more.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Self::new(self.amount - other.amount, self.currency)
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency { Ok(()) } else { Err(MoneyError::OtherCurrency) }
    }
}

impl Currency {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TryFrom<&str> for Currency {
    type Error = MoneyError;

    fn try_from(text: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(MoneyError::NoCurrency),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        Self::try_from(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: i64, currency: &str) -> Money {
        Money::new(amount, currency.try_into().unwrap()).unwrap()
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(money(1, "EUR").plus(money(2, "EUR")), Ok(money(3, "EUR")));
        assert_eq!(money(i64::MAX, "EUR").plus(money(1, "EUR")), Err(MoneyError::TooLarge));
        assert_eq!(money(1, "EUR").minus(money(2, "EUR")), Err(MoneyError::Negative));
    }

    #[test]
    fn currencies_do_not_mix() {
        assert_eq!(money(1, "EUR").plus(money(1, "USD")), Err(MoneyError::OtherCurrency));
        assert_eq!(money(1, "EUR").minus(money(1, "USD")), Err(MoneyError::OtherCurrency));
    }
}
