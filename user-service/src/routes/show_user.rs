//! `GET /api/users/{id}`

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use shared::auth::Caller;
use shared::request::etag;

use super::visible_user::visible_user;
use crate::error::Error;
use crate::store::Store;
use crate::views::UserView;

/// Shows one user.
#[utoipa::path(get, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`.")),
    responses((status = 200, body = UserView), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_user(
    caller: Caller,
    id: Path<String>,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let user = store.user(visible_user(&caller, &id, &store).await?).await?;
    Ok(HttpResponse::Ok().insert_header(etag(user.version)).json(UserView::from(&user)))
}
