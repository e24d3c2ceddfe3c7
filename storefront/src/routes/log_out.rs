//! `DELETE /shop/session`: forgets the session. The page's script has ended it with `DELETE /api/sessions/current`.

use actix_web::{HttpRequest, HttpResponse};

use super::cookies;
use super::same_origin::SameOrigin;

#[utoipa::path(delete, path = "/shop/session", tag = "session",
    responses((status = 204), (status = 403, description = "`forbidden`")))]
pub(crate) async fn log_out(_: SameOrigin, request: HttpRequest) -> HttpResponse {
    HttpResponse::NoContent().insert_header(cookies::forget(&request)).finish()
}
