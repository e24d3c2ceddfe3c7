//! `DELETE /api/users/{id}`: the user can no longer log in; orders and payments still refer to it.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use shared::auth::Caller;
use shared::request::IfMatch;

use super::admin_change::audited;
use super::visible_user::visible_user;
use crate::domain::{AdminAction, Status};
use crate::error::Error;
use crate::store::Store;

/// Deactivates one user.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`."), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 403, description = "`recent_login_required`"), (status = 404, description = "`not_found`"), (status = 412, description = "`stale_version`")))]
pub(crate) async fn deactivate_user(
    caller: Caller,
    id: Path<String>,
    if_match: IfMatch,
    request: HttpRequest,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let id = visible_user(&caller, &id, &store).await?;
    let audited = audited(&caller, id, AdminAction::Deactivate, &request);
    if audited.is_some() {
        caller.require_recent_login()?;
    }
    let deactivated = store.db().transaction(async |tx| {
        let user = store.lock(tx, id).await?;
        if_match.check(user.version)?;
        if user.status == Status::Deactivated {
            return Ok(());
        }
        if let Some(audited) = &audited {
            store.record(tx, audited).await?;
        }
        store.deactivate(tx, id).await
    });
    deactivated.await?;
    Ok(HttpResponse::NoContent().finish())
}
