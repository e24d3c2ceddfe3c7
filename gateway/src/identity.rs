//! Verifies user tokens at the edge, so that a request with an invalid token never reaches a service.
//!
//! Services verify the token again. Service tokens are not accepted from the public.

use actix_web::HttpRequest;
use shared::auth::{Authenticator, Caller, TokenError, token_of};
use shared::problem::Problem;

pub struct Identity(Authenticator);

impl Identity {
    pub fn new(authenticator: Authenticator) -> Self {
        Self(authenticator)
    }

    /// `None` without an `Authorization` header; 401 for anything but one valid user token.
    pub async fn caller(&self, request: &HttpRequest) -> Result<Option<Caller>, Problem> {
        let Some(token) = token_of(request).map_err(TokenError::problem)? else { return Ok(None) };
        self.0.person(&token).await.map(Some).map_err(TokenError::problem)
    }
}
