//! Service tokens: signed with one key that all services share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Secret, TokenError, token_error, unix_now};
use crate::config::Variable;

/// Lifetime in seconds; enough for one call and its retries.
const LIFETIME: u64 = 60;

/// The shared key of all services.
#[derive(Clone)]
pub struct ServiceKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceClaims {
    /// The calling service.
    pub iss: String,
    /// The service called.
    pub aud: String,
    /// The person on whose behalf it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<Uuid>,
    exp: u64,
}

impl ServiceKey {
    /// Decodes base64. The key must have at least the 32 bytes that HS256 requires (RFC 7518 §3.2).
    pub fn from_base64(secret: &Secret) -> Result<Self, String> {
        let bytes =
            STANDARD.decode(secret.expose()).map_err(|_| "the service token key is not base64".to_owned())?;
        if bytes.len() < 32 {
            return Err("the service token key has fewer than 32 bytes".to_owned());
        }
        Ok(Self { encoding: EncodingKey::from_secret(&bytes), decoding: DecodingKey::from_secret(&bytes) })
    }

    /// A token for calls from `caller` to `callee` within a minute, on behalf of `person` if given.
    pub fn mint(&self, caller: &str, callee: &str, person: Option<Uuid>) -> String {
        let claims = ServiceClaims {
            iss: caller.to_owned(),
            aud: callee.to_owned(),
            sub: person,
            exp: unix_now() + LIFETIME,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).unwrap_or_else(
            |error| {
                log::error!("a service token could not be made: {error}");
                String::new()
            },
        )
    }

    /// HMAC-SHA256 of `bytes`: only services with the key can compute or check it.
    pub fn seal(&self, bytes: &[u8]) -> Result<String, String> {
        jsonwebtoken::crypto::sign(bytes, &self.encoding, Algorithm::HS256).map_err(|error| error.to_string())
    }

    /// Verifies signature, expiry (5 s leeway) and the audience `callee`.
    pub fn verify(&self, token: &str, callee: &str) -> Result<ServiceClaims, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[callee]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.leeway = 5;
        jsonwebtoken::decode(token, &self.decoding, &validation)
            .map(|token| token.claims)
            .map_err(|error| token_error(&error))
    }
}

/// The variable is the path of a file that contains the key.
impl Variable for ServiceKey {
    fn parse(text: &str) -> Result<Self, String> {
        Self::from_base64(&Secret::parse(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ServiceKey {
        ServiceKey::from_base64(&Secret::new(STANDARD.encode([byte; 32]))).unwrap()
    }

    #[test]
    fn a_service_token_is_valid_only_for_its_audience() {
        let person = Uuid::now_v7();
        let token = key(1).mint("a-service", "b-service", Some(person));
        let claims = key(1).verify(&token, "b-service").unwrap();
        assert_eq!((claims.iss.as_str(), claims.sub), ("a-service", Some(person)));
        assert_eq!(key(1).verify(&token, "c-service"), Err(TokenError::Invalid));
        assert_eq!(key(2).verify(&token, "b-service"), Err(TokenError::Invalid));
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(ServiceKey::from_base64(&Secret::new(STANDARD.encode([0; 16]))).is_err());
    }
}
