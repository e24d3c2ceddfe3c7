//! Money: whole minor units of one currency, never negative, added and taken away with checks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of money, in minor units (cents).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Money {
    amount: i64,
    currency: Currency,
}

/// Three capital letters (ISO 4217).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Why a sum does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Below zero.
    #[error("an amount cannot be negative")]
    Negative,
    /// Beyond what 64 bits hold.
    #[error("the amount is too large")]
    TooLarge,
    /// Euros and dollars have no sum.
    #[error("amounts of different currencies cannot be put together")]
    OtherCurrency,
    /// Not three capital letters.
    #[error("a currency is three capital letters")]
    NoCurrency,
}

impl Money {
    /// `amount` minor units of `currency`.
    ///
    /// # Errors
    /// [`MoneyError::Negative`].
    pub fn new(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount < 0 { Err(MoneyError::Negative) } else { Ok(Self { amount, currency }) }
    }

    /// Nothing, in `currency`.
    pub fn zero(currency: Currency) -> Self {
        Self { amount: 0, currency }
    }

    /// The minor units.
    pub fn amount(self) -> i64 {
        self.amount
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// Whether this is no money at all.
    pub fn is_zero(self) -> bool {
        self.amount == 0
    }

    /// Both together.
    ///
    /// # Errors
    /// [`MoneyError::OtherCurrency`] or [`MoneyError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::TooLarge)?;
        Ok(Self { amount, ..self })
    }

    /// What is left without `other`.
    ///
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
    /// The letters.
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

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} {}", self.amount / 100, self.amount % 100, self.currency.as_str())
    }
}

#[derive(Deserialize)]
struct Unchecked {
    amount: i64,
    currency: Currency,
}

impl TryFrom<Unchecked> for Money {
    type Error = MoneyError;

    fn try_from(Unchecked { amount, currency }: Unchecked) -> Result<Self, MoneyError> {
        Self::new(amount, currency)
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

    #[test]
    fn only_money_that_exists_is_read() {
        let read = serde_json::from_str::<Money>;
        assert_eq!(read(r#"{"amount":250,"currency":"EUR"}"#).unwrap(), money(250, "EUR"));
        for bad in [
            r#"{"amount":-1,"currency":"EUR"}"#,
            r#"{"amount":1.5,"currency":"EUR"}"#,
            r#"{"amount":1,"currency":"eur"}"#,
            r#"{"amount":1,"currency":"EURO"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
