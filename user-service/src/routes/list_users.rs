//! `GET /api/users`: all users, for admins.

use actix_web::web::{Data, Json};
use shared::auth::Admin;
use shared::request::Paging;

use crate::error::Error;
use crate::store::Store;
use crate::views::UsersView;

/// Lists all users, newest first.
#[utoipa::path(get, path = "/api/users", tag = "users", security(("user" = [])),
    params(("limit" = Option<u8>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = UsersView), (status = 403, description = "`forbidden`")))]
pub(crate) async fn list_users(
    admin: Admin,
    paging: Paging,
    store: Data<Store>,
) -> Result<Json<UsersView>, Error> {
    store.must_be_active_admin(admin.0.id, admin.0.session).await?;
    Ok(Json(store.users(&paging).await?.into()))
}
