//! `GET /shop/orders`: the page with a customer's orders. Its script reads them with the customer's token.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::error::Error;
use crate::views::pages::{Pages, Visit};

#[utoipa::path(get, path = "/shop/orders", tag = "pages",
    responses((status = 200, content_type = "text/html", body = String)))]
pub(crate) async fn list_orders(visit: Visit, pages: Data<Pages>) -> Result<HttpResponse, Error> {
    pages.orders(&visit)
}
