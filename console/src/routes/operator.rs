//! The admin who sends a request: every endpoint with data takes one. A request that may change something must also
//! come from a page of the console (cross-site request forgery).

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use shared::client::Context;
use shared::same_origin::is_same_origin;

use super::{cookies, hosts};
use crate::clients::admin::Asker;
use crate::clients::sessions::{Person, Sessions};
use crate::error::Error;

/// Extractor: an admin with a session; else 401.
pub(crate) struct Operator {
    pub(super) person: Person,
    pub(super) asker: Asker,
    pub(super) key: String,
}

/// Extractor: the browser says that a page of this origin sent the request; else 403. A request that says nothing is
/// refused too: every browser sends `Origin` with what is no GET.
pub(crate) struct SameOrigin;

impl FromRequest for Operator {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            hosts::check(&request)?;
            let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
            if !is_read && !is_same_origin(request.headers()) {
                return Err(Error::NotSameOrigin);
            }
            let key = cookies::session_key(&request).ok_or(Error::NoSession)?;
            let sessions = request.app_data::<Data<Sessions>>().ok_or(Error::NoSession)?;
            let context = Context::from_headers(request.headers());
            let (person, token) = sessions.find(&key, &context).await?;
            Ok(Self { person, asker: Asker { token, context }, key })
        })
    }
}

impl FromRequest for SameOrigin {
    type Error = Error;
    type Future = std::future::Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(match is_same_origin(request.headers()) {
            true => hosts::check(request).map(|()| Self),
            false => Err(Error::NotSameOrigin),
        })
    }
}
