//! `GET /shop/pictures/{sku}`: the picture of a product.

use actix_web::HttpResponse;
use actix_web::web::Path;

use crate::domain::picture;
use crate::views::assets::{Asset, SVG};

#[utoipa::path(get, path = "/shop/pictures/{sku}", tag = "files", params(("sku" = String, Path)),
    responses((status = 200, content_type = "image/svg+xml", body = String)))]
pub(crate) async fn show_picture(sku: Path<String>) -> HttpResponse {
    Asset::new(SVG, picture(&sku).into()).response()
}
