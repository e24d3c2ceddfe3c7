//! `GET /api/products`: what can be ordered.

use actix_web::{HttpResponse, web};
use shared::auth::MaybeCaller;
use shared::request::{Page, Paging, Params};

use crate::error::Error;
use crate::store::Store;
use crate::wire;

#[utoipa::path(get, path = "/api/products", tag = "products",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
        ("q" = Option<String>, Query, description = "part of the name or sku, in any case"),
    ),
    responses((status = 200, body = wire::Products), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_products(
    _: MaybeCaller,
    paging: Paging,
    params: Params,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let part: Option<String> = params.optional("q", "a text")?;
    // PostgreSQL's text cannot hold a NUL, and so no product has one.
    let part = part.map(|part| part.replace('\0', "\u{fffd}"));
    let Page { items, next_cursor } = store.products(&paging, part.as_deref()).await?;
    let products = items.into_iter().map(wire::Product::from).collect();
    Ok(HttpResponse::Ok().json(wire::Products { products, next_cursor }))
}
