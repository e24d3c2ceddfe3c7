//! Verifies user tokens at the edge, so that a request with an invalid token never reaches a service.
//!
//! Services verify the token again. Service tokens are not accepted from the public.

use std::sync::Arc;

use actix_web::HttpRequest;
use shared::auth::{Authenticator, Caller, TokenError, token_of};
use shared::problem::Problem;

use crate::access_log::flags;
use crate::oidc::Oidc;

pub struct Identity {
    authenticator: Authenticator,
    oidc: Option<Arc<Oidc>>,
}

impl Identity {
    pub fn new(authenticator: Authenticator, oidc: Option<Arc<Oidc>>) -> Self {
        Self { authenticator, oidc }
    }

    /// `None` without an `Authorization` header; 401 for anything but one valid user token.
    pub async fn caller(&self, request: &HttpRequest) -> Result<Option<Caller>, Problem> {
        let refused = |error: TokenError| error.problem().flagged(flags::UNAUTHORIZED);
        let Some(token) = token_of(request).map_err(refused)? else { return Ok(None) };
        let person = match &self.oidc {
            Some(oidc) if oidc.is_issuer_of(&token) => Box::pin(oidc.person(&token)).await,
            _ => Box::pin(self.authenticator.person(&token)).await,
        };
        person.map(Some).map_err(refused)
    }
}
