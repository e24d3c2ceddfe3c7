//! What a customer wants to buy, and the card it is paid with.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// 1 to 50 lines, each of another product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart(Vec<CartLine>);

/// So many of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLine {
    /// Which product.
    pub product_id: Uuid,
    /// How many.
    pub quantity: Quantity,
}

/// 1 to 1,000 of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Quantity(i64);

/// What the card network knows a card by: `tok_…`. Card numbers have no place here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PaymentToken(String);

/// How many lines a cart has at most.
pub const MOST_LINES: usize = 50;

/// The second line of a product that another line has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated(pub usize);

impl Cart {
    /// The cart of these lines.
    ///
    /// # Errors
    /// The first line whose product an earlier line has.
    pub fn of(lines: Vec<CartLine>) -> Result<Self, Repeated> {
        let repeats = |index: &usize| {
            lines[..*index].iter().any(|earlier| earlier.product_id == lines[*index].product_id)
        };
        match (0..lines.len()).find(repeats) {
            Some(index) => Err(Repeated(index)),
            None => Ok(Self(lines)),
        }
    }

    /// The lines, as the customer wrote them.
    pub fn lines(&self) -> &[CartLine] {
        &self.0
    }
}

impl Quantity {
    /// The number.
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

impl From<Quantity> for i64 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}

impl TryFrom<String> for PaymentToken {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let name = text.strip_prefix("tok_").unwrap_or_default();
        let good = |c: char| c.is_ascii_lowercase() || c == '_';
        match (1..=60).contains(&name.len()) && name.chars().all(good) {
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
        assert!(Cart::of(vec![line(a), line(b)]).is_ok());
        assert_eq!(Cart::of(vec![line(a), line(b), line(a)]), Err(Repeated(2)));
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
