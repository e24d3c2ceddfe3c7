//! `POST /shop/session/refresh`: a new access token for the session in the cookie.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use shared::client::Context;

use super::cookies;
use super::same_origin::SameOrigin;
use super::tokens::{self, AccessToken};
use crate::clients::sessions::Sessions;
use crate::error::Error;

/// 204 if nobody is logged in.
#[utoipa::path(post, path = "/shop/session/refresh", tag = "session",
    responses((status = 200, body = AccessToken), (status = 204), (status = 401, description = "`token_reused`, `invalid_token`"),
        (status = 403, description = "`forbidden`")))]
pub(crate) async fn refresh_session(
    _: SameOrigin,
    request: HttpRequest,
    context: Context,
    sessions: Data<Sessions>,
) -> Result<HttpResponse, Error> {
    let Some(token) = cookies::refresh_token(&request) else { return Ok(HttpResponse::NoContent().finish()) };
    let answer = sessions.refresh(&token, &context).await?;
    tokens::respond(&request, &answer)
}
