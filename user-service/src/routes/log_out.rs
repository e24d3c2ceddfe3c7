//! `DELETE /api/sessions/current`

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::auth::Caller;

use crate::error::Error;
use crate::store::Store;

/// Ends the session that the access token belongs to.
#[utoipa::path(delete, path = "/api/sessions/current", tag = "sessions", security(("user" = [])),
    responses((status = 204), (status = 401, description = "`missing_token`")))]
pub(crate) async fn log_out(caller: Caller, store: Data<Store>) -> Result<HttpResponse, Error> {
    let session = caller.session.ok_or(Error::NotFound)?;
    store.db().transaction(async |tx| store.end_session(tx, session).await).await?;
    Ok(HttpResponse::NoContent().finish())
}
