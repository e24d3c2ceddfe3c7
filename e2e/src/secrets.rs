//! The secrets that `scripts/up` would make.

use std::path::{Path, PathBuf};

use shared::testing::Keys;

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
        let keys = Keys::new("user-service");
        std::fs::write(&signing_key, keys.signing_pem).expect("the folder is writable");
        std::fs::write(&service_key, keys.service_base64).expect("the folder is writable");
        Self { signing_key, service_key }
    }
}
