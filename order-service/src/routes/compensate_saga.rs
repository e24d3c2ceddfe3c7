//! `POST /admin/sagas/{id}/compensate`: a saga undoes its order.

use actix_web::http::StatusCode;
use shared::auth::Admin;
use shared::idempotency::Outcome;

use super::order_command::OrderCommand;
use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;

#[utoipa::path(post, path = "/admin/sagas/{id}/compensate")]
pub(crate) async fn compensate_saga(command: OrderCommand<Admin>) -> Result<Outcome<Order>, Error> {
    command.apply(Trigger::Compensate, StatusCode::OK).await
}
