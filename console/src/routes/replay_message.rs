//! `POST /api/messages/{service}/{id}/replay`: a dead letter is sent or handled once more.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use super::answer;
use super::operator::Operator;
use crate::clients::admin::{Admin, encoded};
use crate::clients::overview::Overview;
use crate::error::Error;

#[utoipa::path(post, path = "/api/messages/{service}/{id}/replay", tag = "messages",
    params(("service" = String, Path), ("id" = uuid::Uuid, Path)),
    responses((status = 204), (status = 403, description = "`recent_login_required`"), (status = 404, description = "`not_found`")))]
pub(crate) async fn replay_message(
    operator: Operator,
    path: Path<(String, String)>,
    admin: Data<Admin>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let (service, id) = path.into_inner();
    known(&admin, &service)?;
    let path = format!("/admin/dead-letters/{}/replay", encoded(&id));
    let answer = admin.post(&service, &path, &operator.asker).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}

/// 404 for a service without messages.
pub(super) fn known(admin: &Admin, service: &str) -> Result<(), Error> {
    if admin.names().any(|name| name == service) { Ok(()) } else { Err(Error::NotFound) }
}
