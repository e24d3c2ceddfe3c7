//! One request's hold on a replica.

use std::sync::Arc;
use std::time::Instant;

use super::pool::Pool;
use super::replica::{Outcome, ReplicaKey};
use crate::registry::Instance;

/// One request's hold on a replica, which has one request less when this is dropped.
#[derive(Debug)]
pub struct Hold {
    pool: Arc<Pool>,
    key: ReplicaKey,
    instance: Arc<Instance>,
    picked: Instant,
    /// It is a probe, and has not told anything yet.
    probing: bool,
}

impl Hold {
    pub(super) fn new(
        pool: Arc<Pool>,
        key: ReplicaKey,
        instance: Arc<Instance>,
        probing: bool,
        picked: Instant,
    ) -> Self {
        Self { pool, key, instance, picked, probing }
    }

    /// Whom to ask.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The replica, for the list of those tried.
    pub fn key(&self) -> ReplicaKey {
        self.key
    }

    /// Whether this request is to find out if an ejected replica has recovered.
    pub fn is_probe(&self) -> bool {
        self.probing
    }

    /// Tells how the request went, when the head of the answer is there: the time since the pick is
    /// the replica's latency.
    pub fn record(&mut self, outcome: Outcome, now: Instant) {
        if outcome.is_telling() {
            self.probing = false;
            self.pool.members().record(self.key, outcome, self.picked, now);
        }
    }
}

/// A probe that told nothing is sent again.
impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.members().give_back(self.key, self.probing);
    }
}
