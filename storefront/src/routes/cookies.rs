//! The cookie with the refresh token. No script can read it, no other site's page makes the browser send it, and it
//! goes to the paths below `/shop/session` alone.

use actix_web::HttpRequest;
use actix_web::http::header::{COOKIE, HeaderName, SET_COOKIE};
use cookie::time::Duration;
use cookie::{Cookie, SameSite};

const NAME: &str = "refresh";
const PATH: &str = "/shop/session";
/// The lifetime of the token in user-service.
const LIFE: Duration = Duration::days(30);

/// The value of a cookie of the request.
pub(super) fn cookie(request: &HttpRequest, name: &str) -> Option<String> {
    let headers = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(|header| Cookie::split_parse(header.to_owned())).flatten();
    cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
}

pub(super) fn refresh_token(request: &HttpRequest) -> Option<String> {
    cookie(request, NAME).filter(|token| !token.is_empty())
}

/// The header that keeps `token`.
pub(super) fn keep(token: &str, request: &HttpRequest) -> (HeaderName, String) {
    set(token, LIFE, request)
}

/// The header that removes the token.
pub(super) fn forget(request: &HttpRequest) -> (HeaderName, String) {
    set("", Duration::ZERO, request)
}

fn set(token: &str, life: Duration, request: &HttpRequest) -> (HeaderName, String) {
    let proto = request.headers().get("x-forwarded-proto");
    let is_https = proto.is_some_and(|proto| proto == "https");
    let cookie = Cookie::build((NAME, token))
        .path(PATH)
        .max_age(life)
        .http_only(true)
        .same_site(SameSite::Strict)
        // Browsers refuse such a cookie over plain HTTP.
        .secure(is_https);
    (SET_COOKIE, cookie.build().to_string())
}
