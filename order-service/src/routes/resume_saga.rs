//! `POST /admin/sagas/{id}/resume`: a stuck saga tries its step again.

use actix_web::http::StatusCode;
use shared::auth::Admin;
use shared::idempotency::Outcome;

use super::order_command::OrderCommand;
use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;

#[utoipa::path(post, path = "/admin/sagas/{id}/resume")]
pub(crate) async fn resume_saga(command: OrderCommand<Admin>) -> Result<Outcome<Order>, Error> {
    command.apply(Trigger::Resume, StatusCode::OK).await
}
