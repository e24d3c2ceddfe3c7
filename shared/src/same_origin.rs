//! Cross-site request forgery: a page of another site must change nothing in the name of its reader.

use actix_web::http::header::{HOST, HeaderMap, ORIGIN};

/// Whether the browser says that a page of this origin sent the request. A request that says nothing is not of this
/// origin: every browser sends `Origin` with what is no GET.
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text(ORIGIN.as_str()).map(|origin| {
        let (_, authority) = origin.split_once("://").unwrap_or_default();
        !authority.is_empty() && Some(authority) == text(HOST.as_str())
    });
    // Browsers send it over HTTPS and to this machine only.
    let site = text("sec-fetch-site").map(|site| site == "same-origin");
    match (site, origin) {
        (None, None) => false,
        (site, origin) => site.unwrap_or(true) && origin.unwrap_or(true),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_a_page_of_this_origin_may_change_something() {
        let good = "http://localhost:3051";
        for (site, origin, expected) in [
            (Some("same-origin"), Some(good), true),
            (Some("same-origin"), None, true),
            (None, Some(good), true),
            (None, None, false),
            (Some("same-site"), Some(good), false),
            // Another port is the same site, but another origin.
            (Some("same-site"), Some("http://localhost:8080"), false),
            (Some("same-origin"), Some("http://localhost:8080"), false),
            (Some("cross-site"), None, false),
            (Some("none"), None, false),
            (None, Some("http://localhost"), false),
            (None, Some("http://evil/localhost:3051"), false),
            (None, Some("null"), false),
            (None, Some(""), false),
        ] {
            let mut request = TestRequest::default().insert_header((HOST, "localhost:3051"));
            if let Some(site) = site {
                request = request.insert_header(("sec-fetch-site", site));
            }
            if let Some(origin) = origin {
                request = request.insert_header((ORIGIN, origin));
            }
            let request = request.to_http_request();
            assert_eq!(is_same_origin(request.headers()), expected, "{site:?} {origin:?}");
        }
    }
}
