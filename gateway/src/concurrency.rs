//! Limits of long requests: event streams, requests that wait with `Prefer: wait`, and requests whose body has not
//! arrived yet. Each kind has a limit for one user and one for one address. Meanwhile they take no place in the
//! concurrency limit of the service, so they cannot block other requests. Exceptions: until the head of its response, an
//! event stream takes one, because nobody knows before that it is a stream. And a limit of a route (`max_in_flight`)
//! counts all its requests.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::service::network;
use uuid::Uuid;

use crate::routing::Table;

pub struct Concurrency {
    pub streams: PerClient,
    pub refused_streams: RefusedStreams,
    /// Requests whose body has not arrived yet. While it arrives, it occupies memory or a replica.
    pub uploads: PerClient,
    pub waits: PerClient,
}

/// A limit for each user, and one for each address. With IPv6 a network of 64 bits counts as one address.
pub struct PerClient {
    counts: Arc<Counts>,
    /// `None` without limits.
    max: Option<Max>,
}

#[derive(Clone, Copy)]
struct Max {
    person: usize,
    client: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Person(Uuid),
    Client(IpAddr),
}

#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<Key, usize>>);

/// The place of one request. When it is dropped, the place is free again.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Counts>,
    keys: Vec<Key>,
}

impl Concurrency {
    /// The limits in `table`; no limits if `on` is false.
    pub fn new(table: &Table, on: bool) -> Self {
        let limit = |person, client| PerClient::new(on.then_some(Max { person, client }));
        let config = &table.config;
        Self {
            streams: limit(config.streams_per_person, config.streams_per_client),
            refused_streams: RefusedStreams::default(),
            uploads: limit(config.uploads_per_client, config.uploads_per_client),
            waits: limit(config.waits_per_person, config.waits_per_client),
        }
    }
}

impl Max {
    /// The limits of the user, if there is one, and of the address.
    fn limits(self, person: Option<Uuid>, client: IpAddr) -> [Option<(Key, usize)>; 2] {
        let person = person.map(|person| (Key::Person(person), self.person));
        [Some((Key::Client(network(client)), self.client)), person]
    }
}

impl PerClient {
    fn new(max: Option<Max>) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// A place for one more request; `None` if the user or the address has reached its limit.
    pub fn enter(&self, person: Option<Uuid>, client: IpAddr) -> Option<Place> {
        let Some(max) = self.max else { return Some(self.place(Vec::new())) };
        let limits = max.limits(person, client);
        let mut counts = self.counts.lock();
        if is_reached(&limits, &counts) {
            return None;
        }
        let keys: Vec<_> = limits.into_iter().flatten().map(|(key, _)| key).collect();
        keys.iter().for_each(|key| *counts.entry(*key).or_default() += 1);
        drop(counts);
        Some(self.place(keys))
    }

    /// Whether [`PerClient::enter`] would return `None`.
    pub fn is_full(&self, person: Option<Uuid>, client: IpAddr) -> bool {
        self.max.is_some_and(|max| is_reached(&max.limits(person, client), &self.counts.lock()))
    }

    fn place(&self, keys: Vec<Key>) -> Place {
        Place { counts: self.counts.clone(), keys }
    }
}

/// Event streams that were refused a moment ago. Whether an answer is a stream is known when a replica has begun it, so a
/// client that does not wait would cost the service the same again and again.
#[derive(Default)]
pub struct RefusedStreams {
    /// The time when the client may come again, by the hash of its user (or its address without a token) and the path.
    until: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
}

impl RefusedStreams {
    /// The most streams that are remembered. Beyond it, none is added until others are forgotten.
    const MAX: usize = 4096;
    /// The seconds after which a client may come again.
    pub const RETRY_AFTER: u32 = 5;

    pub fn remember(&self, person: Option<Uuid>, client: IpAddr, path: &str, now: Instant) {
        let key = self.key(person, client, path);
        let mut until = self.lock();
        if until.len() >= Self::MAX {
            until.retain(|_, until| *until > now);
        }
        if until.len() < Self::MAX {
            until.insert(key, now + Duration::from_secs(Self::RETRY_AFTER.into()));
        }
    }

    pub fn contains(&self, person: Option<Uuid>, client: IpAddr, path: &str, now: Instant) -> bool {
        // Usually there are none, and no key is made.
        if self.lock().is_empty() {
            return false;
        }
        let key = self.key(person, client, path);
        self.lock().get(&key).is_some_and(|until| *until > now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, person: Option<Uuid>, client: IpAddr, path: &str) -> u64 {
        let who = person.map_or_else(|| Key::Client(network(client)), Key::Person);
        self.hasher.hash_one((who, path))
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        for key in &self.keys {
            if let Entry::Occupied(mut count) = counts.entry(*key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

fn is_reached(limits: &[Option<(Key, usize)>], counts: &HashMap<Key, usize>) -> bool {
    limits.iter().flatten().any(|(key, max)| counts.get(key).copied().unwrap_or(0) >= *max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_a_person_and_three_an_address() -> PerClient {
        PerClient::new(Some(Max { person: 2, client: 3 }))
    }

    #[test]
    fn a_person_has_so_many_places_wherever_it_comes_from() {
        let (limit, ann) = (two_a_person_and_three_an_address(), Some(Uuid::now_v7()));
        let places: Vec<_> = (1..=3).map(|host| limit.enter(ann, IpAddr::from([192, 0, 2, host]))).collect();
        assert_eq!(places.iter().flatten().count(), 2);
        assert!(limit.enter(Some(Uuid::now_v7()), IpAddr::from([192, 0, 2, 1])).is_some());
        drop(places);
        assert!(limit.enter(ann, IpAddr::from([192, 0, 2, 3])).is_some());
        assert!(limit.counts.lock().is_empty(), "nothing is remembered of clients without requests");
    }

    #[test]
    fn a_refused_stream_is_remembered_until_its_client_may_come_again_and_few_are() {
        let (refused, now) = (RefusedStreams::default(), Instant::now());
        let client = |number: usize| IpAddr::from((number as u32).to_be_bytes());
        for number in 0..=RefusedStreams::MAX {
            refused.remember(None, client(number), "/a", now);
        }
        assert!(refused.contains(None, client(0), "/a", now));
        assert!(!refused.contains(None, client(0), "/b", now));
        assert!(!refused.contains(Some(Uuid::now_v7()), client(0), "/a", now));
        assert!(!refused.contains(None, client(RefusedStreams::MAX), "/a", now), "there is no room");
        let later = now + Duration::from_secs(RefusedStreams::RETRY_AFTER.into());
        assert!(!refused.contains(None, client(0), "/a", later));
        refused.remember(None, client(RefusedStreams::MAX), "/a", later);
        assert!(refused.contains(None, client(RefusedStreams::MAX), "/a", later));
        assert_eq!(refused.until.lock().unwrap().len(), 1);
    }

    #[test]
    fn an_ipv6_network_has_so_many_places_whoever_comes_from_there() {
        let limit = two_a_person_and_three_an_address();
        let enter = |address: &str| limit.enter(Some(Uuid::now_v7()), address.parse().unwrap());
        let _places: Vec<_> = (1..=3).map(|host| enter(&format!("2001:db8::{host}")).unwrap()).collect();
        assert!(enter("2001:db8::9").is_none());
        assert!(enter("2001:db8:0:1::9").is_some());
    }
}
