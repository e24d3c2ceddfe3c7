//! The policies of a route. CORS, compression and the limit of the body act around the proxy. A route without any of
//! these three has no [`Policies`], and its requests pay nothing. [`versions`] and [`websocket`] act inside the proxy.

pub mod compression; // negotiates br, zstd or gzip
pub mod cors; // answers preflights, names the allowed origins
pub mod limit; // the longest body
pub mod versions; // shares of the versions of a service, and its canary
pub mod websocket; // which requests may become a WebSocket

use actix_web::{HttpRequest, HttpResponse};

use self::cors::Cors;

/// The policies of one route.
#[derive(Debug)]
pub struct Policies {
    pub cors: Option<Cors>,
    pub compress: bool,
    /// The longest request body, in bytes.
    pub body_limit: Option<u64>,
}

impl Policies {
    /// `None` if the route has none of them.
    pub fn new(cors: Option<Cors>, compress: bool, body_limit_kib: Option<u64>) -> Option<Self> {
        let body_limit = body_limit_kib.map(|kib| kib.saturating_mul(1024));
        (cors.is_some() || compress || body_limit.is_some()).then_some(Self { cors, compress, body_limit })
    }

    pub fn finish(&self, request: &HttpRequest, mut response: HttpResponse) -> HttpResponse {
        if let Some(cors) = &self.cors {
            cors.apply(request, response.headers_mut());
        }
        if self.compress { compression::compress(request, response) } else { response }
    }
}
