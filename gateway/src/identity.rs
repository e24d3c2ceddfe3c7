//! Verifies user tokens at the edge, so that a request with an invalid token never reaches a service.
//!
//! Services verify the token again. Service tokens are not accepted from the public.

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use shared::auth::{Authenticator, Caller, TokenError, bearer};
use shared::problem::Problem;

pub struct Identity(Authenticator);

impl Identity {
    pub fn new(authenticator: Authenticator) -> Self {
        Self(authenticator)
    }

    /// `None` without an `Authorization` header; 401 for anything but one valid user token.
    pub async fn caller(&self, request: &HttpRequest) -> Result<Option<Caller>, Problem> {
        let mut values = request.headers().get_all(AUTHORIZATION);
        let Some(value) = values.next() else { return Ok(None) };
        let token = value.to_str().ok().filter(|_| values.next().is_none());
        let token = token.ok_or(TokenError::Invalid).and_then(bearer).map_err(TokenError::problem)?;
        self.0.person(token).await.map(Some).map_err(TokenError::problem)
    }
}
