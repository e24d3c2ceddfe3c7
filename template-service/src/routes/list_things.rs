//! `GET /api/things`: the caller's own; for an admin, all.

use actix_web::web::{Data, Json};
use shared::auth::Caller;
use shared::request::Paging;

use crate::error::Error;
use crate::store::Store;
use crate::views::ThingsView;

/// Newest first.
#[utoipa::path(get, path = "/api/things", tag = "things", security(("user" = [])),
    params(("limit" = Option<u8>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ThingsView), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_things(
    caller: Caller,
    paging: Paging,
    store: Data<Store>,
) -> Result<Json<ThingsView>, Error> {
    let owner = if caller.is_admin() { None } else { Some(caller.id) };
    Ok(Json(store.list(&paging, owner).await?.into()))
}
