//! A circuit breaker for each destination of a relay. Pure: it does no I/O, and the relay polls once a second.
//!
//! ```text
//! closed ── five sends in a row: unavailable ──► open ◄── unavailable ──────┐
//!    ▲                                            └── the next poll ──► half-open: one event is the probe
//!    └── any other result ──────────────────────────────────────────────────┘
//! ```
//!
//! Without the circuit breaker, a relay would claim and release the rows of an unavailable destination repeatedly.

use std::collections::BTreeMap;

/// Failures in a row that open the circuit. One is not enough: a receiver also answers `unavailable` when an
/// optimistic lock fails.
pub(super) const TRIP_AFTER: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    /// `failures` counts the latest sends in a row that found the destination unavailable.
    Closed {
        failures: u32,
    },
    Open,
    HalfOpen,
}

/// The circuits by destination. The circuit of any other destination is closed.
#[derive(Debug, Default)]
pub(super) struct Circuits(BTreeMap<String, Circuit>);

impl Circuits {
    pub(super) fn is_closed(&self, destination: &str) -> bool {
        matches!(self.0.get(destination), None | Some(Circuit::Closed { .. }))
    }

    /// The destinations whose circuit is not closed. Their events wait.
    pub(super) fn blocked(&self) -> Vec<String> {
        self.0.keys().filter(|destination| !self.is_closed(destination)).cloned().collect()
    }

    /// The blocked destinations without a probe in flight.
    pub(super) fn open(&self) -> Vec<String> {
        let open = self.0.iter().filter(|(_, circuit)| **circuit == Circuit::Open);
        open.map(|(destination, _)| destination.clone()).collect()
    }

    pub(super) fn begin_probe(&mut self, destination: &str) {
        self.0.insert(destination.to_owned(), Circuit::HalfOpen);
    }

    /// The receiver was available: it accepted the event, failed to handle it, or rejected it.
    pub(super) fn answered(&mut self, destination: &str) {
        if let Some(Circuit::Open | Circuit::HalfOpen) = self.0.remove(destination) {
            log::info!(destination; "a destination of messages is back");
        }
    }

    pub(super) fn unavailable(&mut self, destination: &str) {
        let circuit = self.0.entry(destination.to_owned()).or_insert(Circuit::Closed { failures: 0 });
        *circuit = match *circuit {
            Circuit::Closed { failures } if failures + 1 < TRIP_AFTER => {
                Circuit::Closed { failures: failures + 1 }
            }
            Circuit::Closed { .. } => {
                log::warn!(destination; "a destination of messages is unavailable; its events wait");
                Circuit::Open
            }
            Circuit::Open | Circuit::HalfOpen => Circuit::Open,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tripped() -> Circuits {
        let mut circuits = Circuits::default();
        for _ in 0..TRIP_AFTER {
            assert!(circuits.is_closed("a"));
            circuits.unavailable("a");
        }
        circuits
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_of_their_destination_only() {
        let circuits = tripped();
        assert!(!circuits.is_closed("a") && circuits.is_closed("b"));
        assert_eq!((circuits.blocked(), circuits.open()), (vec!["a".to_owned()], vec!["a".to_owned()]));
    }

    #[test]
    fn an_answer_in_between_starts_the_count_again() {
        let mut circuits = Circuits::default();
        for _ in 0..3 * TRIP_AFTER {
            circuits.unavailable("a");
            circuits.answered("a");
        }
        assert!(circuits.is_closed("a"));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let mut circuits = tripped();
        circuits.begin_probe("a");
        assert!(circuits.open().is_empty() && !circuits.is_closed("a"));
        circuits.unavailable("a");
        assert_eq!(circuits.open(), ["a"]);
        circuits.begin_probe("a");
        circuits.answered("a");
        assert!(circuits.is_closed("a") && circuits.blocked().is_empty());
    }
}
