//! `GET /api/orders/{id}/timeline`: everything that happened to an order, and why.

use actix_web::{HttpResponse, web};
use shared::auth::Caller;
use shared::request::PathId;

use super::show_order::visible;
use crate::error::Error;
use crate::store::Store;
use crate::wire;

#[utoipa::path(get, path = "/api/orders/{id}/timeline", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = wire::Timeline), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_timeline(
    caller: Caller,
    id: PathId,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    visible(&store, id, &caller).await?;
    let changes = store.changes_after(id.0, 0).await?;
    let events = changes.into_iter().map(wire::Change::from).collect();
    Ok(HttpResponse::Ok().json(wire::Timeline { events }))
}
