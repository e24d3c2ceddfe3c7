//! `GET /api/orders/{id}`: one order.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::auth::Caller;
use shared::request::{PathId, etag};

use crate::domain::Order;
use crate::error::Error;
use crate::store::Store;
use crate::views::OrderView;

#[utoipa::path(get, path = "/api/orders/{id}", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = OrderView), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_order(
    caller: Caller,
    id: PathId,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let order = visible(&store, id, &caller).await?;
    Ok(HttpResponse::Ok().insert_header(etag(order.version())).json(OrderView::from(&order)))
}

/// The order, if the caller is its customer or an admin; otherwise 404.
pub(super) async fn visible(store: &Store, id: PathId, caller: &Caller) -> Result<Order, Error> {
    let order = store.order(id.0).await?;
    if caller.may_see(order.customer_id) { Ok(order) } else { Err(Error::NotFound) }
}
