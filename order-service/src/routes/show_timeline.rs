//! `GET /api/orders/{id}/timeline`: every change of an order and its cause.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use shared::auth::Caller;
use shared::request::PathId;
use utoipa::ToSchema;

use super::show_order::visible;
use crate::error::Error;
use crate::store::Store;
use crate::views::TimelineEntryView;

#[derive(Serialize, ToSchema)]
pub(crate) struct Timeline {
    /// Oldest first.
    events: Vec<TimelineEntryView>,
}

#[utoipa::path(get, path = "/api/orders/{id}/timeline", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = Timeline), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_timeline(
    caller: Caller,
    id: PathId,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    visible(&store, id, &caller).await?;
    let changes = store.changes_after(id.0, 0).await?;
    let events = changes.into_iter().map(TimelineEntryView::from).collect();
    Ok(HttpResponse::Ok().json(Timeline { events }))
}
