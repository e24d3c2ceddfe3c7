//! Service tokens: each service signs with its own key, and knows the public keys of the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::{blocks, key_id};
use super::verified::Verified;
use super::{FromPath, Reread, SigningKeys, TokenError, token_error, unix_now};

/// Lifetime in seconds; enough for one call and its retries.
const LIFETIME: u64 = 60;
/// How many seconds the clocks of two machines may differ.
const LEEWAY: u64 = 60;
/// The `typ` of a service token (RFC 8725 §3.11): no token of another kind is ever taken for one.
pub(super) const TYPE: &str = "service+jwt";

/// A service's own private keys, and the public keys of all services. Clones share them.
#[derive(Clone)]
pub struct ServiceKeys {
    own: Arc<Reread<SigningKeys>>,
    public: Arc<Reread<PublicKeys>>,
    /// Tokens without a person, by caller and callee.
    minted: Arc<Mutex<BTreeMap<[String; 2], Minted>>>,
}

struct Minted {
    token: String,
    exp: u64,
    signer: Arc<SigningKeys>,
}

/// The public keys of all services.
#[derive(Default, Clone)]
pub struct PublicKeys {
    /// The owner and the key, by key id.
    by_id: BTreeMap<String, (String, DecodingKey)>,
    /// Tokens that were verified with these keys.
    verified: Verified<ServiceClaims>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceClaims {
    /// The calling service, which owns the key that signed this.
    pub iss: String,
    /// The service called.
    pub aud: String,
    /// The person on whose behalf it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<Uuid>,
    exp: u64,
}

impl ServiceKeys {
    pub fn new(own: Arc<Reread<SigningKeys>>, public: Arc<Reread<PublicKeys>>) -> Self {
        Self { own, public, minted: Arc::default() }
    }

    /// A token for calls from `caller` to `callee` within half a minute, on behalf of `person` if given.
    pub fn mint(&self, caller: &str, callee: &str, person: Option<Uuid>) -> String {
        let (signer, exp) = (self.own.get(), unix_now() + LIFETIME);
        let claims = ServiceClaims { iss: caller.to_owned(), aud: callee.to_owned(), sub: person, exp };
        if person.is_some() {
            return sign(&signer, &claims);
        }
        let key = [caller.to_owned(), callee.to_owned()];
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = minted.get(&key)
            && Arc::ptr_eq(&last.signer, &signer)
            && exp.checked_sub(last.exp).is_some_and(|age| age <= LIFETIME / 2)
        {
            return last.token.clone();
        }
        let token = sign(&signer, &claims);
        minted.insert(key, Minted { token: token.clone(), exp, signer });
        token
    }

    /// Verifies the signature, that `iss` owns the key, the expiry, and the audience `callee`.
    pub fn verify(&self, token: &str, callee: &str) -> Result<Arc<ServiceClaims>, TokenError> {
        let public = self.public.get();
        let claims = public.verified.claims(token, || public.verify_signature(token, callee))?;
        if claims.exp + LEEWAY < unix_now() {
            return Err(TokenError::Expired);
        }
        if claims.aud != callee {
            return Err(TokenError::Invalid);
        }
        Ok(claims)
    }
}

fn sign(signer: &SigningKeys, claims: &ServiceClaims) -> String {
    signer.sign_as(TYPE, claims).unwrap_or_else(|error| {
        log::error!("a service token could not be made: {error}");
        String::new()
    })
}

impl PublicKeys {
    fn verify_signature(&self, token: &str, callee: &str) -> Result<ServiceClaims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Invalid);
        }
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let (owner, key) = self.by_id.get(&kid).ok_or(TokenError::Invalid)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[callee]);
        validation.set_issuer(&[owner]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.leeway = LEEWAY;
        let token = jsonwebtoken::decode::<ServiceClaims>(token, key, &validation);
        let claims = token.map_err(|error| token_error(&error))?.claims;
        // A thief who could use a key for a moment must not have a token for years.
        if claims.exp > unix_now() + LIFETIME + LEEWAY {
            return Err(TokenError::Invalid);
        }
        Ok(claims)
    }

    /// Adds the public keys of `owner`: one or more PEM blocks.
    ///
    /// # Errors
    /// When there is none, one is not an Ed25519 public key, or another service has it.
    pub fn add(&mut self, owner: &str, pem: &str) -> Result<(), String> {
        let keys = blocks(pem);
        if keys.is_empty() {
            return Err(format!("{owner} has no public key"));
        }
        for block in keys {
            let key = VerifyingKey::from_public_key_pem(&block)
                .map_err(|_| format!("a public key of {owner} is not Ed25519 (PEM)"))?;
            let public = DecodingKey::from_ed_der(key.as_bytes());
            let known = self.by_id.insert(key_id(&key)?, (owner.to_owned(), public));
            if let Some((other, _)) = known.filter(|(other, _)| other != owner) {
                return Err(format!("{owner} and {other} have the same key"));
            }
        }
        Ok(())
    }
}

