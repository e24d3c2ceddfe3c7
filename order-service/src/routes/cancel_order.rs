//! `POST /api/orders/{id}/cancel`: the customer does not want it any more.

use actix_web::http::StatusCode;
use actix_web::web;
use shared::auth::Caller;
use shared::client::Context;
use shared::idempotency::{Answer, IdempotencyKey};
use shared::request::PathId;

use super::show_order::visible;
use super::taking_on::{Asked, take_on};
use crate::checkout::Event;
use crate::error::Error;
use crate::store::Store;
use crate::wire;

#[utoipa::path(post, path = "/api/orders/{id}/cancel", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 202, body = wire::Order),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`not_cancellable`"),
    ))]
pub(crate) async fn cancel_order(
    caller: Caller,
    id: PathId,
    key: IdempotencyKey,
    context: Context,
    body: web::Bytes,
    store: web::Data<Store>,
) -> Result<Answer, Error> {
    visible(&store, id, &caller).await?;
    take_on(&store, id, Event::Cancel, StatusCode::ACCEPTED, Asked { caller, key, context, body }).await
}
