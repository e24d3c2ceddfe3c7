//! Limits of requests that last long, which are event streams, requests that wait with `Prefer: wait`, and those
//! whose body is still to come: so many of one user, and so many of one address. They take none of the places of
//! other requests, and so cannot keep those from being served.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::service::network;
use uuid::Uuid;

use crate::routing::Table;

pub struct Concurrency {
    pub streams: PerClient,
    /// Bodies that are not there yet: they hold memory, or a replica, while they come.
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

/// The place of one request, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Counts>,
    keys: Vec<Key>,
}

impl Concurrency {
    /// The limits in `table`; none if not `on`.
    pub fn new(table: &Table, on: bool) -> Self {
        let limit = |person, client| PerClient::new(on.then_some(Max { person, client }));
        let file = &table.file;
        Self {
            streams: limit(file.streams_per_person, file.streams_per_client),
            uploads: limit(file.uploads_per_client, file.uploads_per_client),
            waits: limit(file.waits_per_person, file.waits_per_client),
        }
    }
}

impl PerClient {
    fn new(max: Option<Max>) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// A place for one more request; `None` if the user or the address has reached its limit.
    pub fn enter(&self, person: Option<Uuid>, client: IpAddr) -> Option<Place> {
        let Some(max) = self.max else { return Some(self.place(Vec::new())) };
        let person = person.map(|person| (Key::Person(person), max.person));
        let limits = [Some((Key::Client(network(client)), max.client)), person];
        let mut counts = self.counts.lock();
        for (key, max) in limits.iter().flatten() {
            if counts.get(key).copied().unwrap_or(0) >= *max {
                return None;
            }
        }
        let keys: Vec<_> = limits.into_iter().flatten().map(|(key, _)| key).collect();
        keys.iter().for_each(|key| *counts.entry(*key).or_default() += 1);
        drop(counts);
        Some(self.place(keys))
    }

    fn place(&self, keys: Vec<Key>) -> Place {
        Place { counts: self.counts.clone(), keys }
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
    fn an_ipv6_network_has_so_many_places_whoever_comes_from_there() {
        let limit = two_a_person_and_three_an_address();
        let enter = |address: &str| limit.enter(Some(Uuid::now_v7()), address.parse().unwrap());
        let _places: Vec<_> = (1..=3).map(|host| enter(&format!("2001:db8::{host}")).unwrap()).collect();
        assert!(enter("2001:db8::9").is_none());
        assert!(enter("2001:db8:0:1::9").is_some());
    }
}
