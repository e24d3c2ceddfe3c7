//! The parts of a response with tokens that the browser gets: the access token for its script, which keeps it in
//! memory, and the refresh token as a cookie, which no script can read.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use shared::http::Response;
use utoipa::ToSchema;

use super::cookies;
use crate::error::Error;

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    expires_in: u64,
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AccessToken {
    access_token: String,
    /// Seconds.
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
}

/// Whether user-service will never again accept the refresh token. `invalid_token` does not say so: the token of this
/// program may be meant.
fn is_spent(answer: &Response) -> bool {
    answer.json::<Refusal>().is_ok_and(|refusal| refusal.code == "token_reused")
}

pub(super) fn respond(request: &HttpRequest, answer: &Response) -> Result<HttpResponse, Error> {
    let mut response = HttpResponse::build(answer.status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    if !answer.status.is_success() {
        if is_spent(answer) {
            response.insert_header(cookies::forget(request));
        }
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = answer.headers.get(&name) {
                response.insert_header((name, value.clone()));
            }
        }
        return Ok(response.body(answer.body.clone()));
    }
    let Tokens { access_token, expires_in, refresh_token } = answer.json()?;
    Ok(response
        .insert_header(cookies::keep(&refresh_token, request))
        .json(AccessToken { access_token, expires_in }))
}
