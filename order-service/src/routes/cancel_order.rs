//! `POST /api/orders/{id}/cancel`: undoes an order.

use actix_web::http::StatusCode;
use shared::auth::Caller;
use shared::idempotency::Outcome;

use super::order_command::OrderCommand;
use super::show_order::visible;
use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;
use crate::views::OrderView;

#[utoipa::path(post, path = "/api/orders/{id}/cancel", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 202, body = OrderView),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`not_cancellable`"),
    ))]
pub(crate) async fn cancel_order(command: OrderCommand<Caller>) -> Result<Outcome<Order>, Error> {
    visible(&command.store, command.id, &command.by).await?;
    command.apply(Trigger::Cancel, StatusCode::ACCEPTED).await
}
