//! Authentication with two kinds of bearer token. The `typ` in the header distinguishes them, and neither is
//! ever verified with the other's keys. Both are signed with Ed25519:
//!
//! | token | issued by | claims |
//! |---|---|---|
//! | user token | the service that owns the accounts | person `sub` with `roles` |
//! | service token | each service, with its own key | service `iss` calls service `aud`, on behalf of person `sub` if present |
//!
//! Handlers extract a [`Caller`] (a person, or a service on behalf of one), an [`Admin`] or a
//! [`ServiceCaller`]. A request with the wrong token gets 401 or 403 before the handler runs. A service's
//! request must have a row in the table [`Calls`].

pub mod caller;
pub mod calls;
pub mod keys;
pub mod reread;
pub mod seal;
pub mod service_token;
pub mod user_token;
mod verified;

use actix_web::http::StatusCode;

pub use crate::config::Secret;
use crate::problem::{Problem, codes};
pub use caller::{Admin, Authenticator, Caller, MaybeCaller, ServiceCaller, token_of};
pub use calls::Calls;
pub use keys::{KeySet, SigningKeys};
pub use reread::{FromPath, Reread};
pub use seal::SealKey;
pub use service_token::{PublicKeys, ServiceClaims, ServiceKeys};
pub use user_token::{USER_TOKEN_AUDIENCE, UserClaims};

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The header `Authorization: Bearer` is missing.
    #[error("This needs a bearer token.")]
    Missing,
    /// Malformed, with a bad signature, or for another audience.
    #[error("The token is not valid.")]
    Invalid,
    #[error("The token has expired.")]
    Expired,
    /// The table of calls has no row for it.
    #[error("This is not yours to do.")]
    Forbidden,
    /// The issuer's keys have not been fetched yet.
    #[error("Tokens cannot be checked right now.")]
    KeysUnavailable,
}

impl TokenError {
    /// 401, 403, or 503 with `Retry-After` while there are no keys.
    pub fn problem(self) -> Problem {
        let code = match self {
            Self::Missing => codes::MISSING_TOKEN,
            Self::Invalid => codes::INVALID_TOKEN,
            Self::Expired => codes::EXPIRED_TOKEN,
            Self::Forbidden => return Problem::of_status(StatusCode::FORBIDDEN),
            Self::KeysUnavailable => return Problem::unavailable(1),
        };
        Problem::unauthorized(code, &self.to_string())
    }
}

/// The token in the value of an `Authorization` header; [`TokenError::Invalid`] for any scheme but `Bearer`.
pub fn bearer(header: &str) -> Result<&str, TokenError> {
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(token.trim())
        }
        _ => Err(TokenError::Invalid),
    }
}

pub(crate) fn token_error(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        jsonwebtoken::errors::ErrorKind::ExpiredSignature => TokenError::Expired,
        _ => TokenError::Invalid,
    }
}

fn unix_now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}
