//! The idle connections of one worker thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Exchange;

/// Ordered by the time at which they became idle.
#[derive(Default)]
pub(in crate::service) struct IdleConnections {
    places: RefCell<BTreeMap<u64, Rc<Exchange>>>,
    next: Cell<u64>,
}

impl IdleConnections {
    pub(super) fn enter(&self, exchange: Rc<Exchange>) -> u64 {
        let place = self.next.get();
        self.next.set(place + 1);
        self.places.borrow_mut().insert(place, exchange);
        place
    }

    pub(super) fn leave(&self, place: u64) {
        self.places.borrow_mut().remove(&place);
    }

    /// Closes the connection that has been idle for the longest time, if there is any.
    pub(in crate::service) fn evict(&self) {
        let longest = self.places.borrow_mut().pop_first();
        if let Some((_, exchange)) = longest {
            exchange.evict();
        }
    }
}
