//! The secrets that `scripts/up` would make.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};

/// The files that hold them.
pub struct Secrets {
    /// What signs the tokens of people.
    pub signing_key: PathBuf,
    /// What signs the tokens of services.
    pub service_key: PathBuf,
}

impl Secrets {
    /// New ones, in `folder`.
    ///
    /// # Panics
    /// When it cannot be written to.
    pub fn make(folder: &Path) -> Self {
        let (signing_key, service_key) = (folder.join("signing.pem"), folder.join("service.key"));
        let key = ed25519_dalek::SigningKey::from_bytes(&rand::random());
        let pem = key.to_pkcs8_pem(LineEnding::LF).expect("a new key is well formed");
        std::fs::write(&signing_key, pem.as_bytes()).expect("the folder is writable");
        let secret: [u8; 32] = rand::random();
        std::fs::write(&service_key, STANDARD.encode(secret)).expect("the folder is writable");
        Self { signing_key, service_key }
    }
}
