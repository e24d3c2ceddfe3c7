//! `GET /api/map`: programs, and the traffic between them.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;

use super::operator::Operator;
use crate::clients::overview::Overview;

#[utoipa::path(get, path = "/api/map", tag = "map", responses((status = 200)))]
pub(crate) async fn show_map(operator: Operator, overview: Data<Overview>) -> HttpResponse {
    let map = overview.map(&operator.asker).await;
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(&*map)
}
