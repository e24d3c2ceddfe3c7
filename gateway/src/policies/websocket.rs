//! WebSockets (RFC 6455): which requests ask for one, and which pages may.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderValue, ORIGIN};
use actix_web::http::{Method, StatusCode, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::problem::Problem;
use shared::request::connection_options;
use shared::service::Scheme;

use super::cors::Cors;

/// `[routes.websocket]`: the route passes on WebSockets, over HTTP/1.1.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebSocket {
    /// Seconds without a byte in either direction, after which the gateway closes the WebSocket.
    #[serde(default = "default_idle")]
    #[schemars(range(min = 1))]
    pub idle_s: u64,
    /// Seconds that a WebSocket may last at most. It also ends when the token expires with which it was opened.
    #[serde(default = "default_total")]
    #[schemars(range(min = 1))]
    pub total_s: u64,
}

fn default_idle() -> u64 {
    300
}

fn default_total() -> u64 {
    3600
}

impl WebSocket {
    /// The error is the key that cannot be used, and why.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let keys = [("idle_s", self.idle_s), ("total_s", self.total_s)];
        match keys.into_iter().find(|(_, seconds)| !(1..=604_800).contains(seconds)) {
            Some((key, _)) => Err((key, "must be 1 to 604800, which is a week")),
            None => Ok(()),
        }
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }

    pub fn total(&self) -> Duration {
        Duration::from_secs(self.total_s)
    }
}

/// Whether `request` asks for a WebSocket.
pub fn is_wanted(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let mut protocols = headers.get_all(header::UPGRADE).map(|value| value.as_bytes().trim_ascii());
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        // As the connection and actix read it: a list with other protocols is not passed on.
        && protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// 403 for a page of another origin that the route's CORS does not name, or whose cookies it does not accept. A browser
/// lets every page open a WebSocket to everywhere, with the cookies of the user. Other clients send no `Origin`.
///
/// `scheme` is that of the client. If it is `https`, a page of `http:` is of another origin: everybody on the client's
/// network can write one. A page of `https:` opens only WebSockets with TLS. So if this one has none, a proxy has it that
/// the gateway does not know.
pub fn check_origin(request: &HttpRequest, scheme: Scheme, cors: Option<&Cors>) -> Result<(), Problem> {
    let Some(origin) = request.headers().get(ORIGIN) else { return Ok(()) };
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let origin = origin.as_bytes();
    let of_http = || origin.strip_prefix(b"http://").filter(|_| scheme == Scheme::Http);
    let own = origin.strip_prefix(b"https://").or_else(of_http);
    let is_own = own.is_some_and(|own| own.eq_ignore_ascii_case(host));
    let has_cookies = request.headers().contains_key(header::COOKIE);
    if is_own || cors.is_some_and(|cors| cors.allows(origin) && (cors.credentials || !has_cookies)) {
        return Ok(());
    }
    Err(Problem::of_status(StatusCode::FORBIDDEN))
}