/// A folder with a file `NAME.pem` for each service.
impl FromPath for PublicKeys {
    fn from_path(folder: &Path) -> Result<Self, String> {
        let mut keys = Self::default();
        for entry in std::fs::read_dir(folder).map_err(|why| why.to_string())? {
            let path = entry.map_err(|why| why.to_string())?.path();
            let Some(owner) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pem")) else {
                continue;
            };
            keys.add(owner, &std::fs::read_to_string(&path).map_err(|why| why.to_string())?)?;
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Keys;

    #[test]
    fn a_service_token_is_valid_only_for_its_audience() {
        let (keys, person) = (Keys::new("an-issuer"), Uuid::now_v7());
        let token = keys.service_token("a-service", "b-service", Some(person));
        let b = keys.service("b-service", &["a-service", "b-service"]);
        let claims = b.verify(&token, "b-service").unwrap();
        assert_eq!((claims.iss.as_str(), claims.sub), ("a-service", Some(person)));
        assert_eq!(b.verify(&token, "c-service"), Err(TokenError::Invalid));
        let stranger = Keys::new("an-issuer").service_token("a-service", "b-service", None);
        assert_eq!(b.verify(&stranger, "b-service"), Err(TokenError::Invalid));
    }

    #[test]
    fn a_service_cannot_sign_as_another() {
        let keys = Keys::new("an-issuer");
        let (a, b) = (keys.service("a-service", &[]), keys.service("b-service", &["a-service", "c-service"]));
        assert!(b.verify(&a.mint("a-service", "b-service", None), "b-service").is_ok());
        let forged = a.mint("c-service", "b-service", None);
        assert_eq!(b.verify(&forged, "b-service"), Err(TokenError::Invalid));
    }

    #[test]
    fn a_clock_may_be_a_minute_behind_or_ahead() {
        let keys = Keys::new("an-issuer");
        let of = |exp: u64| {
            let claims = json!({ "iss": "a-service", "aud": "b-service", "exp": exp });
            keys.private("a-service").sign_as(TYPE, &claims).unwrap()
        };
        let b = keys.service("b-service", &["a-service", "b-service"]);
        assert!(b.verify(&of(unix_now() + LIFETIME - 60 - 50), "b-service").is_ok());
        assert!(b.verify(&of(unix_now() + LIFETIME + 60), "b-service").is_ok());
        assert_eq!(b.verify(&of(unix_now() - 65), "b-service"), Err(TokenError::Expired));
        // A token for longer than any service mints.
        assert_eq!(b.verify(&of(unix_now() + LIFETIME + 65), "b-service"), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_of_another_type_is_no_service_token() {
        let keys = Keys::new("an-issuer");
        let claims = json!({ "iss": "a-service", "aud": "b-service", "exp": unix_now() + 60 });
        let token = keys.private("a-service").sign_as("JWT", &claims).unwrap();
        assert_eq!(
            keys.service("b-service", &["a-service", "b-service"]).verify(&token, "b-service"),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn during_a_rotation_the_old_and_the_new_key_are_valid_and_afterwards_only_the_new_one() {
        let folder = std::env::temp_dir().join(format!("keys-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let put = |name: &str, text: String| {
            std::fs::write(folder.join("new"), text).unwrap();
            std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
        };
        let pem = |seed: u8| crate::testing::pem([seed; 32]);
        let public = |seed: u8| crate::testing::public_pem([seed; 32]);
        put("own", pem(1));
        put("a-service.pem", public(1));
        let keys = ServiceKeys::new(
            Arc::new(Reread::open(&folder.join("own")).unwrap()),
            Arc::new(Reread::open(&folder).unwrap()),
        );
        let token = || keys.mint("a-service", "b-service", None);
        let old = token();
        put("a-service.pem", public(1) + &public(2));
        put("own", pem(2) + &pem(1));
        let new = token();
        assert_ne!(old.split('.').next(), new.split('.').next(), "another key id");
        assert!([&old, &new].iter().all(|token| keys.verify(token, "b-service").is_ok()));
        put("a-service.pem", public(2));
        assert_eq!(keys.verify(&old, "b-service"), Err(TokenError::Invalid));
        assert!(keys.verify(&new, "b-service").is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn two_services_with_one_key_are_refused() {
        let (mut keys, pem) = (PublicKeys::default(), crate::testing::public_pem([1; 32]));
        keys.add("a-service", &pem).unwrap();
        assert!(keys.add("b-service", &pem).unwrap_err().contains("the same key"));
        assert!(keys.add("c-service", "").is_err());
    }
}
