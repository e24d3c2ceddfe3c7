//! The catalogue. Each value is valid by its type.

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Money;

/// The stock of a product changes with every order. It is separate, in [`super::Stock`], so a change of stock does not
/// change the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub id: Uuid,
    /// The number in shops and warehouses. It never changes.
    pub sku: Sku,
    pub details: Details,
    /// 1 for a new product; each change adds 1.
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// The part of a product that an admin may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    pub name: Name,
    pub description: Description,
    pub price: Price,
}

/// 1 to 64 letters, digits, dots, dashes and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Sku(String);

/// 1 to 200 characters, not only spaces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// Up to 2,000 characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Description(String);

/// 0 to 10,000,000 euros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price(Money);

/// The highest price, in cents.
pub const MAX_PRICE: i64 = 1_000_000_000;

impl Product {
    pub fn new(sku: Sku, details: Details, now: OffsetDateTime) -> Self {
        Self { id: Uuid::now_v7(), sku, details, version: 1, created_at: now, updated_at: now }
    }

    /// The next version, with other details.
    pub fn with(self, details: Details, now: OffsetDateTime) -> Self {
        Self { details, version: self.version + 1, updated_at: now, ..self }
    }

    /// Name and sku in lower case, for searching.
    pub fn search_text(&self) -> String {
        format!("{}\n{}", self.details.name.as_str(), self.sku.as_str()).to_lowercase()
    }
}

impl Price {
    pub fn money(self) -> Money {
        self.0
    }
}

impl TryFrom<i64> for Price {
    type Error = &'static str;

    fn try_from(cents: i64) -> Result<Self, Self::Error> {
        match Money::cents(cents) {
            Ok(money) if cents <= MAX_PRICE => Ok(Self(money)),
            _ => Err("must be 0 to 1000000000 cents"),
        }
    }
}

fn between(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.chars().count())
}

impl TryFrom<String> for Sku {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match between(&text, 1, 64) && text.chars().all(is_allowed) {
            true => Ok(Self(text)),
            false => Err("must be 1 to 64 letters, digits, dots, dashes or underscores"),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match between(&text, 1, 200) && !text.trim().is_empty() && !text.chars().any(char::is_control) {
            true => Ok(Self(text)),
            false => Err("must be 1 to 200 characters, not only spaces"),
        }
    }
}

impl TryFrom<String> for Description {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // PostgreSQL's text cannot hold a NUL.
        if between(&text, 0, 2_000) && !text.contains('\0') {
            Ok(Self(text))
        } else {
            Err("must be at most 2000 characters")
        }
    }
}

macro_rules! text {
    ($($kind:ty),*) => {$(
        impl $kind {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.0
            }
        }
    )*};
}
text!(Sku, Name, Description);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_has_1_to_64_letters_digits_or_signs() {
        for good in ["A", "TEA-01", "a.b_c", &"x".repeat(64)] {
            assert!(Sku::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "two words", "é", &"x".repeat(65)] {
            assert!(Sku::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_prices_have_bounds() {
        assert!(Name::try_from("Grüner Tee".to_owned()).is_ok());
        for bad in ["", "  ", "two\nlines", &"x".repeat(201)] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(Price::try_from(0).is_ok() && Price::try_from(MAX_PRICE).is_ok());
        assert!(Price::try_from(-1).is_err() && Price::try_from(MAX_PRICE + 1).is_err());
    }
}
