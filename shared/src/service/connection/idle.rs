//! The connections of one worker thread, to find the idle ones.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Exchange;

/// A connection enters once and says in its [`Exchange`] when it is idle, because that changes with every request.
#[derive(Default)]
pub(in crate::service) struct IdleConnections {
    places: RefCell<BTreeMap<u64, Rc<Exchange>>>,
    next: Cell<u64>,
}

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

    /// Closes the connection that has been idle for the longest time, if there is any.
    pub(in crate::service) fn evict(&self) {
        let places = self.places.borrow();
        let open = places.values().filter(|exchange| !exchange.is_evicted.get());
        let idle = open.filter_map(|exchange| Some((exchange.idle_since.get()?, exchange)));
        if let Some((_, exchange)) = idle.min_by_key(|(since, _)| *since) {
            exchange.evict();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.places.borrow_mut().remove(&self.number);
    }
}
