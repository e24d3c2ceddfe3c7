//! Refuses ambiguous requests: the gateway and a service must not understand them differently. The connection
//! ([`shared::service`]) has refused those whose end is ambiguous.

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use actix_web::http::{StatusCode, header};
use shared::problem::Problem;

/// The longest path with query, in bytes.
const MAX_TARGET: usize = 8 * 1024;
const MAX_CONNECTION_OPTIONS: usize = 10;

/// The path of `request`; 400 if the request is ambiguous, 414 if the path is too long.
pub fn checked(request: &HttpRequest) -> Result<String, Problem> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Err(Problem::of_status(StatusCode::URI_TOO_LONG));
    }
    let headers = request.headers();
    if connection_names_end_to_end_header(headers) {
        return Err(ambiguous("Connection names a header that is not of this connection."));
    }
    if connection_options(headers).count() > MAX_CONNECTION_OPTIONS {
        return Err(ambiguous("Connection names too many headers."));
    }
    // Some frameworks read `x_user` and `x-user` as the same header.
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(ambiguous("The name of a header has an underscore."));
    }
    if let (Some(authority), Some(host)) = (uri.authority(), headers.get(header::HOST))
        && !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(ambiguous("The address and the Host header differ."));
    }
    let path = uri.path();
    if is_plain(path) { Ok(path.to_owned()) } else { Err(ambiguous("The path can be read in two ways.")) }
}

/// Whether `Connection` would drop a header that a service or the gateway depends on.
fn connection_names_end_to_end_header(headers: &HeaderMap) -> bool {
    const END_TO_END: [&str; 5] =
        ["host", "authorization", "idempotency-key", "x-request-id", "content-type"];
    connection_options(headers)
        .any(|name| END_TO_END.iter().any(|header| name.trim().eq_ignore_ascii_case(header)))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(','))
}

/// No dot segments, no empty segments, and no encoded characters that have a meaning when decoded.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2f", "%5c", "%2e", "%00", "%25", "\\", "//"];
    let control = path.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    path.starts_with('/')
        && !control
        && !hidden.iter().any(|part| lower.contains(part))
        && !path.split('/').any(|segment| segment == "." || segment == "..")
        && well_encoded(path)
}

fn well_encoded(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

fn ambiguous(detail: &str) -> Problem {
    Problem::malformed(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambiguous_path_is_refused() {
        for good in ["/", "/api/users/7", "/api/a%20b", "/api/users/", "/a.b/c..d"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "api",
            "/a/../b",
            "/a/./b",
            "/..",
            "//a",
            "/a//b",
            "/a%2fb",
            "/a%2Fb",
            "/%2e%2e/a",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/a%252f",
            "/a%",
            "/a%zz",
            "/a b",
            "/a\u{7f}",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
