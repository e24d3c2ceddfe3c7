//! Tokens whose signature was verified: to verify one costs more than everything else that a request does.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use sha2::{Digest as _, Sha256};

/// When the cache is full, all tokens are forgotten.
const LIMIT: usize = 10_000;

/// The claims of verified tokens, by the digests of the tokens. Clones share them.
#[derive(Clone)]
pub(super) struct Verified<C>(Arc<RwLock<BTreeMap<[u8; 32], Arc<C>>>>);

impl<C> Default for Verified<C> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<C> Verified<C> {
    /// The claims of `token`, verified now or before. The caller checks what changes with time.
    pub(super) fn claims<E>(&self, token: &str, verify: impl FnOnce() -> Result<C, E>) -> Result<Arc<C>, E> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&digest).cloned();
        if let Some(claims) = known {
            return Ok(claims);
        }
        let claims = Arc::new(verify()?);
        let mut verified = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if verified.len() >= LIMIT {
            verified.clear();
        }
        verified.insert(digest, claims.clone());
        Ok(claims)
    }
}
