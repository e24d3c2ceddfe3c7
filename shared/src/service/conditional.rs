//! Conditional reads (RFC 9110 §13): a client that has the current version of a resource gets 304 without it.

use actix_web::body::BoxBody;
use actix_web::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};

use crate::request::is_known;

/// 304 in place of a 200 whose `ETag` is in `If-None-Match`; else the response.
pub(super) fn unmodified(
    request: &HttpRequest,
    mut response: HttpResponse<BoxBody>,
) -> HttpResponse<BoxBody> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || response.status() != StatusCode::OK || !request.headers().contains_key(IF_NONE_MATCH) {
        return response;
    }
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    if !etag.is_some_and(|etag| is_known(request.headers(), etag)) {
        return response;
    }
    response.headers_mut().remove(CONTENT_TYPE);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.set_body(BoxBody::new(()))
}
