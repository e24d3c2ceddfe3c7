//! Compresses responses for clients that accept it (RFC 9110 §12.5.3), while they stream.
//!
//! Compresses only a body of a known length above 1 KiB and of a type that shrinks. A body of unknown length may be a
//! stream whose parts must not wait for each other. The encoders are those of actix.

use actix_http::encoding::Encoder;
use actix_web::body::{self, BodySize, BoxBody, MessageBody as _};
use actix_web::http::header::{
    self, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ContentEncoding, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH, VARY,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};

/// The smallest body that is compressed. A shorter response fits one packet anyway.
const MIN_SIZE: u64 = 1024;

/// The response, compressed if the client and the response allow it.
pub fn compress(request: &HttpRequest, mut response: HttpResponse) -> HttpResponse {
    let is_unmodified = response.status() == StatusCode::NOT_MODIFIED;
    if !is_unmodified && !is_compressible(&response) {
        return response;
    }
    let encoding = negotiate(request.headers()).filter(|_| !says_no_transform(request.headers()));
    let encoding = encoding.filter(|_| !is_unmodified);
    // A client with a weak tag has a compressed body. It is unknown whether another one would be compressed, and a weak
    // tag would be of no use in its `If-Match`.
    if encoding.is_some() || (is_unmodified && has_weak_tag(request.headers(), response.headers())) {
        weaken(response.headers_mut());
    }
    let Some(encoding) = encoding else {
        response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
        return response;
    };
    response.headers_mut().remove(header::CONTENT_LENGTH);
    // Ranges count bytes of the body that the service has.
    response.headers_mut().remove(header::ACCEPT_RANGES);
    if request.method() == Method::HEAD {
        // The headers of the GET, whose length is unknown.
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
        return response.set_body(BoxBody::new(body::None::new()));
    }
    let (mut response, body) = response.into_parts();
    // It adds `Content-Encoding` and `Vary`.
    let body = Encoder::response(encoding, response.head_mut(), body);
    response.set_body(BoxBody::new(body))
}

fn is_compressible(response: &HttpResponse) -> bool {
    let headers = response.headers();
    let is_long = matches!(response.body().size(), BodySize::Sized(MIN_SIZE..));
    is_long
        && response.status().is_success()
        && response.status() != StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(CONTENT_ENCODING)
        && !says_no_transform(headers)
        && headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(shrinks)
}

/// Whether bodies of this type are text. Pictures, videos and archives are compressed already.
fn shrinks(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.split_once('/') {
        Some(("text", of)) => of != "event-stream",
        Some(("application", of)) => {
            matches!(of, "json" | "javascript" | "xml" | "wasm" | "yaml")
                || of.ends_with("+json")
                || of.ends_with("+xml")
        }
        Some(("image", of)) => of == "svg+xml",
        _ => false,
    }
}

fn says_no_transform(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

/// Whether `If-None-Match` has the weak form of the response's tag.
fn has_weak_tag(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(tag) = response.get(ETAG).and_then(|tag| tag.to_str().ok()) else { return false };
    let known = request.get_all(IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok());
    known.flat_map(|tags| tags.split(',')).any(|known| known.trim().strip_prefix("W/") == Some(tag))
}

/// A compressed body is not the same bytes as the service's, so its tag is not a strong one any more.
fn weaken(headers: &mut HeaderMap) {
    let weak = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak = weak.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
    if let Some(weak) = weak {
        headers.insert(ETAG, weak);
    }
}

/// The encoding that the client likes best; of equals the one that makes the body smallest. `None` if the client
/// accepts none of them, or likes the body better as it is.
fn negotiate(headers: &HeaderMap) -> Option<ContentEncoding> {
    let ours =
        [("br", ContentEncoding::Brotli), ("zstd", ContentEncoding::Zstd), ("gzip", ContentEncoding::Gzip)];
    let accepted: Vec<(String, f32)> = headers
        .get_all(ACCEPT_ENCODING)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(weighted)
        .collect();
    let quality = |name: &str| {
        let of =
            |name: &str| accepted.iter().find(|(accepted, _)| accepted == name).map(|(_, quality)| *quality);
        of(name).or_else(|| of("*"))
    };
    let mut best = (quality("identity").unwrap_or(0.0), None);
    for (name, encoding) in ours.into_iter().rev() {
        let quality = quality(name).unwrap_or(0.0);
        if quality > 0.0 && quality >= best.0 {
            best = (quality, Some(encoding));
        }
    }
    best.1
}

/// `gzip;q=0.5`; without `q`, 1.
fn weighted(element: &str) -> Option<(String, f32)> {
    let mut parts = element.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let name = if name == "x-gzip" { "gzip".to_owned() } else { name };
    let quality =
        parts.find_map(|parameter| parameter.to_ascii_lowercase().strip_prefix("q=").map(str::parse));
    match quality {
        None => Some((name, 1.0)),
        Some(Ok(quality)) if (0.0..=1.0).contains(&quality) => Some((name, quality)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_client_chooses_by_q_and_of_equals_the_smallest_wins() {
        let chosen = |accept: &str| {
            let request = TestRequest::default().insert_header((ACCEPT_ENCODING, accept)).to_http_request();
            negotiate(request.headers()).map(|encoding| encoding.as_str())
        };
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip, zstd", Some("zstd")),
            ("GZIP", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("br;q=0.5, gzip;q=0.8", Some("gzip")),
            ("br;q=0, *", Some("zstd")),
            ("*;q=0.1", Some("br")),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("gzip;q=0", None),
            ("gzip;q=much", None),
            ("deflate", None),
            ("", None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept}");
        }
        assert_eq!(negotiate(TestRequest::default().to_http_request().headers()), None);
    }

    #[test]
    fn text_shrinks_and_events_and_pictures_do_not() {
        for kind in
            ["application/json", "application/problem+json; charset=utf-8", "text/html", "image/svg+xml"]
        {
            assert!(shrinks(kind), "{kind}");
        }
        for kind in ["text/event-stream", "image/png", "application/zip", "application/octet-stream", ""] {
            assert!(!shrinks(kind), "{kind}");
        }
    }
}
