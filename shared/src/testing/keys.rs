//! Keys and tokens for tests.

use std::path::Path;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::auth::keys::Jwks;
use crate::auth::{
    Calls, KeySet, PublicKeys, Reread, Secret, ServiceKeys, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims,
};
use crate::config::Variable as _;
use crate::platform::PlatformConfig;
use crate::registry::RegistryUrl;

/// The keys of one stack.
#[derive(Clone)]
pub struct Keys {
    /// The service that issues user tokens.
    pub issuer: String,
    pub signing: SigningKeys,
    /// Content of the file of `signing`.
    pub signing_pem: String,
    seed: [u8; 32],
}

/// The Ed25519 private key with this seed, as PKCS#8 PEM.
pub fn pem(seed: [u8; 32]) -> String {
    let pem = SigningKey::from_bytes(&seed).to_pkcs8_pem(LineEnding::LF);
    pem.expect("every seed makes a key").to_string()
}

/// The public key of the seed, as PEM.
pub fn public_pem(seed: [u8; 32]) -> String {
    let public = SigningKey::from_bytes(&seed).verifying_key();
    public.to_public_key_pem(LineEnding::LF).expect("every seed makes a key")
}

/// Serves the public halves of `keys`, as the service that issues user tokens does.
pub fn publish_keys(app: &mut web::ServiceConfig, keys: &SigningKeys) {
    let show = async |jwks: web::Data<Jwks>| HttpResponse::Ok().json(jwks.get_ref());
    app.app_data(web::Data::new(keys.jwks().clone())).route("/.well-known/jwks.json", web::get().to(show));
}

impl Keys {
    pub fn new(issuer: &str) -> Self {
        Self::from_seed(issuer, rand::random())
    }

    /// The same seed gives the same keys.
    pub fn from_seed(issuer: &str, seed: [u8; 32]) -> Self {
        let signing_pem = pem(seed);
        let signing = SigningKeys::from_pem(&Secret::new(&signing_pem)).expect("a new key is well formed");
        Self { issuer: issuer.to_owned(), signing, signing_pem, seed }
    }

    /// The configuration with which `service` can call the others of the table `calls`, and be called by them.
    ///
    /// # Panics
    /// When the table or the URL `registry` is malformed.
    pub fn platform(&self, service: &str, calls: &str, registry: &str) -> PlatformConfig {
        let calls = Calls::parse(calls).expect("the table is well formed");
        let registry = RegistryUrl::parse(registry).expect("the URL is well formed");
        let service_keys = self.service(service, &calls.services());
        PlatformConfig { registry, service_keys, calls, advertise_url: None, tls: None }
    }

    /// The private key of `service`, and the public keys of `others`.
    pub fn service(&self, service: &str, others: &[&str]) -> ServiceKeys {
        let mut public = PublicKeys::default();
        for name in others {
            public.add(name, &public_pem(self.seed_of(name))).expect("a new key is well formed");
        }
        ServiceKeys::new(Arc::new(Reread::fixed(self.private(service))), Arc::new(Reread::fixed(public)))
    }

    pub fn private(&self, service: &str) -> SigningKeys {
        SigningKeys::from_pem(&Secret::new(pem(self.seed_of(service)))).expect("a new key is well formed")
    }

    /// Writes the same as files: the private key `service.key`, and a public key `NAME.pem` for each of `others`.
    ///
    /// # Panics
    /// When `folder` is not writable.
    pub fn write(&self, folder: &Path, service: &str, others: &[&str]) {
        let put = |name: &str, pem| std::fs::write(folder.join(name), pem).expect("the folder is writable");
        put("service.key", pem(self.seed_of(service)));
        for other in others {
            put(&format!("{other}.pem"), public_pem(self.seed_of(other)));
        }
    }

    fn seed_of(&self, service: &str) -> [u8; 32] {
        Sha256::digest([&self.seed, service.as_bytes()].concat()).into()
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
        self.user_token_of(jsonwebtoken::get_current_timestamp(), exp, person, roles)
    }

    /// A user token whose person logged in six minutes ago.
    pub fn user_token_of_old_login(&self, person: Uuid, roles: &[&str]) -> String {
        self.user_token_of(jsonwebtoken::get_current_timestamp() - 360, 4_000_000_000, person, roles)
    }

    fn user_token_of(&self, auth_time: u64, exp: u64, person: Uuid, roles: &[&str]) -> String {
        let claims = UserClaims {
            iss: self.issuer.clone(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: person,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            sid: Uuid::now_v7(),
            auth_time,
            iat: 0,
            exp,
        };
        self.signing.sign(&claims).expect("a loaded key signs")
    }

    /// A token for calls from `caller` to `callee`, on behalf of `person` if given.
    pub fn service_token(&self, caller: &str, callee: &str, person: Option<Uuid>) -> String {
        self.service(caller, &[]).mint(caller, callee, person)
    }
}
