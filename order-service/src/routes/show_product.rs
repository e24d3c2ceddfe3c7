//! `GET /api/products/{id}`: one product.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::auth::MaybeCaller;
use shared::request::{PathId, etag};

use crate::error::Error;
use crate::store::Store;
use crate::views::ProductView;

#[utoipa::path(get, path = "/api/products/{id}", tag = "products",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = ProductView), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_product(
    _: MaybeCaller,
    id: PathId,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let product = ProductView::from(store.product(id.0).await?);
    Ok(HttpResponse::Ok().insert_header(etag(product.version)).json(product))
}
