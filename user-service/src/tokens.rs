//! The tokens of a session: a signed access token, verified without asking anybody, and a random refresh
//! token.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use shared::auth::{Reread, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::config::SERVICE;
use crate::domain::User;
use crate::error::Error;

/// Signs access tokens with the first key.
pub struct Issuer {
    keys: Arc<Reread<SigningKeys>>,
    ttl: Duration,
}

pub struct Tokens {
    pub access_token: String,
    /// Of the access token.
    pub ttl: Duration,
    pub refresh_token: String,
}

/// 256 random bits. The database keeps only the hash.
pub struct RefreshToken(String);

impl Issuer {
    /// An issuer whose access tokens live for `ttl`.
    pub fn new(keys: Arc<Reread<SigningKeys>>, ttl: Duration) -> Self {
        Self { keys, ttl }
    }

    pub fn keys(&self) -> Arc<SigningKeys> {
        self.keys.get()
    }

    /// An access token for `user` in `session`, together with the session's `refresh_token`.
    pub fn issue(&self, user: &User, session: Uuid, refresh_token: RefreshToken) -> Result<Tokens, Error> {
        let now = OffsetDateTime::now_utc().unix_timestamp().unsigned_abs();
        let claims = UserClaims {
            iss: SERVICE.to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: user.id,
            roles: user.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            sid: session,
            iat: now,
            exp: now + self.ttl.as_secs(),
        };
        let access_token =
            self.keys.get().sign(&claims).map_err(|error| Error::Signing(error.to_string()))?;
        Ok(Tokens { access_token, ttl: self.ttl, refresh_token: refresh_token.0 })
    }
}

impl RefreshToken {
    pub fn random() -> Self {
        let bits: [u8; 32] = rand::random();
        Self(URL_SAFE_NO_PAD.encode(bits))
    }

    pub fn hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.0))
    }
}

impl From<String> for RefreshToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}
