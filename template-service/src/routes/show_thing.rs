//! `GET /api/things/{id}`: one, for its owner and for admins.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::auth::Caller;
use shared::request::{PathId, etag};

use crate::error::Error;
use crate::store::Store;
use crate::views::ThingView;

#[utoipa::path(get, path = "/api/things/{id}", tag = "things", security(("user" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = ThingView), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_thing(
    caller: Caller,
    id: PathId,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let found = store.find(id.0).await?;
    // Somebody else's does not exist.
    if !caller.may_see(found.owner_id) {
        return Err(Error::NotFound);
    }
    Ok(HttpResponse::Ok().insert_header(etag(found.version)).json(ThingView::from(&found)))
}
