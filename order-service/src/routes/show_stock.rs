//! `GET /admin/stock`: the stock of every product.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;
use shared::auth::Admin;

use crate::error::Error;
use crate::store::Store;
use crate::views::StockView;

#[utoipa::path(get, path = "/admin/stock")]
pub(crate) async fn show_stock(_: Admin, store: Data<Store>) -> Result<HttpResponse, Error> {
    let products: Vec<_> = store.stock().await?.into_iter().map(StockView::from).collect();
    Ok(HttpResponse::Ok().json(json!({ "products": products })))
}
