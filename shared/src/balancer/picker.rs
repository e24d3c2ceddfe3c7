//! Balancing strategies: choose one of the candidates.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::replica::{ReplicaKey, ReplicaState};
use super::ring::hash;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    #[default]
    RoundRobin,
    Random,
    /// The replica with the fewest requests in flight. If several have the same number, they take turns.
    LeastConnections,
    /// Smooth weighted round robin (nginx's algorithm), by the `weight` in each instance's metadata (1 if
    /// absent).
    WeightedRoundRobin,
    /// Power of two choices (Mitzenmacher 2001). It compares two random replicas, and takes the one with the lower
    /// product of latency (Finagle's peak EWMA) and requests in flight.
    P2cEwma,
    /// The same replica for the same key. When replicas are added or removed, few keys move (Karger 1997).
    ConsistentHash,
}

impl Strategy {
    pub const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::Random,
        Self::LeastConnections,
        Self::WeightedRoundRobin,
        Self::P2cEwma,
        Self::ConsistentHash,
    ];
}

/// The strategy of one route and its state. The strategy can be switched at run time.
#[derive(Debug)]
pub struct Picker {
    strategy: ArcSwap<Strategy>,
    turn: Mutex<Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    last: Option<ReplicaKey>,
    credits: BTreeMap<ReplicaKey, f64>,
}

impl Picker {
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy: ArcSwap::from_pointee(strategy), turn: Mutex::default() }
    }

    pub fn strategy(&self) -> Strategy {
        **self.strategy.load()
    }

    pub fn switch(&self, strategy: Strategy) {
        self.strategy.store(strategy.into());
    }

    /// Picks one of `candidates`, which must be sorted by key; `None` if there are none.
    pub(super) fn pick(
        &self,
        candidates: &[&ReplicaState],
        affinity: Option<&str>,
        now: Instant,
    ) -> Option<ReplicaKey> {
        if let [] | [_] = candidates {
            return candidates.first().map(|only| only.key);
        }
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let picked = match self.strategy() {
            Strategy::RoundRobin => turn.next(candidates, |one| {
                let weight = one.weight(now);
                weight >= 1.0 || rand::random::<f64>() < weight
            }),
            Strategy::Random => random(candidates, now),
            Strategy::LeastConnections => turn.fewest(candidates, now),
            Strategy::WeightedRoundRobin => turn.weighted(candidates, now),
            Strategy::P2cEwma => better_of_two(candidates, now),
            Strategy::ConsistentHash => match affinity {
                Some(text) => on_ring(candidates, hash(text)),
                None => random(candidates, now),
            },
        };
        turn.last = picked;
        picked
    }
}

impl Turn {
    /// The next candidate in turn for which `accepts` is true; if there is none, the next candidate.
    fn next(
        &self,
        candidates: &[&ReplicaState],
        accepts: impl Fn(&ReplicaState) -> bool,
    ) -> Option<ReplicaKey> {
        let start = candidates.partition_point(|one| Some(one.key) <= self.last);
        let (before, after) = candidates.split_at(start);
        let mut ordered = after.iter().chain(before);
        let next = ordered.clone().next();
        ordered.find(|one| accepts(one)).or(next).map(|one| one.key)
    }

    fn fewest(&self, candidates: &[&ReplicaState], now: Instant) -> Option<ReplicaKey> {
        let load = |one: &ReplicaState| (one.in_flight + 1) as f64 / one.weight(now);
        let least = candidates.iter().map(|one| load(one)).min_by(f64::total_cmp)?;
        // Replicas with equal load take turns. Otherwise the first would get every request of sequential traffic.
        self.next(candidates, |one| load(one) <= least)
    }

    fn weighted(&mut self, candidates: &[&ReplicaState], now: Instant) -> Option<ReplicaKey> {
        let mut total = 0.0;
        self.credits.retain(|key, _| candidates.iter().any(|one| one.key == *key));
        for one in candidates {
            let weight = one.instance.weight() * one.weight(now);
            *self.credits.entry(one.key).or_default() += weight;
            total += weight;
        }
        let (key, credit) = self.credits.iter_mut().max_by(|one, other| one.1.total_cmp(other.1))?;
        *credit -= total;
        Some(*key)
    }
}

fn random(candidates: &[&ReplicaState], now: Instant) -> Option<ReplicaKey> {
    let total: f64 = candidates.iter().map(|one| one.weight(now)).sum();
    let mut point = rand::random::<f64>() * total;
    let hit = candidates.iter().find(|one| {
        point -= one.weight(now);
        point < 0.0
    });
    hit.or(candidates.last()).map(|one| one.key)
}

fn better_of_two(candidates: &[&ReplicaState], now: Instant) -> Option<ReplicaKey> {
    let first = rand::random_range(0..candidates.len());
    let second = (first + rand::random_range(1..candidates.len())) % candidates.len();
    let (first, second) = (candidates[first], candidates[second]);
    let (one, other) = (first.ewma.seconds(now), second.ewma.seconds(now));
    // A newcomer has no latency yet: it counts as equally fast, not as infinitely fast.
    let [one, other] = [one.or(other), other.or(one)].map(|seconds| seconds.unwrap_or_default() + 1e-6);
    let load = |one: &ReplicaState, seconds: f64| seconds * (one.in_flight + 1) as f64 / one.weight(now);
    let (one, other) = (load(first, one), load(second, other));
    Some(if other < one { second.key } else { first.key })
}

/// The owner of the first point at or after `key`, around the ring.
fn on_ring(candidates: &[&ReplicaState], key: u64) -> Option<ReplicaKey> {
    let distances =
        candidates.iter().flat_map(|one| one.points.iter().map(|point| (point.wrapping_sub(key), one.key)));
    distances.min().map(|(_, owner)| owner)
}
