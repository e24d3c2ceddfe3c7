//! `GET /api/products`: the catalogue.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use shared::auth::MaybeCaller;
use shared::request::{Page, Paging, Params};
use utoipa::ToSchema;

use crate::error::Error;
use crate::store::Store;
use crate::views::ProductView;

#[derive(Serialize, ToSchema)]
pub(crate) struct Products {
    /// Newest first.
    products: Vec<ProductView>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/products", tag = "products",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
        ("q" = Option<String>, Query, description = "part of the name or sku, ignoring case"),
    ),
    responses((status = 200, body = Products), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_products(
    _: MaybeCaller,
    paging: Paging,
    params: Params,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let part: Option<String> = params.optional("q", "a text")?;
    // PostgreSQL's text cannot hold a NUL, so no product contains one.
    let part = part.map(|part| part.replace('\0', "\u{fffd}"));
    let Page { items, next_cursor } = store.products(&paging, part.as_deref()).await?;
    let products = items.into_iter().map(ProductView::from).collect();
    Ok(HttpResponse::Ok().json(Products { products, next_cursor }))
}
