//! The secrets that `scripts/up` would make.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};

pub(crate) struct Secrets {
    pub(crate) signing_key: PathBuf,
    pub(crate) service_key: PathBuf,
}

impl Secrets {
    pub(crate) fn make(folder: &Path) -> Self {
        let (signing_key, service_key) = (folder.join("signing.pem"), folder.join("service.key"));
        let key = ed25519_dalek::SigningKey::from_bytes(&rand::random());
        let pem = key.to_pkcs8_pem(LineEnding::LF).expect("a new key is well formed");
        std::fs::write(&signing_key, pem.as_bytes()).expect("the folder is writable");
        let secret: [u8; 32] = rand::random();
        std::fs::write(&service_key, STANDARD.encode(secret)).expect("the folder is writable");
        Self { signing_key, service_key }
    }
}
