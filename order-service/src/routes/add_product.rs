//! `POST /api/products`: adds a product to the catalogue.

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::Data;
use shared::auth::Admin;
use shared::body::Body;
use shared::idempotency::{IdempotencyKey, Outcome, StoredResponse};
use shared::request::etag;
use utoipa::ToSchema;

use super::price::PriceBody;
use crate::domain::{Description, Details, Level, Name, Sku};
use crate::error::Error;
use crate::store::Store;
use crate::views::{MoneyView, ProductView};

#[derive(Debug, ToSchema)]
pub(crate) struct AddProduct {
    #[schema(value_type = String, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    sku: Sku,
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    name: Name,
    #[schema(value_type = String, max_length = 2000)]
    description: Description,
    #[schema(value_type = MoneyView)]
    price: PriceBody,
    #[schema(value_type = i64, minimum = 0, maximum = 1_000_000)]
    stock: Level,
}

shared::from_body! { AddProduct { required: sku, name, description; object: price; required: stock; } }

#[utoipa::path(post, path = "/api/products", tag = "products", security(("user" = [])),
    request_body(content = AddProduct),
    params(("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 201, body = ProductView),
        (status = 403, description = "not an admin"),
        (status = 409, description = "`sku_taken`"),
    ))]
pub(crate) async fn add_product(
    admin: Admin,
    key: IdempotencyKey,
    body: Body<AddProduct>,
    store: Data<Store>,
) -> Result<Outcome<ProductView>, Error> {
    let claim = key.claim(Some(admin.0.id), &body.bytes)?;
    let AddProduct { sku, name, description, price, stock } = body.value;
    let details = Details { name, description, price: price.0 };
    let added = claim.once(store.db(), created, async |tx| {
        store.add_product(tx, sku, details, stock).await.map(ProductView::from)
    });
    added.await
}

fn created(product: &ProductView) -> StoredResponse {
    StoredResponse::json(StatusCode::CREATED, product)
        .header((LOCATION, format!("/api/products/{}", product.id)))
        .header(etag(product.version))
}
