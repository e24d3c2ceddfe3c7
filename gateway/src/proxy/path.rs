//! Refuses ambiguous requests, because the gateway and a service could read them differently. The connection
//! ([`shared::service`]) has already refused requests whose end is ambiguous.

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode, header};
use shared::problem::Problem;
use shared::request::connection_options;

/// The longest path with query, in bytes.
const MAX_TARGET: usize = 8 * 1024;
const MAX_CONNECTION_OPTIONS: usize = 10;

/// The path of `request`; 400 if the request is ambiguous, 414 if the path is too long.
pub fn checked(request: &HttpRequest) -> Result<&str, Problem> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Err(Problem::of_status(StatusCode::URI_TOO_LONG));
    }
    if request.method() == Method::CONNECT {
        return Err(ambiguous("CONNECT asks for a tunnel, and there is none."));
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
    if is_plain(path) { Ok(path) } else { Err(ambiguous("The path can be read in two ways.")) }
}

/// Whether `Connection` would drop a header that a service or the gateway depends on.
fn connection_names_end_to_end_header(headers: &HeaderMap) -> bool {
    const END_TO_END: [&str; 5] =
        ["host", "authorization", "idempotency-key", "x-request-id", "content-type"];
    connection_options(headers)
        .any(|name| END_TO_END.iter().any(|header| name.eq_ignore_ascii_case(header.as_bytes())))
}

/// Whether the path has no dot segments, no empty segments except the last, and no encoded characters that have a
/// special meaning when decoded.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let Some((b'/', rest)) = bytes.split_first() else { return false };
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, b"." | b"..");
        if is_dots || (segment.is_empty() && segments.peek().is_some()) {
            return false;
        }
    }
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            0..=b' ' | 0x7f | b'\\' => return false,
            b'%' => match bytes.get(at + 1..at + 3) {
                Some(digits) if is_harmless(digits) => at += 2,
                _ => return false,
            },
            _ => {}
        }
        at += 1;
    }
    true
}

/// Whether the two digits after `%` are hexadecimal, and stand for a character that means the same when it is decoded.
/// Letters and digits need no encoding. A service would decode them, but the limits of a route apply to the path as it
/// is written.
fn is_harmless(digits: &[u8]) -> bool {
    let is_hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
    let byte = str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
    is_hexadecimal && byte.is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"-._~/\\%\0".contains(&byte))
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
            "/sessio%6e",
            "/a%7Eb",
            "/a b",
            "/a\u{7f}",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
