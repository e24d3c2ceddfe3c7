//! The responses that this cache stores: a subset of those that a shared cache may store (RFC 9111 §3).

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{
    self, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderName, PRAGMA, RANGE,
    SET_COOKIE, VARY,
};
use actix_web::http::{Method, StatusCode};
use shared::request::{connection_options, has_body};

use crate::address;
use crate::engine::Response;
use crate::routing::{Route, Table};

/// The names in `Vary`, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vary(Vec<HeaderName>);

/// How long a response is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The remaining lifetime.
    pub lifetime: Duration,
    /// How long the response was stored elsewhere before (`Age`).
    pub age: Duration,
    pub vary: Vary,
}

impl Vary {
    /// `None` if a name cannot be read, or is `*`.
    pub fn of(list: &str) -> Option<Self> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let parse = |name: &str| name.parse().ok().filter(|_| name != "*");
        let mut names = names.map(parse).collect::<Option<Vec<HeaderName>>>()?;
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        Some(Self(names))
    }

    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }

    /// The values of these headers in a request, so that no two different ones are equal.
    pub fn values(&self, request: &HeaderMap) -> Vec<u8> {
        let mut values = Vec::new();
        for name in &self.0 {
            for value in request.get_all(name) {
                values.extend_from_slice(value.as_bytes());
                // No value has a line end.
                values.push(b'\r');
            }
            values.push(b'\n');
        }
        values
    }
}

/// The key of a request's URL on its route. The scheme and the host are those of `X-Forwarded-Proto` and
/// `X-Forwarded-Host` in the request to the service.
pub fn key(request: &HttpRequest, route: &Route, table: &Table) -> String {
    let host = address::host(request).unwrap_or_default().to_ascii_lowercase();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let scheme = address::scheme(request, table).as_str();
    [route.entry.service.as_str(), " ", scheme, "://", &host, target].concat()
}

/// Whether `request` may get a stored response, and its response may be stored. Not if it has a body, or if
/// `Connection` names a header: the service does not get that header, but the key of the cache may contain it.
pub fn is_shareable(request: &HttpRequest) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && !has_body(request)
        && connection_options(headers)
            .all(|one| one.eq_ignore_ascii_case(b"close") || one.eq_ignore_ascii_case(b"keep-alive"))
        && ![AUTHORIZATION, RANGE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE]
            .iter()
            .any(|name| headers.contains_key(name))
        && !has(headers, PRAGMA, &["no-cache"])
        && !has(headers, CACHE_CONTROL, &["no-cache", "no-store", "max-age=0"])
}

/// Whether the response to `request` may be a 304, which is of no use to others.
pub fn is_conditional(request: &HttpRequest) -> bool {
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE].iter().any(|name| request.headers().contains_key(name))
}

/// Whether a request may change the resource of its URL.
pub fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn has(headers: &HeaderMap, name: HeaderName, directives: &[&str]) -> bool {
    let values = headers.get_all(name).filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|one| directives.iter().any(|directive| one.trim().eq_ignore_ascii_case(directive)))
}

/// How long a response may be given to everybody; `None` if it may not. `max` is the longest body, in bytes.
pub fn kept(answer: &Response, max: u64) -> Option<Kept> {
    let text = |name: HeaderName| {
        let values = answer.headers.all(name.as_str());
        let values: Option<Vec<&str>> = values.map(|value| str::from_utf8(value).ok()).collect();
        values.map(|values| values.join(","))
    };
    let length = answer.headers.get(CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
    if answer.status != StatusCode::OK
        || length.is_none_or(|length| length > max)
        || answer.headers.all(SET_COOKIE.as_str()).next().is_some()
    {
        return None;
    }
    let vary = Vary::of(&text(VARY)?)?;
    let lifetime = lifetime(&text(CACHE_CONTROL)?)?;
    let age = match answer.headers.get(AGE.as_str()) {
        Some(age) => Duration::from_secs(age.trim().parse().ok()?),
        None => Duration::ZERO,
    };
    let left = lifetime.checked_sub(age).filter(|left| !left.is_zero())?;
    Some(Kept { lifetime: left, age, vary })
}

/// The lifetime that `Cache-Control` gives to a shared cache. Without one, nothing is guessed.
fn lifetime(control: &str) -> Option<Duration> {
    let (mut max_age, mut shared_max_age) = (None, None);
    for directive in control.split(',').map(|directive| directive.trim().to_ascii_lowercase()) {
        let (name, value) = directive.split_once('=').unwrap_or((&directive, ""));
        // A value that cannot be read is 0, which is not stored. Two different ones are as bad.
        let seconds = || value.trim_matches('"').parse::<u32>().unwrap_or(0);
        match name.trim() {
            "no-store" | "private" | "no-cache" => return None,
            "max-age" => max_age = Some(max_age.map_or_else(seconds, |age: u32| age.min(seconds()))),
            "s-maxage" => {
                shared_max_age = Some(shared_max_age.map_or_else(seconds, |age: u32| age.min(seconds())));
            }
            _ => {}
        }
    }
    let seconds = shared_max_age.or(max_age).filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_an_explicit_lifetime_for_shared_caches_counts() {
        for (control, seconds) in [
            ("max-age=5", Some(5)),
            ("public, Max-Age=5", Some(5)),
            ("max-age=5, s-maxage=60", Some(60)),
            ("s-maxage=\"60\", max-age=5", Some(60)),
            ("max-age=60, max-age=5", Some(5)),
            ("max-age=5, must-revalidate", Some(5)),
            ("max-age=0", None),
            ("s-maxage=0, max-age=60", None),
            ("max-age=5, private", None),
            ("private=\"set-cookie\", max-age=5", None),
            ("max-age=5, no-store", None),
            ("max-age=5, No-Cache", None),
            ("max-age=soon", None),
            ("max-age=-1", None),
            ("public", None),
            ("", None),
        ] {
            assert_eq!(lifetime(control), seconds.map(Duration::from_secs), "{control}");
        }
    }

    #[test]
    fn a_request_with_a_token_a_range_a_body_or_for_a_fresh_answer_is_its_own() {
        let shareable = |name: &str, value: &str| {
            is_shareable(&TestRequest::get().insert_header((name, value)).to_http_request())
        };
        assert!(shareable("accept", "*/*") && shareable("cache-control", "max-age=60"));
        assert!(shareable("connection", "close, Keep-Alive") && shareable("content-length", "0"));
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("range", "bytes=0-1"),
            ("cache-control", "no-cache"),
            ("cache-control", "x, No-Store"),
            ("cache-control", "max-age=0"),
            ("pragma", "no-cache"),
            ("connection", "accept-language"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
        ] {
            assert!(!shareable(name, value), "{name}: {value}");
        }
        assert!(!is_shareable(&TestRequest::post().to_http_request()));
    }

    #[test]
    fn values_of_headers_that_differ_are_never_equal() {
        let values = |headers: &[(&str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name.parse().unwrap(), value.parse().unwrap());
            }
            Vary::of("a, B").unwrap().values(&map)
        };
        let different = [
            values(&[]),
            values(&[("a", "1")]),
            values(&[("b", "1")]),
            values(&[("a", "1"), ("b", "1")]),
            values(&[("a", "")]),
            values(&[("a", "1"), ("a", "1")]),
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(different[at + 1..].iter().all(|other| one != other), "{at}");
        }
        assert_eq!(Vary::of("b, A ,a"), Vary::of("A,B"));
        assert_eq!(Vary::of(""), Some(Vary::default()));
        assert!(["*", "a, *", "a b", "a, é"].iter().all(|bad| Vary::of(bad).is_none()));
    }
}
