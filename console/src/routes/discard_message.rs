//! `DELETE /api/messages/{service}/{id}`: a dead letter is given up for good.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use super::answer;
use super::operator::Operator;
use super::replay_message::known;
use crate::clients::admin::{Admin, encoded};
use crate::clients::overview::Overview;
use crate::error::Error;

#[utoipa::path(delete, path = "/api/messages/{service}/{id}", tag = "messages",
    params(("service" = String, Path), ("id" = uuid::Uuid, Path)),
    responses((status = 204), (status = 403, description = "`recent_login_required`"), (status = 404, description = "`not_found`")))]
pub(crate) async fn discard_message(
    operator: Operator,
    path: Path<(String, String)>,
    admin: Data<Admin>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let (service, id) = path.into_inner();
    known(&admin, &service)?;
    let path = format!("/admin/dead-letters/{}", encoded(&id));
    let answer = admin.delete(&service, &path, &operator.asker).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}
