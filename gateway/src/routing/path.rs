//! Paths that every program reads in the same way, and prefixes that such a path can have.

use actix_web::http::Uri;
use shared::request::is_at_or_below;

/// The gateway answers these paths, and what is below them, itself.
const OWN: [&str; 3] = ["/docs", "/openapi.json", "/health"];

/// Checks that a request can match `prefix`. An error says why none can.
pub(super) fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if !prefix.starts_with('/') || (prefix.ends_with('/') && prefix != "/") {
        return Err("must begin with / and not end with it");
    }
    // A query, for example, is no part of a path.
    let is_path = prefix.parse::<Uri>().is_ok_and(|uri| uri.path() == prefix && uri.query().is_none());
    if !(is_path && is_plain(prefix)) {
        return Err("no request has it: such a path is refused, because it can be read in two ways");
    }
    if OWN.iter().any(|own| is_at_or_below(prefix, own)) {
        return Err("no request reaches it: the gateway answers /docs, /openapi.json and /health itself");
    }
    Ok(())
}

/// Whether the path has no dot segments, no empty segments except the last, and no encoded characters that have a
/// special meaning when decoded.
pub fn is_plain(path: &str) -> bool {
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

    #[test]
    fn a_prefix_that_no_request_can_have_is_refused() {
        for good in ["/", "/api/users", "/.well-known/jwks.json", "/docs-shop", "/healthy", "/a%20b"] {
            assert_eq!(check_prefix(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/a?b",
            "/a#b",
            "/a/../b",
            "/a/./b",
            "/a%2fb",
            "/a b",
            "/docs",
            "/docs/x",
            "/openapi.json",
            "/health",
            "/health/live",
        ] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
