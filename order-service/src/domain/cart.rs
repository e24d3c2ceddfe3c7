//! The lines of a new order, and the token of its card.

use serde::Deserialize;
use uuid::Uuid;

/// 1 to 50 lines, each of another product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart(Vec<CartLine>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLine {
    pub product_id: Uuid,
    pub quantity: Quantity,
}

/// 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Quantity(i64);

/// The card network's name for a card: `tok_…`. A card number is not a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PaymentToken(String);

pub const MAX_LINES: usize = 50;

/// A line whose product is in an earlier line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateProduct {
    pub index: usize,
}

impl Cart {
    pub fn new(lines: Vec<CartLine>) -> Result<Self, DuplicateProduct> {
        let is_duplicate = |index: &usize| {
            lines[..*index].iter().any(|earlier| earlier.product_id == lines[*index].product_id)
        };
        match (0..lines.len()).find(is_duplicate) {
            Some(index) => Err(DuplicateProduct { index }),
            None => Ok(Self(lines)),
        }
    }

    /// The lines, in the order that the customer chose.
    pub fn lines(&self) -> &[CartLine] {
        &self.0
    }
}

impl Quantity {
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Quantity {
    type Error = &'static str;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        if (1..=1_000).contains(&number) { Ok(Self(number)) } else { Err("must be 1 to 1000") }
    }
}

impl TryFrom<String> for PaymentToken {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let name = text.strip_prefix("tok_").unwrap_or_default();
        let is_allowed = |c: char| c.is_ascii_lowercase() || c == '_';
        match (1..=60).contains(&name.len()) && name.chars().all(is_allowed) {
            true => Ok(Self(text)),
            false => Err("must be a payment token, such as tok_visa"),
        }
    }
}

impl From<PaymentToken> for String {
    fn from(token: PaymentToken) -> Self {
        token.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(product_id: Uuid) -> CartLine {
        CartLine { product_id, quantity: Quantity(1) }
    }

    #[test]
    fn a_product_is_on_one_line_only() {
        let [a, b] = [Uuid::now_v7(), Uuid::now_v7()];
        assert!(Cart::new(vec![line(a), line(b)]).is_ok());
        assert_eq!(Cart::new(vec![line(a), line(b), line(a)]), Err(DuplicateProduct { index: 2 }));
    }

    #[test]
    fn a_quantity_is_1_to_1000() {
        assert!(Quantity::try_from(1).is_ok() && Quantity::try_from(1_000).is_ok());
        for bad in [0, -1, 1_001, i64::MAX] {
            assert!(Quantity::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_card_number_is_not_a_token() {
        assert!(PaymentToken::try_from("tok_visa".to_owned()).is_ok());
        for bad in ["", "tok_", "4242424242424242", "tok_4242424242424242", "visa"] {
            assert!(PaymentToken::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
