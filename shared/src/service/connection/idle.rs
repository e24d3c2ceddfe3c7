//! The connections of one worker thread, to find the idle ones.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Exchange;
use super::dormant::DORMANT_AFTER;

/// A connection enters once, and says in its [`Exchange`] whether it is idle.
#[derive(Default)]
pub(in crate::service) struct IdleConnections {
    places: RefCell<BTreeMap<u64, Rc<Exchange>>>,
    next: Cell<u64>,
    /// Where the next eviction begins to look.
    hand: Cell<u64>,
    /// The connections that became idle lately, and when: the earliest first. Some have another request by now.
    recent: RefCell<VecDeque<(Instant, Rc<Exchange>)>>,
    /// `recent` is no longer empty.
    some_recent: Notify,
}

/// How many connections an eviction looks at. When there are too many, each new connection evicts one.
const SAMPLE: usize = 64;

/// The place of one connection, until it is dropped.
pub(super) struct Place {
    connections: Rc<IdleConnections>,
    number: u64,
}

impl IdleConnections {
    pub(super) fn enter(self: &Rc<Self>, exchange: Rc<Exchange>) -> Place {
        let number = self.next.get();
        self.next.set(number + 1);
        self.places.borrow_mut().insert(number, exchange);
        Place { connections: self.clone(), number }
    }

    /// Looks at some connections, the next ones each time, and closes the one of them that has been idle longest.
    pub(in crate::service) fn evict(&self) {
        let (places, hand) = (self.places.borrow(), self.hand.get());
        let sample = places.range(hand..).chain(places.range(..hand)).take(SAMPLE);
        let mut longest: Option<(Instant, &Rc<Exchange>)> = None;
        for (number, exchange) in sample {
            self.hand.set(number + 1);
            if let Some(since) = exchange.idle_since.get().filter(|_| !exchange.is_evicted.get())
                && longest.is_none_or(|(other, _)| since < other)
            {
                longest = Some((since, exchange));
            }
        }
        longest.iter().for_each(|(_, exchange)| exchange.evict());
    }

    /// Makes connections dormant that have been idle for [`DORMANT_AFTER`]. Never ends.
    pub(in crate::service) async fn make_dormant(&self) {
        loop {
            if self.recent.borrow().is_empty() {
                self.some_recent.notified().await;
            }
            tokio::time::sleep(DORMANT_AFTER).await;
            let latest = Instant::now() - DORMANT_AFTER;
            while let Some((since, exchange)) = self.next_recent(latest) {
                if exchange.idle_since.get() == Some(since) {
                    exchange.make_dormant();
                }
            }
        }
    }

    /// The next connection that became idle before `latest`.
    fn next_recent(&self, latest: Instant) -> Option<(Instant, Rc<Exchange>)> {
        self.recent.borrow_mut().pop_front_if(|(since, _)| *since <= latest)
    }
}

impl Place {
    pub(super) fn became_idle(&self, exchange: &Rc<Exchange>, since: Instant) {
        let mut recent = self.connections.recent.borrow_mut();
        if recent.is_empty() {
            self.connections.some_recent.notify_one();
        }
        recent.push_back((since, exchange.clone()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.places.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn idle_for(seconds: u64) -> Rc<Exchange> {
        let since = Instant::now() - Duration::from_secs(seconds);
        Rc::new(Exchange { idle_since: Cell::new(Some(since)), ..Exchange::default() })
    }

    fn evicted(all: &[Rc<Exchange>]) -> Vec<usize> {
        all.iter().enumerate().filter(|(_, one)| one.is_evicted.get()).map(|(at, _)| at).collect()
    }

    #[tokio::test]
    async fn an_eviction_closes_the_longest_idle_of_a_sample_and_looks_at_all_in_turn() {
        let connections = Rc::new(IdleConnections::default());
        let mut all: Vec<_> = [1, 3, 2].map(idle_for).into();
        all.resize_with(SAMPLE, || Rc::new(Exchange::default()));
        all.extend([9, 8].map(idle_for));
        let places: Vec<_> = all.iter().map(|one| connections.enter(one.clone())).collect();
        connections.evict();
        assert_eq!(evicted(&all), [1], "the longest of the sample");
        connections.evict();
        assert_eq!(evicted(&all), [1, SAMPLE], "the next sample");
        for _ in 0..all.len() {
            connections.evict();
        }
        assert_eq!(evicted(&all), [0, 1, 2, SAMPLE, SAMPLE + 1], "all that were idle, and no other");
        drop(places);
        connections.evict();
    }
}
