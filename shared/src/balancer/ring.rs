//! The hash ring of consistent hashing.

use sha2::{Digest as _, Sha256};

/// Points on the ring for each replica.
const POINTS: u32 = 100;

/// The points of the instance `id` on the ring.
pub(super) fn points(id: &str) -> Vec<u64> {
    (0..POINTS).map(|point| hash(&format!("{id}#{point}"))).collect()
}

/// Equal in every process, so that all gateways map a key to the same replica.
pub fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}
