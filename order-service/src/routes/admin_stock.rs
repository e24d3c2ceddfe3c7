//! `GET /admin/stock`: where all goods are.

use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;

use crate::error::Error;
use crate::store::Store;

pub(super) async fn list(_: Admin, store: web::Data<Store>) -> Result<HttpResponse, Error> {
    let products = store.stock().await?;
    Ok(HttpResponse::Ok().json(json!({ "products": products })))
}
