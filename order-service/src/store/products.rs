//! The catalogue.

use shared::db::{DbError, Row, Tx, query};
use shared::request::{Page, Paging};
use uuid::Uuid;

use super::{Store, rows};
use crate::domain::{Details, Level, Product, Sku};
use crate::error::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueItem {
    pub product: Product,
    /// The quantity on hand, which can be ordered now.
    pub available: i64,
}

fn select() -> String {
    let columns = rows::PRODUCT;
    format!("SELECT {columns}, stock.on_hand FROM products JOIN stock ON stock.product_id = products.id")
}

fn item(row: &Row) -> Result<CatalogueItem, DbError> {
    Ok(CatalogueItem { product: rows::product(row)?, available: row.get("on_hand")? })
}

impl Store {
    /// Adds a product and its stock.
    pub async fn add_product(
        &self,
        tx: &mut Tx,
        sku: Sku,
        details: Details,
        level: Level,
    ) -> Result<CatalogueItem, Error> {
        let product = Product::new(sku, details, tx.now());
        match insert(tx, &product, level, "").await {
            Err(error) if error.is_taken("products", "sku") => Err(Error::SkuTaken),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(CatalogueItem { product, available: level.get() }),
        }
    }

    /// Adds a product unless its sku exists. Several replicas may do this at the same time.
    pub async fn seed_product(
        &self,
        tx: &mut Tx,
        sku: Sku,
        details: Details,
        level: Level,
    ) -> Result<(), DbError> {
        let product = Product::new(sku, details, tx.now());
        insert(tx, &product, level, "ON CONFLICT (sku) DO NOTHING").await.map(drop)
    }

    pub async fn product(&self, id: Uuid) -> Result<CatalogueItem, Error> {
        let row = query(format!("{} WHERE products.id = $1", select())).bind(id).fetch_optional(&self.db);
        let row = row.await?.ok_or(Error::NotFound)?;
        Ok(item(&row)?)
    }

    /// Products whose name or sku contains `part`, ignoring case. Newest first.
    pub async fn products(
        &self,
        paging: &Paging,
        part: Option<&str>,
    ) -> Result<Page<CatalogueItem>, DbError> {
        let sql = format!(
            "{} WHERE ($1 IS NULL OR products.search LIKE $1 ESCAPE '!') AND ($2 IS NULL OR products.id < $2) \
             ORDER BY products.id DESC LIMIT $3",
            select()
        );
        let found = query(sql).bind(part.map(pattern)).bind(paging.cursor).bind(paging.fetch());
        let rows = found.fetch_all(&self.db).await?;
        let items = rows.iter().map(item).collect::<Result<Vec<_>, _>>()?;
        Ok(paging.page(items, |item| item.product.id))
    }

    /// Locks the product and gives it the details that `change` returns.
    pub async fn change_product(
        &self,
        tx: &mut Tx,
        id: Uuid,
        change: impl FnOnce(&Product) -> Result<Details, Error>,
    ) -> Result<CatalogueItem, Error> {
        let sql = format!("SELECT {} FROM products WHERE id = $1 FOR UPDATE", rows::PRODUCT);
        let row = query(sql).bind(id).fetch_optional(&mut *tx).await?.ok_or(Error::NotFound)?;
        let product = rows::product(&row)?;
        let details = change(&product)?;
        let product = if details == product.details { product } else { product.with(details, tx.now()) };
        let changed = query(
            "UPDATE products SET name = $2, description = $3, price = $4, search = $5, version = $6, \
             updated_at = $7 WHERE id = $1",
        )
        .bind(id)
        .bind(product.details.name.as_str())
        .bind(product.details.description.as_str())
        .bind(product.details.price.money().amount())
        .bind(product.search_text())
        .bind(product.version)
        .bind(product.updated_at);
        changed.execute(&mut *tx).await?;
        let stock = query("SELECT on_hand FROM stock WHERE product_id = $1").bind(id).fetch_one(&mut *tx);
        Ok(CatalogueItem { product, available: stock.await?.get("on_hand")? })
    }
}

/// Inserts a product and its stock. `conflict` is the `ON CONFLICT` clause.
async fn insert(tx: &mut Tx, product: &Product, level: Level, conflict: &str) -> Result<(), DbError> {
    let inserted = query(format!(
        "INSERT INTO products (id, sku, name, description, price, search, version, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) {conflict}"
    ))
    .bind(product.id)
    .bind(product.sku.as_str())
    .bind(product.details.name.as_str())
    .bind(product.details.description.as_str())
    .bind(product.details.price.money().amount())
    .bind(product.search_text())
    .bind(product.version)
    .bind(product.created_at)
    .execute(&mut *tx)
    .await?;
    if inserted == 1 {
        query("INSERT INTO stock (product_id, on_hand, initial) VALUES ($1, $2, $2)")
            .bind(product.id)
            .bind(level.get())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// The LIKE pattern for "contains `part`", with the wildcards in `part` escaped.
fn pattern(part: &str) -> String {
    let literal = part.to_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{literal}%")
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn wildcards_are_escaped() {
        assert_eq!(pattern("50%_Tea!"), "%50!%!_tea!!%");
    }
}
