//! The access level of a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::auth::{Caller, TokenError};
use shared::problem::Problem;

/// A first gate, at the edge. Services decide for themselves what a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everybody; a bad token still gets 401.
    #[default]
    Public,
    /// Everybody with a user token; others get 401.
    User,
    /// Admins; other users get 403.
    Admin,
}

impl Access {
    pub fn check(self, caller: Option<&Caller>) -> Result<(), Problem> {
        match (self, caller) {
            (Self::Public, _) | (Self::User, Some(_)) => Ok(()),
            (Self::User | Self::Admin, None) => Err(TokenError::Missing.problem()),
            (Self::Admin, Some(caller)) if caller.is_admin() => Ok(()),
            (Self::Admin, Some(_)) => Err(TokenError::Forbidden.problem()),
        }
    }
}
