//! The stock of a product.
//!
//! `on_hand + reserved + sold = initial + adjusted`: an order moves items, an adjustment adds or removes them.
//! The database refuses a row that breaks this equation.

use serde::Deserialize;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    pub product_id: Uuid,
    /// Can be ordered now.
    pub on_hand: i64,
    /// Held for orders that are not paid yet.
    pub reserved: i64,
    /// Belongs to paid orders.
    pub sold: i64,
    /// The quantity on hand when the product was added.
    pub initial: i64,
    /// The sum of all adjustments.
    pub adjusted: i64,
}

/// The initial stock: 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Level(i64);

/// The size of an adjustment: -1,000,000 to 1,000,000, not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Delta(i64);

pub const MAX_ON_HAND: i64 = 1_000_000;

impl Level {
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Level {
    type Error = &'static str;

    fn try_from(level: i64) -> Result<Self, Self::Error> {
        if (0..=MAX_ON_HAND).contains(&level) { Ok(Self(level)) } else { Err("must be 0 to 1000000") }
    }
}

impl Delta {
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Delta {
    type Error = &'static str;

    fn try_from(delta: i64) -> Result<Self, Self::Error> {
        match delta != 0 && (-MAX_ON_HAND..=MAX_ON_HAND).contains(&delta) {
            true => Ok(Self(delta)),
            false => Err("must be -1000000 to 1000000 and not 0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_deltas_have_bounds() {
        assert!(Level::try_from(0).is_ok() && Level::try_from(MAX_ON_HAND).is_ok());
        assert!(Level::try_from(-1).is_err() && Level::try_from(MAX_ON_HAND + 1).is_err());
        assert!(Delta::try_from(-3).is_ok() && Delta::try_from(MAX_ON_HAND).is_ok());
        assert!(Delta::try_from(0).is_err() && Delta::try_from(-MAX_ON_HAND - 1).is_err());
    }
}
