//! `PATCH /api/products/{id}`: changes name, description or price. Existing orders keep their prices.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::auth::Admin;
use shared::body::Body;
use shared::request::{IfMatch, PathId, etag};
use utoipa::ToSchema;

use super::price::PriceBody;
use crate::domain::{Description, Details, Name, Product};
use crate::error::Error;
use crate::store::Store;
use crate::views::{MoneyView, ProductView};

/// An absent field stays as it is.
#[derive(Debug, ToSchema)]
pub(crate) struct ChangeProduct {
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 200)]
    name: Option<Name>,
    #[schema(value_type = Option<String>, nullable = false, max_length = 2000)]
    description: Option<Description>,
    #[schema(value_type = Option<MoneyView>, nullable = false)]
    price: Option<PriceBody>,
}

shared::from_body! { ChangeProduct { optional: name, description; optional_object: price; } }

#[utoipa::path(patch, path = "/api/products/{id}", tag = "products", security(("user" = [])),
    request_body(content = ChangeProduct),
    params(("id" = uuid::Uuid, Path), ("If-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = ProductView),
        (status = 403, description = "not an admin"),
        (status = 404, description = "`not_found`"),
        (status = 412, description = "`stale_version`"),
    ))]
pub(crate) async fn change_product(
    _: Admin,
    id: PathId,
    if_match: IfMatch,
    body: Body<ChangeProduct>,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let ChangeProduct { name, description, price } = body.value;
    let change = |product: &Product| {
        if_match.check(product.version)?;
        let current = product.details.clone();
        Ok(Details {
            name: name.unwrap_or(current.name),
            description: description.unwrap_or(current.description),
            price: price.map_or(current.price, |price| price.0),
        })
    };
    let changed = store.db().transaction(async |tx| store.change_product(tx, id.0, change).await).await?;
    let changed = ProductView::from(changed);
    Ok(HttpResponse::Ok().insert_header(etag(changed.version)).json(changed))
}
