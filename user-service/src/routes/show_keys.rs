//! `GET /.well-known/jwks.json` (RFC 7517)

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;

use crate::tokens::Issuer;

/// The keys that access tokens are verified with (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "sessions", responses((status = 200, description = "A JSON Web Key Set.")))]
pub(crate) async fn show_keys(issuer: Data<Issuer>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "public, max-age=60")).json(issuer.keys().jwks())
}
