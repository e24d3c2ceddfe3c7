//! Private keys that sign tokens, and everybody else's copy of the public keys behind user tokens.
//!
//! Rotation: the owner's file holds several private keys. The first signs, all are published, so tokens
//! signed by yesterday's key stay good until that key is taken out of the file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use tokio::sync::Notify;

pub use jsonwebtoken::jwk::JwkSet as Jwks;

use super::verified::Verified;
use super::{FromPath, Secret, TokenError, USER_TOKEN_AUDIENCE, UserClaims, token_error};

/// The private keys of one owner.
#[derive(Clone)]
pub struct SigningKeys {
    signer: EncodingKey,
    kid: String,
    jwks: Jwks,
}

impl SigningKeys {
    /// Keys from one or more PKCS#8 PEM blocks, the signing one first.
    ///
    /// # Errors
    /// When there is none, or one is not an Ed25519 private key.
    pub fn from_pem(pem: &Secret) -> Result<Self, String> {
        let blocks = blocks(pem.expose());
        let first = blocks.first().ok_or("the file holds no PEM private key")?;
        let signer = EncodingKey::from_ed_pem(first.as_bytes()).map_err(|_| NOT_ED25519)?;
        let keys = blocks.iter().map(|block| public_key(block)).collect::<Result<Vec<_>, _>>()?;
        let kid = keys[0].common.key_id.clone().unwrap_or_default();
        Ok(Self { signer, kid, jwks: Jwks { keys } })
    }

    /// `claims` as a signed token.
    ///
    /// # Errors
    /// When signing fails, which a loaded key does not.
    pub fn sign(&self, claims: &UserClaims) -> Result<String, jsonwebtoken::errors::Error> {
        self.sign_as("JWT", claims)
    }

    pub(super) fn sign_as(
        &self,
        kind: &str,
        claims: &impl Serialize,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header::new(Algorithm::EdDSA);
        let header = Header { typ: Some(kind.to_owned()), kid: Some(self.kid.clone()), ..header };
        jsonwebtoken::encode(&header, claims, &self.signer)
    }

    /// The public halves, to publish.
    pub fn jwks(&self) -> &Jwks {
        &self.jwks
    }
}

impl FromPath for SigningKeys {
    fn from_path(file: &Path) -> Result<Self, String> {
        Self::from_pem(&Secret::new(std::fs::read_to_string(file).map_err(|why| why.to_string())?))
    }
}

const NOT_ED25519: &str = "the file holds a key that is not Ed25519 (PKCS#8 PEM)";

/// The PEM blocks in `text`.
pub(super) fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut().filter(|_| !line.is_empty()) {
            *block += line;
            *block += "\n";
        }
    }
    blocks
}

/// The public half of a private key.
fn public_key(pem: &str) -> Result<Jwk, String> {
    let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map_err(|_| NOT_ED25519)?;
    let mut jwk = jwk(&key.verifying_key())?;
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(jwk)
}

/// The RFC 7638 thumbprint.
pub(super) fn key_id(key: &VerifyingKey) -> Result<String, String> {
    Ok(jwk(key)?.common.key_id.unwrap_or_default())
}

fn jwk(key: &VerifyingKey) -> Result<Jwk, String> {
    let public = DecodingKey::from_ed_der(key.as_bytes());
    let mut jwk =
        Jwk::from_decoding_key(&public, Some(Algorithm::EdDSA)).map_err(|error| error.to_string())?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(|error| error.to_string())?);
    Ok(jwk)
}

/// The public keys known to this process; clones share them.
#[derive(Clone)]
pub struct KeySet(Arc<Shared>);

struct Shared {
    issuer: String,
    keys: RwLock<Keys>,
    wanted: Notify,
    changed: Notify,
}

#[derive(Default)]
struct Keys {
    by_id: BTreeMap<String, DecodingKey>,
    /// Tokens that were verified with these keys.
    verified: Verified<UserClaims>,
}

impl KeySet {
    /// A set without keys yet, for tokens whose `iss` is `issuer`.
    pub fn empty(issuer: &str) -> Self {
        Self(Arc::new(Shared {
            issuer: issuer.to_owned(),
            keys: RwLock::default(),
            wanted: Notify::new(),
            changed: Notify::new(),
        }))
    }

    pub fn of(issuer: &str, jwks: &Jwks) -> Self {
        let set = Self::empty(issuer);
        set.replace(jwks);
        set
    }

    /// Puts these keys in the place of all others. What was verified with a key that is gone is
    /// forgotten.
    pub fn replace(&self, jwks: &Jwks) {
        let keys: BTreeMap<_, _> = jwks
            .keys
            .iter()
            .filter(|key| matches!(key.algorithm, AlgorithmParameters::OctetKeyPair(_)))
            .filter_map(|key| Some((key.common.key_id.clone()?, DecodingKey::from_jwk(key).ok()?)))
            .collect();
        let mut known = self.0.keys.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A key's id is its thumbprint: the same ids are the same keys.
        if known.by_id.keys().any(|kid| !keys.contains_key(kid)) {
            known.verified = Verified::default();
        }
        known.by_id = keys;
        drop(known);
        self.0.changed.notify_waiters();
    }

