//! `POST /api/orders/{id}/deliver`: the parcel has arrived.

use actix_web::http::StatusCode;
use shared::auth::Admin;
use shared::idempotency::Outcome;

use super::order_command::OrderCommand;
use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;
use crate::views::OrderView;

#[utoipa::path(post, path = "/api/orders/{id}/deliver", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = OrderView),
        (status = 403, description = "not an admin"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`invalid_transition`"),
    ))]
pub(crate) async fn deliver_order(command: OrderCommand<Admin>) -> Result<Outcome<Order>, Error> {
    command.apply(Trigger::Deliver, StatusCode::OK).await
}
