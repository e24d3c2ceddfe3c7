//! `GET /api/products/{id}`: one product.

use actix_web::{HttpResponse, web};
use shared::auth::MaybeCaller;
use shared::request::{PathId, etag};

use crate::error::Error;
use crate::store::Store;
use crate::wire;

#[utoipa::path(get, path = "/api/products/{id}", tag = "products",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = wire::Product), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_product(
    _: MaybeCaller,
    id: PathId,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let product = wire::Product::from(store.product(id.0).await?);
    Ok(HttpResponse::Ok().insert_header(etag(product.version)).json(product))
}
