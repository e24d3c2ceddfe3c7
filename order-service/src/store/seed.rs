//! A few products for demonstrations.

use shared::db::{DbError, Tx};

use super::Store;
use crate::domain::{Details, Level, Price};

/// Sku, name, description, price in cents.
const PRODUCTS: [(&str, &str, &str, i64); 6] = [
    ("TEA-GREEN", "Green tea", "Loose leaves, 100 g, first flush.", 890),
    ("TEA-BLACK", "Black tea", "Loose leaves, 250 g, malty.", 1_250),
    ("POT-CLAY", "Clay teapot", "Holds three cups and its temper.", 4_900),
    ("CUP-SMALL", "Small cup", "Porcelain, 90 ml.", 750),
    ("KETTLE-STEEL", "Steel kettle", "Keeps the water at the degree you choose.", 8_900),
    ("TIN-PLAIN", "Plain tin", "For 100 g, closes tightly.", 550),
];

const STOCK: i64 = 1_000_000;

impl Store {
    /// Adds the products that are missing. Existing products stay as they are.
    pub async fn seed(&self, tx: &mut Tx) -> Result<(), DbError> {
        for (sku, name, description, price) in PRODUCTS {
            let (Ok(sku), Ok(name), Ok(description), Ok(price), Ok(level)) = (
                sku.to_owned().try_into(),
                name.to_owned().try_into(),
                description.to_owned().try_into(),
                Price::try_from(price),
                Level::try_from(STOCK),
            ) else {
                log::error!(sku; "a product of the seed is not valid");
                continue;
            };
            self.seed_product(tx, sku, Details { name, description, price }, level).await?;
        }
        Ok(())
    }
}
