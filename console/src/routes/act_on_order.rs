//! `POST /api/orders/{id}/{action}`: resumes or compensates a stuck saga, or cancels an order.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use super::answer;
use super::operator::Operator;
use crate::clients::admin::{Admin, encoded};
use crate::clients::overview::Overview;
use crate::config::ORDERS;
use crate::error::Error;

#[utoipa::path(post, path = "/api/orders/{id}/{action}", tag = "orders",
    params(("id" = uuid::Uuid, Path), ("action" = String, Path, description = "resume, compensate or cancel")),
    responses((status = 200), (status = 404, description = "`not_found`"),
        (status = 409, description = "`not_cancellable`, `invalid_transition`")))]
pub(crate) async fn act_on_order(
    operator: Operator,
    path: Path<(String, String)>,
    admin: Data<Admin>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let (id, action) = path.into_inner();
    let id = encoded(&id);
    let path = match action.as_str() {
        "resume" | "compensate" => format!("/admin/sagas/{id}/{action}"),
        "cancel" => format!("/api/orders/{id}/cancel"),
        _ => return Err(Error::NotFound),
    };
    let answer = admin.post(ORDERS, &path, &operator.asker).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}
