//! `GET /shop/orders/{id}`: the page of one order. Its script reads the order with the customer's token.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::request::PathId;

use crate::error::Error;
use crate::views::pages::{Pages, Visit};

#[utoipa::path(get, path = "/shop/orders/{id}", tag = "pages", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, content_type = "text/html", body = String), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_order(visit: Visit, id: PathId, pages: Data<Pages>) -> Result<HttpResponse, Error> {
    pages.order(&visit, id.0.to_string())
}
