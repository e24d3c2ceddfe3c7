//! The cookie with the key of a session. No script can read it, and no other site's page makes the browser send it.

use actix_web::HttpRequest;
use actix_web::http::header::{COOKIE, HeaderName, SET_COOKIE};
use cookie::{Cookie, SameSite};

use crate::clients::sessions::LIFE;

const NAME: &str = "console";

pub(super) fn session_key(request: &HttpRequest) -> Option<String> {
    let headers = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(|header| Cookie::split_parse(header.to_owned())).flatten();
    let found = cookies.find(|cookie| cookie.name() == NAME).map(|cookie| cookie.value().to_owned());
    found.filter(|key| !key.is_empty())
}

/// The header that keeps `key`.
pub(super) fn keep(key: &str) -> (HeaderName, String) {
    set(key, cookie::time::Duration::try_from(LIFE).unwrap_or_default())
}

/// The header that removes it.
pub(super) fn forget() -> (HeaderName, String) {
    set("", cookie::time::Duration::ZERO)
}

fn set(key: &str, life: cookie::time::Duration) -> (HeaderName, String) {
    let cookie =
        Cookie::build((NAME, key)).path("/").max_age(life).http_only(true).same_site(SameSite::Strict);
    (SET_COOKIE, cookie.build().to_string())
}
