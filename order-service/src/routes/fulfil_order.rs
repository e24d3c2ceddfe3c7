//! `POST /api/orders/{id}/ship` and `/deliver`: the warehouse tells how far the goods are.

use actix_web::http::StatusCode;
use actix_web::web;
use shared::auth::Admin;
use shared::client::Context;
use shared::idempotency::{Answer, IdempotencyKey};
use shared::request::PathId;

use super::taking_on::{Asked, take_on};
use crate::checkout::Event;
use crate::error::Error;
use crate::store::Store;
use crate::wire;

#[utoipa::path(post, path = "/api/orders/{id}/ship", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = wire::Order),
        (status = 403, description = "not an admin"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`invalid_transition`"),
    ))]
pub(crate) async fn ship_order(
    Admin(caller): Admin,
    id: PathId,
    key: IdempotencyKey,
    context: Context,
    body: web::Bytes,
    store: web::Data<Store>,
) -> Result<Answer, Error> {
    take_on(&store, id, Event::Ship, StatusCode::OK, Asked { caller, key, context, body }).await
}

#[utoipa::path(post, path = "/api/orders/{id}/deliver", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = wire::Order),
        (status = 403, description = "not an admin"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`invalid_transition`"),
    ))]
pub(crate) async fn deliver_order(
    Admin(caller): Admin,
    id: PathId,
    key: IdempotencyKey,
    context: Context,
    body: web::Bytes,
    store: web::Data<Store>,
) -> Result<Answer, Error> {
    take_on(&store, id, Event::Deliver, StatusCode::OK, Asked { caller, key, context, body }).await
}
