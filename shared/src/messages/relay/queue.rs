//! The events that a relay has claimed, until they are sent. Pure: the relay does the I/O.

use std::collections::VecDeque;

use time::OffsetDateTime;

use super::circuit::Circuits;
use super::{Finished, Sending, Wanted};
use crate::messages::SendError;
use crate::messages::outbox::Outgoing;

/// Concurrent sends.
pub(super) const MAX_IN_FLIGHT: usize = 32;

#[derive(Default)]
pub(super) struct Queue {
    circuits: Circuits,
    /// Events that are sent when [`MAX_IN_FLIGHT`] allows it.
    waiting: VecDeque<Outgoing>,
    /// Events that wait because the circuit of their destination is not closed.
    held: VecDeque<Outgoing>,
    /// The destinations whose next event is a probe.
    probing: Vec<String>,
    in_flight: usize,
}

impl Queue {
    /// Adds an event that this relay has claimed.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        let is_closed = self.circuits.is_closed(&outgoing.destination);
        if is_closed { &mut self.waiting } else { &mut self.held }.push_back(outgoing);
    }

    /// Allows one probe to each destination that is unavailable.
    pub(super) fn allow_probes(&mut self) {
        self.probing = self.circuits.open();
    }

    /// The events to send now.
    pub(super) fn take(&mut self, now: OffsetDateTime) -> Vec<Sending> {
        // Drop events whose claim has expired: another relay may have claimed them.
        for queue in [&mut self.waiting, &mut self.held] {
            queue.retain(|outgoing| outgoing.claimed_until > now);
        }
        let mut sends = Vec::new();
        for destination in std::mem::take(&mut self.probing) {
            match self.held.iter().position(|held| held.destination == destination) {
                Some(first) => {
                    self.circuits.begin_probe(&destination);
                    let probe = self.held.remove(first);
                    sends.extend(probe.map(|outgoing| Sending { outgoing, is_probe: true }));
                }
                None => self.probing.push(destination),
            }
        }
        while self.in_flight + sends.len() < MAX_IN_FLIGHT {
            let Some(outgoing) = self.waiting.pop_front() else { break };
            match self.circuits.is_closed(&outgoing.destination) {
                true => sends.push(Sending { outgoing, is_probe: false }),
                false => self.held.push_back(outgoing),
            }
        }
        self.in_flight += sends.len();
        sends
    }

    /// Updates the circuits with the results of sends.
    pub(super) fn finish(&mut self, finished: &[Finished]) {
        self.in_flight -= finished.len();
        for Finished { sending, result } in finished {
            let destination = &sending.outgoing.destination;
            match result {
                Err(SendError::Unavailable(_)) => self.circuits.unavailable(destination),
                Ok(()) | Err(_) => self.circuits.answered(destination),
            }
        }
        for outgoing in std::mem::take(&mut self.held) {
            self.push(outgoing);
        }
    }

    /// The events to claim: as many as the queue has room for, and the missing probes.
    pub(super) fn wanted(&self) -> Wanted {
        let has_none = |destination: &&String| self.held.iter().all(|held| held.destination != **destination);
        Wanted {
            heads: MAX_IN_FLIGHT.saturating_sub(self.in_flight + self.waiting.len()),
            blocked: self.circuits.blocked(),
            probes: self.probing.iter().filter(has_none).cloned().collect(),
        }
    }

    /// Whether no event is in flight or waiting to be sent. Events behind an open circuit do not count: other relays
    /// send them.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty()
    }
}
