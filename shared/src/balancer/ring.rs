//! The ring of consistent hashing.

use sha2::{Digest as _, Sha256};

/// Points on the ring for each replica.
const POINTS: u32 = 100;

/// The points on the ring of the instance `id`.
pub(super) fn points(id: &str) -> Vec<u64> {
    (0..POINTS).map(|point| hash(&format!("{id}#{point}"))).collect()
}

/// The same in every process.
pub(super) fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}
