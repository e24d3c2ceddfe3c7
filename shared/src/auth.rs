//! Who is calling.
//!
//! Two kinds of bearer token, told apart by their algorithm and never verified with each other's key:
//!
//! | token | algorithm | made by | says |
//! |---|---|---|---|
//! | user token | EdDSA | the service that owns the accounts | this is person `sub`, with these `roles` |
//! | service token | HS256 | any service of the stack | this is service `iss`, calling `aud`, for person `sub` if any |
//!
//! Handlers ask for a [`Caller`] (a person, or a service acting for one), an [`Admin`] or a
//! [`ServiceCaller`]; who sends the wrong token never reaches the handler.

pub mod caller;
pub mod keys;
pub mod service_token;
pub mod user_token;

pub use crate::config::Secret;
pub use caller::{Admin, Authenticator, Caller, MaybeCaller, ServiceCaller};
pub use keys::{KeySet, SigningKeys};
pub use service_token::{ServiceClaims, ServiceKey};
pub use user_token::{USER_TOKEN_AUDIENCE, UserClaims};

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `Authorization: Bearer` header.
    #[error("This needs a bearer token.")]
    Missing,
    /// Malformed, wrongly signed, or made for somebody else.
    #[error("The token is not valid.")]
    Invalid,
    /// It was valid once.
    #[error("The token has expired.")]
    Expired,
    /// The keys to check it with could not be had yet.
    #[error("Tokens cannot be checked right now.")]
    KeysUnavailable,
}

impl TokenError {
    /// How a client sees it: 401, or 503 while the keys are away.
    pub fn problem(self) -> crate::problem::Problem {
        let code = match self {
            Self::Missing => "missing_token",
            Self::Invalid => "invalid_token",
            Self::Expired => "expired_token",
            Self::KeysUnavailable => return crate::problem::Problem::unavailable(1),
        };
        crate::problem::Problem::unauthorized(code, &self.to_string())
    }
}

/// The token of an `Authorization` header's value.
///
/// # Errors
/// [`TokenError::Invalid`] if it is of another scheme.
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
