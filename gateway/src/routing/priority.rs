//! Priority of requests: which ones a busy service refuses first.

use actix_web::HttpRequest;
use actix_web::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MAX_IN_FLIGHT, RouteEntry};

/// A request enters only while its service has more free places than are kept for those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Up to four fifths of the places. The default of a GET of exactly the route's prefix, because it usually is a
    /// list: a list costs most, and is missed least.
    Low,
    /// Up to nine tenths. The default of any other read, which its client can repeat.
    Normal,
    /// All places, and the queue. The default of everything that changes something: it is what the user came for, and
    /// to refuse it late costs the work of the reads before it.
    High,
}

impl Priority {
    pub(super) fn of(request: &HttpRequest, route: &RouteEntry) -> Self {
        let is_list = request.path().len() == route.prefix.len() && route.websocket_for(request).is_none();
        match *request.method() {
            Method::GET | Method::HEAD if is_list => Self::Low,
            Method::GET | Method::HEAD => Self::Normal,
            _ => Self::High,
        }
    }

    /// The free places that it leaves to those above it.
    pub(super) fn reserve(self) -> usize {
        match self {
            Self::Low => MAX_IN_FLIGHT / 5,
            Self::Normal => MAX_IN_FLIGHT / 10,
            Self::High => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_list_gives_way_to_other_reads_and_those_to_everything_else() {
        let route = "id = \"orders\"\nprefix = \"/api/orders\"\nservice = \"order-service\"";
        let route: RouteEntry = toml::from_str(route).unwrap();
        let reserve = |method: Method, path: &str| {
            let request = TestRequest::with_uri(path).method(method).to_http_request();
            Priority::of(&request, &route).reserve()
        };
        let list = reserve(Method::GET, "/api/orders?limit=100");
        let read = reserve(Method::GET, "/api/orders/7");
        assert!(list > read && read > 0);
        for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            assert_eq!(reserve(method, "/api/orders"), 0);
        }
    }
}
