//! A few products, so that a newcomer has something to order.

use shared::db::DbError;

use crate::domain::{Details, Level, Price};
use crate::store::Store;

/// Sku, name, description, price in cents.
const PRODUCTS: [(&str, &str, &str, i64); 6] = [
    ("TEA-GREEN", "Green tea", "Loose leaves, 100 g, first flush.", 890),
    ("TEA-BLACK", "Black tea", "Loose leaves, 250 g, malty.", 1_250),
    ("POT-CLAY", "Clay teapot", "Holds three cups and its temper.", 4_900),
    ("CUP-SMALL", "Small cup", "Porcelain, 90 ml.", 750),
    ("KETTLE-STEEL", "Steel kettle", "Keeps the water at the degree you choose.", 8_900),
    ("TIN-PLAIN", "Plain tin", "For 100 g, closes tightly.", 550),
];

/// How many of each: enough for a long demonstration.
const LEVEL: i64 = 1_000_000;

/// Adds the products that are not there yet. What an admin changed since stays.
///
/// # Errors
/// Any [`DbError`].
pub async fn seed(store: &Store) -> Result<(), DbError> {
    let mut tx = store.db().begin().await?;
    for (sku, name, description, price) in PRODUCTS {
        let (Ok(sku), Ok(name), Ok(description), Ok(price), Ok(level)) = (
            sku.to_owned().try_into(),
            name.to_owned().try_into(),
            description.to_owned().try_into(),
            Price::try_from(price),
            Level::try_from(LEVEL),
        ) else {
            log::error!(sku; "a product to offer is not valid");
            continue;
        };
        store.seed_product(&mut tx, sku, Details { name, description, price }, level).await?;
    }
    tx.commit().await
}
