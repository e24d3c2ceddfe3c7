//! Cross-origin requests (the CORS protocol of the Fetch standard). The gateway answers preflights itself, and adds
//! the headers to every response of the route, errors too: without them a page cannot read why it was refused.
//!
//! It tells browsers what pages may read. It keeps no client out.

use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// `[routes.cors]`: pages of other origins may use the route.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// As browsers write them: `https://shop.example`, with a port if it is not the scheme's. `*` is every origin.
    pub origins: Vec<String>,
    /// Methods beside GET, HEAD and POST, which need no permission.
    #[serde(default = "default_methods")]
    pub methods: Vec<String>,
    /// Request headers that pages may set.
    #[serde(default = "default_headers")]
    pub headers: Vec<String>,
    /// Response headers that pages may read.
    #[serde(default = "default_exposed")]
    pub expose: Vec<String>,
    /// Whether pages may use cookies and client certificates of the user. Not with the origin `*`.
    #[serde(default)]
    pub credentials: bool,
    /// Seconds for which a browser may keep the answer to a preflight.
    #[serde(default = "default_max_age")]
    pub max_age_s: u32,
}

fn default_methods() -> Vec<String> {
    ["PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec()
}

fn default_headers() -> Vec<String> {
    let names = [
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "prefer",
    ];
    names.map(str::to_owned).to_vec()
}

fn default_exposed() -> Vec<String> {
    let names = ["etag", "link", "location", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"];
    names.map(str::to_owned).to_vec()
}

fn default_max_age() -> u32 {
    600
}

const ANY: &str = "*";

impl Cors {
    /// The error is the key that cannot be used, and why.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let any = self.origins.iter().any(|origin| origin == ANY);
        if any && self.credentials {
            return Err((
                "credentials",
                "every origin (*) would act for the user: name the origins".to_owned(),
            ));
        }
        if any && self.origins.len() > 1 {
            return Err(("origins", "* is every origin, so it stands alone".to_owned()));
        }
        if self.origins.is_empty() {
            return Err(("origins", "must not be empty".to_owned()));
        }
        if let Some(origin) = self.origins.iter().find(|origin| *origin != ANY && !is_origin(origin)) {
            return Err(("origins", format!("{origin:?} is no origin: write https://host, and no path")));
        }
        if let Some(method) =
            self.methods.iter().find(|method| Method::from_bytes(method.as_bytes()).is_err())
        {
            return Err(("methods", format!("{method:?} is no method")));
        }
        for (key, names) in [("headers", &self.headers), ("expose", &self.expose)] {
            // `*` would not cover Authorization.
            let bad = names.iter().find(|name| *name == ANY || name.parse::<HeaderName>().is_err());
            if let Some(bad) = bad {
                return Err((key, format!("{bad:?} is no name of a header")));
            }
        }
        Ok(())
    }

    /// The answer to a preflight; `None` for any other request. An origin or method that is not allowed gets one
    /// without the permission, and the browser sends no request.
    pub fn preflight(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)?;
        if request.method() != Method::OPTIONS || !request.headers().contains_key(ORIGIN) {
            return None;
        }
        let mut response = HttpResponse::NoContent().finish();
        let headers = response.headers_mut();
        self.apply(request, headers);
        let simple = ["GET", "HEAD", "POST"];
        let mut methods = simple.into_iter().chain(self.methods.iter().map(String::as_str));
        if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
            && methods.any(|method| method.as_bytes() == wanted.as_bytes())
        {
            let methods = [simple.join(", "), self.methods.join(", ")].join(", ");
            set(headers, ACCESS_CONTROL_ALLOW_METHODS, methods.trim_end_matches(", "));
            set(headers, ACCESS_CONTROL_ALLOW_HEADERS, &self.headers.join(", "));
            set(headers, ACCESS_CONTROL_MAX_AGE, &self.max_age_s.to_string());
        } else {
            headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        }
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        for name in ["access-control-request-method", "access-control-request-headers"] {
            headers.append(VARY, HeaderValue::from_static(name));
        }
        Some(response)
    }

    /// Whether pages of `origin` may use the route.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| allowed == ANY || allowed.as_bytes() == origin)
    }

    /// Adds the headers of the route to a response, in place of those of the service.
    pub fn apply(&self, request: &HttpRequest, headers: &mut HeaderMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            ACCESS_CONTROL_MAX_AGE,
        ] {
            headers.remove(name);
        }
        let origin = request.headers().get(ORIGIN);
        if self.origins == [ANY] {
            if origin.is_some() {
                set(headers, ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
                set(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose.join(", "));
            }
            return;
        }
        // Also without an origin: a cache must not give this response to a page of another one.
        headers.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = origin.and_then(|origin| origin.to_str().ok()) else { return };
        if self.origins.iter().any(|allowed| allowed == origin) {
            set(headers, ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            set(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose.join(", "));
            if self.credentials {
                set(headers, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
            }
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Some(value) = header::HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
        headers.insert(name, value);
    }
}

/// Whether a browser could send it as `Origin`: scheme, host and port, without the port of the scheme.
fn is_origin(text: &str) -> bool {
    let origin = Url::parse(text).map(|url| url.origin());
    origin.is_ok_and(|origin| origin.is_tuple() && origin.ascii_serialization() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        for good in ["https://shop.example", "http://localhost:3000", "https://xn--mnchen-3ya.example"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["https://shop.example/", "https://shop.example:443", "shop.example", "null", "HTTPS://a", ""]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
