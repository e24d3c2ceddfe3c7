//! A service's response, passed on to the page: status, content type and body.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde_json::Value;
use shared::http::Response;

pub(super) fn passed(answer: &Response) -> HttpResponse {
    let mut response = HttpResponse::build(answer.status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    for name in [CONTENT_TYPE, RETRY_AFTER] {
        if let Some(value) = answer.headers.get(&name) {
            response.insert_header((name, value.clone()));
        }
    }
    response.body(answer.body.clone())
}

/// Data that no cache keeps.
pub(super) fn json(data: Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(data)
}
