//! `GET /api/products`: what can be ordered.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use shared::auth::MaybeCaller;
use shared::request::{Page, Paging, Params};
use utoipa::ToSchema;

use crate::error::Error;
use crate::store::Store;
use crate::views::ProductView;

/// A page of products.
#[derive(Serialize, ToSchema)]
pub(crate) struct Products {
    /// The products, newest first.
    products: Vec<ProductView>,
    /// What to send as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/products", tag = "products",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
        ("q" = Option<String>, Query, description = "part of the name or sku, in any case"),
    ),
    responses((status = 200, body = Products), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_products(
    _: MaybeCaller,
    paging: Paging,
    params: Params,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let part: Option<String> = params.optional("q", "a text")?;
    // PostgreSQL's text cannot hold a NUL, and so no product has one.
    let part = part.map(|part| part.replace('\0', "\u{fffd}"));
    let Page { items, next_cursor } = store.products(&paging, part.as_deref()).await?;
    let products = items.into_iter().map(ProductView::from).collect();
    Ok(HttpResponse::Ok().json(Products { products, next_cursor }))
}
