//! What is sold. Each part exists only if it is valid.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Money;

/// A product. How much of it there is changes far more often than the rest, and so has a
/// [`super::Stock`] of its own, which does not count in the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: Uuid,
    /// What shops and warehouses call it; never changes.
    pub sku: Sku,
    /// What can change.
    pub details: Details,
    /// Grows with every change.
    pub version: i64,
    /// Since when it is sold.
    pub created_at: OffsetDateTime,
    /// When it changed.
    pub updated_at: OffsetDateTime,
}

/// What an admin may change about a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// What customers call it.
    pub name: Name,
    /// What they should know.
    pub description: Description,
    /// What one costs.
    pub price: Price,
}

/// 1 to 64 letters, digits, dots, dashes and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sku(String);

/// 1 to 200 characters, not only spaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Up to 2,000 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Description(String);

/// What one of something costs: 0 to 10,000,000 euros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price(Money);

/// The highest price, in cents.
pub const HIGHEST_PRICE: i64 = 1_000_000_000;

impl Product {
    /// A new product.
    pub fn new(sku: Sku, details: Details, now: OffsetDateTime) -> Self {
        Self { id: Uuid::now_v7(), sku, details, version: 1, created_at: now, updated_at: now }
    }

    /// The product with other details.
    pub fn with(self, details: Details, now: OffsetDateTime) -> Self {
        Self { details, version: self.version + 1, updated_at: now, ..self }
    }

    /// What a search for part of its name or sku looks in: lower case.
    pub fn search_text(&self) -> String {
        format!("{}\n{}", self.details.name.as_str(), self.sku.as_str()).to_lowercase()
    }
}

impl Price {
    /// The price, as money.
    pub fn money(self) -> Money {
        self.0
    }
}

impl TryFrom<i64> for Price {
    type Error = &'static str;

    fn try_from(cents: i64) -> Result<Self, Self::Error> {
        match Money::cents(cents) {
            Ok(money) if cents <= HIGHEST_PRICE => Ok(Self(money)),
            _ => Err("must be 0 to 1000000000 cents"),
        }
    }
}

fn between(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.chars().count())
}

impl TryFrom<String> for Sku {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match between(&text, 1, 64) && text.chars().all(good) {
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
            /// The text.
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
    fn a_sku_is_a_short_plain_word() {
        for good in ["A", "TEA-01", "a.b_c", &"x".repeat(64)] {
            assert!(Sku::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "two words", "é", &"x".repeat(65)] {
            assert!(Sku::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_more_than_spaces_and_a_price_is_not_negative() {
        assert!(Name::try_from("Grüner Tee".to_owned()).is_ok());
        for bad in ["", "  ", "two\nlines", &"x".repeat(201)] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(Price::try_from(0).is_ok() && Price::try_from(HIGHEST_PRICE).is_ok());
        assert!(Price::try_from(-1).is_err() && Price::try_from(HIGHEST_PRICE + 1).is_err());
    }
}
