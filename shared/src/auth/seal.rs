//! A keyed digest, for what is stored and must not be guessed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey};

use super::Secret;
use crate::config::Variable;

/// The key of HMAC-SHA256.
#[derive(Clone)]
pub struct SealKey(EncodingKey);

impl SealKey {
    /// Decodes base64: at least 32 bytes, as many as the digest has (RFC 2104 §3).
    pub fn from_base64(secret: &Secret) -> Result<Self, String> {
        let bytes = STANDARD.decode(secret.expose()).map_err(|_| "the key is not base64".to_owned())?;
        if bytes.len() < 32 {
            return Err("the key has fewer than 32 bytes".to_owned());
        }
        Ok(Self(EncodingKey::from_secret(&bytes)))
    }

    /// The digest of `bytes`, which only a holder of the key can compute.
    pub fn seal(&self, bytes: &[u8]) -> Result<String, String> {
        jsonwebtoken::crypto::sign(bytes, &self.0, Algorithm::HS256).map_err(|error| error.to_string())
    }
}

/// The variable is the path of a file that contains the key.
impl Variable for SealKey {
    fn parse(text: &str) -> Result<Self, String> {
        Self::from_base64(&Secret::parse(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_key_is_refused() {
        assert!(SealKey::from_base64(&Secret::new(STANDARD.encode([0; 16]))).is_err());
    }
}
