//! Keys and tokens for tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};
use uuid::Uuid;

use crate::auth::{KeySet, Secret, ServiceKey, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims};

/// The keys of one stack.
#[derive(Clone)]
pub struct Keys {
    /// The service that issues user tokens.
    pub issuer: String,
    pub signing: SigningKeys,
    pub service: ServiceKey,
    /// Content of the file of `signing`.
    pub signing_pem: String,
    /// Content of the file of `service`.
    pub service_base64: String,
}

/// The Ed25519 private key with this seed, as PKCS#8 PEM.
pub fn pem(seed: [u8; 32]) -> String {
    let pem = SigningKey::from_bytes(&seed).to_pkcs8_pem(LineEnding::LF);
    pem.expect("every seed makes a key").to_string()
}

impl Keys {
    pub fn new(issuer: &str) -> Self {
        Self::from_seed(issuer, rand::random())
    }

    /// The same seed gives the same keys.
    pub fn from_seed(issuer: &str, seed: [u8; 32]) -> Self {
        let (signing_pem, service_base64) = (pem(seed), STANDARD.encode(seed));
        let signing = SigningKeys::from_pem(&Secret::new(&signing_pem)).expect("a new key is well formed");
        let service =
            ServiceKey::from_base64(&Secret::new(&service_base64)).expect("a new key is well formed");
        Self { issuer: issuer.to_owned(), signing, service, signing_pem, service_base64 }
    }

    /// The public keys of `signing`, to verify user tokens.
    pub fn key_set(&self) -> KeySet {
        KeySet::of(&self.issuer, self.signing.jwks())
    }

    /// A user token that does not expire during a test.
    pub fn user_token(&self, person: Uuid, roles: &[&str]) -> String {
        self.user_token_until(4_000_000_000, person, roles)
    }

    /// A user token that expires at `exp`, in seconds since 1970.
    pub fn user_token_until(&self, exp: u64, person: Uuid, roles: &[&str]) -> String {
        let claims = UserClaims {
            iss: self.issuer.clone(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: person,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            sid: Uuid::now_v7(),
            auth_time: 0,
            iat: 0,
            exp,
        };
        self.signing.sign(&claims).expect("a loaded key signs")
    }

    /// A token for calls from `caller` to `callee`, on behalf of `person` if given.
    pub fn service_token(&self, caller: &str, callee: &str, person: Option<Uuid>) -> String {
        self.service.mint(caller, callee, person)
    }
}
