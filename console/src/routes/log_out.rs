//! `DELETE /api/session`: ends the session, here and at user-service. Without a session it changes nothing.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use shared::client::Context;

use super::cookies;
use super::operator::SameOrigin;
use crate::clients::sessions::Sessions;

#[utoipa::path(delete, path = "/api/session", tag = "session", responses((status = 204)))]
pub(crate) async fn log_out(
    _: SameOrigin,
    request: HttpRequest,
    context: Context,
    sessions: Data<Sessions>,
) -> HttpResponse {
    if let Some(key) = cookies::session_key(&request) {
        sessions.log_out(&key, &context).await;
    }
    HttpResponse::NoContent().insert_header(cookies::forget()).finish()
}
