//! The catalogue of order-service.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use shared::client::{Context, ServiceClient};

use crate::error::Error;

#[derive(Clone)]
pub struct Products {
    client: ServiceClient,
}

/// One page of the catalogue.
#[derive(Debug, Deserialize)]
pub struct Catalogue {
    pub products: Vec<Product>,
    pub next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Product {
    pub id: String,
    pub sku: String,
    pub name: String,
    pub description: String,
    pub price: Price,
    pub available: i64,
}

#[derive(Debug, Deserialize)]
pub struct Price {
    /// The amount in cents.
    pub amount: i64,
}

/// Cards on a page; whole rows with two, three, four and six columns.
const LIMIT: u8 = 24;

impl Products {
    pub fn new(client: ServiceClient) -> Self {
        Self { client }
    }

    /// Products with `part` in the name or sku, from `cursor` on.
    pub async fn list(
        &self,
        part: Option<&str>,
        cursor: Option<&str>,
        context: &Context,
    ) -> Result<Catalogue, Error> {
        let mut path = format!("/api/products?limit={LIMIT}");
        for (name, value) in [("q", part), ("cursor", cursor)] {
            if let Some(value) = value {
                path = format!("{path}&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        let answer = self.client.get(path).context(context).send().await?;
        Ok(answer.json()?)
    }
}
