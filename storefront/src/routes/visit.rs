//! The parts of a request that a page needs.

use std::future::{Ready, ready};
use std::time::Instant;

use actix_web::dev::Payload;
use actix_web::http::header::ACCEPT_LANGUAGE;
use actix_web::{FromRequest, HttpRequest};
use shared::client::Context;
use shared::problem::Problem;
use shared::request::Params;

use super::cookies::cookie;
use crate::domain::Language;
use crate::views::pages::{LANGUAGE_COOKIE, Visit};

impl FromRequest for Visit {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Params::from_request(request, payload).into_inner().map(|params| Self::of(request, &params)))
    }
}

impl Visit {
    fn of(request: &HttpRequest, params: &Params) -> Self {
        let asked: Option<String> = params.optional("lang", "a language").unwrap_or_default();
        let chosen = asked.as_deref().and_then(Language::of_tag);
        let kept = || cookie(request, LANGUAGE_COOKIE).as_deref().and_then(Language::of_tag);
        let preferred = || {
            request.headers().get(ACCEPT_LANGUAGE).and_then(|text| Language::preferred(text.to_str().ok()?))
        };
        Self {
            language: chosen.or_else(kept).or_else(preferred).unwrap_or(Language::English),
            chosen: chosen.is_some(),
            address: address(request),
            request_id: Context::from_headers(request.headers()).request_id().unwrap_or_default().to_owned(),
            began: Instant::now(),
        }
    }
}

/// Path and query without `lang`.
fn address(request: &HttpRequest) -> String {
    let query =
        request.query_string().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("lang="));
    let query = query.collect::<Vec<_>>().join("&");
    if query.is_empty() { request.path().to_owned() } else { format!("{}?{query}", request.path()) }
}