    /// Whether any key is known.
    pub fn is_empty(&self) -> bool {
        self.0.keys.read().unwrap_or_else(|poisoned| poisoned.into_inner()).by_id.is_empty()
    }

    /// Verifies `token`; returns its claims.
    ///
    /// # Errors
    /// [`Unverified::UnknownKey`] when a newer key set might know better.
    pub fn verify(&self, token: &str) -> Result<Arc<UserClaims>, Unverified> {
        // Locked until the claims are remembered: a key that is withdrawn meanwhile takes them along.
        let keys = self.0.keys.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let claims = keys.verified.claims(token, || self.verify_signature(token, &keys.by_id))?;
        if claims.exp <= super::unix_now() {
            return Err(TokenError::Expired.into());
        }
        Ok(claims)
    }

    fn verify_signature(
        &self,
        token: &str,
        keys: &BTreeMap<String, DecodingKey>,
    ) -> Result<UserClaims, Unverified> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        if header.alg != Algorithm::EdDSA {
            return Err(TokenError::Invalid.into());
        }
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let key = keys.get(&kid).ok_or(Unverified::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[USER_TOKEN_AUDIENCE]);
        validation.set_issuer(&[&self.0.issuer]);
        validation.leeway = 0;
        jsonwebtoken::decode(token, key, &validation)
            .map(|token| token.claims)
            .map_err(|error| token_error(&error).into())
    }

    /// Requests a refresh of this set, and resolves at the next change.
    pub async fn refreshed(&self) {
        let changed = self.0.changed.notified();
        self.0.wanted.notify_one();
        changed.await;
    }

    /// Resolves when somebody met a key that is not in the set.
    pub async fn wanted(&self) {
        self.0.wanted.notified().await;
    }
}

/// Why a token could not be verified with the keys at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// It is signed with a key that is not in the set.
    UnknownKey,
    /// It is bad whatever the keys.
    Refused(TokenError),
}

impl From<TokenError> for Unverified {
    fn from(error: TokenError) -> Self {
        Self::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::testing::pem;
    use uuid::Uuid;

    const ISSUER: &str = "an-issuer";

    fn keys(seeds: &[u8]) -> SigningKeys {
        let pem: String = seeds.iter().map(|&seed| pem([seed; 32])).collect();
        SigningKeys::from_pem(&Secret::new(pem)).unwrap()
    }

    fn claims(exp: u64) -> UserClaims {
        UserClaims {
            iss: ISSUER.to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: Uuid::now_v7(),
            roles: vec!["customer".to_owned()],
            sid: Uuid::now_v7(),
            auth_time: 0,
            iat: 0,
            exp,
        }
    }

    const FAR: u64 = 4_000_000_000;

    #[test]
    fn a_token_is_verified_with_the_published_key() {
        let keys = keys(&[1]);
        let token = keys.sign(&claims(FAR)).unwrap();
        assert_eq!(KeySet::of(ISSUER, keys.jwks()).verify(&token).unwrap().exp, FAR);
    }

    #[test]
    fn a_published_key_has_these_fields_and_keys_of_other_kinds_are_passed_over() {
        let mut published = serde_json::to_value(keys(&[1]).jwks()).unwrap();
        let (kid, x) =
            ("UDDReOZl1ipXAfp9wYsm13sDBMK5og--QWdBjzuf6o4", "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
        assert_eq!(
            published["keys"],
            json!([{ "kid": kid, "kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA", "use": "sig" }])
        );
        let others = [
            json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" }),
            json!({ "kty": "OKP", "kid": "x", "crv": "X25519", "x": x, "alg": "ECDH-ES" }),
        ];
        published["keys"].as_array_mut().unwrap().extend(others);
        let set = KeySet::of(ISSUER, &serde_json::from_value(published).unwrap());
        assert!(set.verify(&keys(&[1]).sign(&claims(FAR)).unwrap()).is_ok());
        assert_eq!(set.verify(&keys(&[2]).sign(&claims(FAR)).unwrap()), Err(Unverified::UnknownKey));
    }

    #[test]
    fn after_a_rotation_tokens_of_the_old_key_are_valid_until_its_removal() {
        let old = keys(&[1]).sign(&claims(FAR)).unwrap();
        let set = KeySet::of(ISSUER, keys(&[2, 1]).jwks());
        assert!(set.verify(&old).is_ok());
        set.replace(keys(&[2]).jwks());
        assert_eq!(set.verify(&old), Err(Unverified::UnknownKey));
    }

    #[test]
    fn an_expired_a_tampered_and_an_unsigned_token_are_refused() {
        let keys = keys(&[1]);
        let set = KeySet::of(ISSUER, keys.jwks());
        assert_eq!(set.verify(&keys.sign(&claims(1)).unwrap()), Err(TokenError::Expired.into()));
        let token = keys.sign(&claims(FAR)).unwrap();
        let (head, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
        assert_eq!(set.verify(&forged), Err(TokenError::Invalid.into()));
        assert_eq!(set.verify(&format!("{head}.")), Err(TokenError::Invalid.into()));
        assert_eq!(set.verify("x"), Err(TokenError::Invalid.into()));
        let set = KeySet::of("another-issuer", keys.jwks());
        assert_eq!(set.verify(&token), Err(TokenError::Invalid.into()));
    }
}
