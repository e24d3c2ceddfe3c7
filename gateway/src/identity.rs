//! Who asks: tokens are verified here, so that a bad one never reaches a service.
//!
//! Services verify again. A service token is no use here: it is made for one service, not for the
//! public.

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use shared::auth::{Authenticator, Caller, TokenError, bearer};
use shared::problem::Problem;

/// Verifies the tokens of people.
pub struct Identity(Authenticator);

impl Identity {
    /// Verifies with what `authenticator` knows.
    pub fn new(authenticator: Authenticator) -> Self {
        Self(authenticator)
    }

    /// The person behind the request, if it shows a token.
    ///
    /// # Errors
    /// 401 for a token that is not good.
    pub async fn caller(&self, request: &HttpRequest) -> Result<Option<Caller>, Problem> {
        let mut values = request.headers().get_all(AUTHORIZATION);
        let Some(value) = values.next() else { return Ok(None) };
        let token = value.to_str().ok().filter(|_| values.next().is_none());
        let token = token.ok_or(TokenError::Invalid).and_then(bearer).map_err(TokenError::problem)?;
        self.0.person(token).await.map(Some).map_err(TokenError::problem)
    }
}
