//! The tokens of a session: a signed access token, verified without asking anybody, and a random refresh
//! token.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use shared::auth::{Reread, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims};
use time::OffsetDateTime;

use crate::config::SERVICE;
use crate::domain::{Session, User};
use crate::error::Error;

/// Signs access tokens with the first key.
pub struct Issuer {
    keys: Arc<Reread<SigningKeys>>,
    ttl: Duration,
}

pub struct Tokens {
    pub access_token: String,
    /// The lifetime of the access token.
    pub ttl: Duration,
    pub refresh_token: String,
}

/// 16 bytes that all tokens of a session share, its family, and 32 bytes of its own. The database keeps only the
/// hashes of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken(String);

const FAMILY_BYTES: usize = 16;
const TOKEN_BYTES: usize = FAMILY_BYTES + 32;

/// 256 random bits, kept with a spent token: both together give the token that took its place. So a lost answer
/// can be repeated, though the database holds no token.
pub struct Salt(String);

impl Issuer {
    /// An issuer whose access tokens live for `ttl`.
    pub fn new(keys: Arc<Reread<SigningKeys>>, ttl: Duration) -> Self {
        Self { keys, ttl }
    }

    pub fn keys(&self) -> Arc<SigningKeys> {
        self.keys.get()
    }

    /// An access token for `user` in `session`, together with the session's `refresh_token`.
    pub fn issue(&self, user: &User, session: Session, refresh_token: RefreshToken) -> Result<Tokens, Error> {
        let seconds = |time: OffsetDateTime| time.unix_timestamp().unsigned_abs();
        let now = seconds(OffsetDateTime::now_utc());
        let claims = UserClaims {
            iss: SERVICE.to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: user.id,
            roles: user.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            sid: session.id,
            auth_time: seconds(session.began_at),
            iat: now,
            exp: (now + self.ttl.as_secs()).min(seconds(session.ends_at())),
        };
        let access_token =
            self.keys.get().sign(&claims).map_err(|error| Error::Signing(error.to_string()))?;
        Ok(Tokens { access_token, ttl: self.ttl, refresh_token: refresh_token.0 })
    }
}

impl RefreshToken {
    /// The first token of a new family.
    pub fn random() -> Self {
        let bits: [u8; TOKEN_BYTES] = rand::random();
        Self(URL_SAFE_NO_PAD.encode(bits))
    }

    pub fn hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.0))
    }

    /// `None` for a token of an older version.
    pub fn family_hash(&self) -> Option<String> {
        self.family().map(|family| URL_SAFE_NO_PAD.encode(Sha256::digest(family)))
    }

    /// The next token of the family; the same for the same `salt`. A token of an older version begins a family.
    pub fn successor(&self, salt: &Salt) -> Self {
        let derived = |what: &str| Sha256::digest([what, " ", &salt.0, " ", &self.0].concat());
        let begun = derived("family");
        let family = self.family().unwrap_or_else(|| begun[..FAMILY_BYTES].to_vec());
        Self(URL_SAFE_NO_PAD.encode([family.as_slice(), &derived("token")].concat()))
    }

    fn family(&self) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).ok().filter(|bytes| bytes.len() == TOKEN_BYTES)?;
        Some(bytes[..FAMILY_BYTES].to_vec())
    }
}

impl Salt {
    pub fn random() -> Self {
        let bits: [u8; 32] = rand::random();
        Self(URL_SAFE_NO_PAD.encode(bits))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Salt {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<String> for RefreshToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_of_the_same_family_and_depends_on_token_and_salt() {
        let (token, salt) = (RefreshToken::random(), Salt::random());
        let next = token.successor(&salt);
        assert_eq!(next, token.successor(&salt));
        assert_eq!(next.family_hash(), token.family_hash());
        assert_ne!(next, token.successor(&Salt::random()));
        assert_ne!(next.hash(), token.hash());
        assert_ne!(RefreshToken::random().family_hash(), token.family_hash());
    }

    #[test]
    fn a_token_of_an_older_version_begins_a_family() {
        let old = RefreshToken::from(URL_SAFE_NO_PAD.encode([7; 32]));
        let salt = Salt::random();
        assert_eq!(old.family_hash(), None);
        let next = old.successor(&salt);
        assert!(next.family_hash().is_some());
        assert_eq!(next.successor(&salt).family_hash(), next.family_hash());
    }
}
