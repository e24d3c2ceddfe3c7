//! `DELETE /api/users/{id}`: the user can no longer log in; orders and payments still refer to it.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use shared::auth::Caller;
use shared::request::IfMatch;

use super::visible_user::visible_user;
use crate::error::Error;
use crate::store::Store;

/// Deactivates one user.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`."), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 404, description = "`not_found`"), (status = 412, description = "`stale_version`")))]
pub(crate) async fn deactivate_user(
    caller: Caller,
    id: Path<String>,
    if_match: IfMatch,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let id = visible_user(&caller, &id)?;
    let deactivated = store.db().transaction(async |tx| {
        if_match.check(store.lock(tx, id).await?.version)?;
        store.deactivate(tx, id).await
    });
    deactivated.await?;
    Ok(HttpResponse::NoContent().finish())
}
