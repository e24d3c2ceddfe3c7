//! Tokens that people show.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The audience of user tokens: the public API as a whole.
pub const USER_TOKEN_AUDIENCE: &str = "api";

/// The claims of a user token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserClaims {
    /// The service that issues user tokens.
    pub iss: String,
    /// Always [`USER_TOKEN_AUDIENCE`].
    pub aud: String,
    /// The person's id.
    pub sub: Uuid,
    /// What the person may do: `customer`, `admin`.
    pub roles: Vec<String>,
    /// The session, so that it can be ended.
    pub sid: Uuid,
    /// When the person logged in with a password, in seconds since 1970. A refresh keeps it. 0, which is long
    /// ago, in a token of an older version.
    #[serde(default)]
    pub auth_time: u64,
    /// Issued at, in seconds since 1970.
    pub iat: u64,
    /// Expires at, in seconds since 1970.
    pub exp: u64,
}
