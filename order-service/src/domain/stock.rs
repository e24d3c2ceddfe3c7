//! How much there is of a product, and where it is.
//!
//! `on_hand + reserved + sold = initial + adjusted`: things are moved, or counted in and out by an
//! adjustment; nothing else makes or loses one. The database refuses whatever breaks this.

use serde::Deserialize;
use uuid::Uuid;

/// Where all of a product is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    /// Which product.
    pub product_id: Uuid,
    /// What can be ordered now.
    pub on_hand: i64,
    /// What belongs to orders that are not paid yet.
    pub reserved: i64,
    /// What belongs to paid orders.
    pub sold: i64,
    /// How much there was when the product was added.
    pub initial: i64,
    /// What was counted in or out since.
    pub adjusted: i64,
}

/// How much of a product there is at first: 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Level(i64);

/// How much is counted in, or out if negative; never 0, at most a million either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Delta(i64);

/// The most of one product that can be on hand.
pub const MOST_ON_HAND: i64 = 1_000_000;

impl Level {
    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Level {
    type Error = &'static str;

    fn try_from(level: i64) -> Result<Self, Self::Error> {
        if (0..=MOST_ON_HAND).contains(&level) { Ok(Self(level)) } else { Err("must be 0 to 1000000") }
    }
}

impl Delta {
    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Delta {
    type Error = &'static str;

    fn try_from(delta: i64) -> Result<Self, Self::Error> {
        match delta != 0 && (-MOST_ON_HAND..=MOST_ON_HAND).contains(&delta) {
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
        assert!(Level::try_from(0).is_ok() && Level::try_from(MOST_ON_HAND).is_ok());
        assert!(Level::try_from(-1).is_err() && Level::try_from(MOST_ON_HAND + 1).is_err());
        assert!(Delta::try_from(-3).is_ok() && Delta::try_from(MOST_ON_HAND).is_ok());
        assert!(Delta::try_from(0).is_err() && Delta::try_from(-MOST_ON_HAND - 1).is_err());
    }
}
