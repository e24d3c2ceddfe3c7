//! Cross-site request forgery: a page of another site must not log its reader in or out here.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use shared::same_origin::is_same_origin;

use crate::error::Error;

/// Extractor: the browser says that a page of this origin sent the request; else 403. A request that says nothing is
/// refused too: every browser sends `Origin` with what is no GET.
pub(crate) struct SameOrigin;

impl FromRequest for SameOrigin {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(if is_same_origin(request.headers()) { Ok(Self) } else { Err(Error::NotSameOrigin) })
    }
}
