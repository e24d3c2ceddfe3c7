//! `POST /admin/sagas/{id}/resume`: an admin lets a stuck saga try its step again.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use shared::auth::Admin;
use shared::idempotency::Outcome;

use super::order_command::OrderCommand;
use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;
use crate::store::Store;
use crate::views::OrderView;

#[utoipa::path(post, path = "/admin/sagas/{id}/resume", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses(
        (status = 200, body = OrderView),
        (status = 403, description = "not an admin"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`invalid_transition`"),
    ))]
pub(crate) async fn resume_saga(
    command: OrderCommand<Admin>,
    store: Data<Store>,
) -> Result<Outcome<Order>, Error> {
    command.apply(&store, Trigger::Resume, StatusCode::OK).await
}
