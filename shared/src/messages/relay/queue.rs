//! The events that a relay has claimed, until they are sent. Pure: the relay does the I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use time::OffsetDateTime;

use super::circuit::Circuits;
use super::{Finished, Sending, Wanted};
use crate::messages::SendError;
use crate::messages::outbox::Outgoing;

/// Concurrent requests.
pub(super) const MAX_IN_FLIGHT: usize = 32;
/// Events in all concurrent requests. With more, a slow receiver would not finish before the claims expire.
const MAX_EVENTS_IN_FLIGHT: usize = 128;
/// How long events wait for the answer to an earlier request to their destination.
pub(super) const GATHER_TIME: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(super) struct Queue {
    /// The services to which this service sends.
    receivers: Vec<String>,
    circuits: Circuits,
    /// Events that are sent when [`MAX_IN_FLIGHT`] allows it.
    waiting: VecDeque<Outgoing>,
    /// Events that wait because the circuit of their destination is not closed.
    held: VecDeque<Outgoing>,
    /// The destinations whose next event is a probe.
    probing: Vec<String>,
    /// Requests.
    in_flight: usize,
    events_in_flight: usize,
    /// The destinations whose events gather for the next batch, and until when.
    gathering: BTreeMap<String, OffsetDateTime>,
}

impl Queue {
    pub(super) fn new(receivers: Vec<String>) -> Self {
        Self { receivers, ..Self::default() }
    }

    /// Adds an event that this relay has claimed.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        let is_closed = self.circuits.is_closed(&outgoing.destination);
        if is_closed { &mut self.waiting } else { &mut self.held }.push_back(outgoing);
    }

    /// Allows one probe to each destination that is unavailable.
    pub(super) fn allow_probes(&mut self) {
        self.probing = self.circuits.open();
    }

    /// The batches to send now, each for one destination. `max_batch` is the limit of a destination.
    pub(super) fn take(
        &mut self,
        now: OffsetDateTime,
        max_batch: impl Fn(&str) -> usize,
    ) -> Vec<Vec<Sending>> {
        // Drop events whose claim has expired: another relay may have claimed them.
        for queue in [&mut self.waiting, &mut self.held] {
            queue.retain(|outgoing| outgoing.claimed_until > now);
        }
        let mut batches = Vec::new();
        for destination in std::mem::take(&mut self.probing) {
            match self.held.iter().position(|held| held.destination == destination) {
                Some(first) => {
                    self.circuits.begin_probe(&destination);
                    let probe = self.held.remove(first);
                    batches.extend(probe.map(|outgoing| vec![Sending { outgoing, is_probe: true }]));
                }
                None => self.probing.push(destination),
            }
        }
        self.gathering.retain(|_, until| *until > now);
        // The batches that take more events: their places in `batches`, by destination.
        let mut open = BTreeMap::new();
        let mut events = self.events_in_flight + batches.len();
        for outgoing in std::mem::take(&mut self.waiting) {
            let destination = outgoing.destination.clone();
            let max = if outgoing.attempts == 0 { max_batch(&destination) } else { 1 };
            let has_room = events < MAX_EVENTS_IN_FLIGHT;
            let may_begin = has_room
                && self.in_flight + batches.len() < MAX_IN_FLIGHT
                && (max == 1 || !self.gathering.contains_key(&destination));
            let batch = open.get(&destination).and_then(|place: &usize| batches.get_mut(*place));
            let batch = batch.filter(|batch: &&mut Vec<_>| has_room && batch.len() < max);
            if !self.circuits.is_closed(&destination) {
                self.held.push_back(outgoing);
            } else if let Some(batch) = batch {
                batch.push(Sending { outgoing, is_probe: false });
                events += 1;
            } else if may_begin {
                events += 1;
                if max > 1 {
                    open.insert(destination.clone(), batches.len());
                    self.gathering.insert(destination, now + GATHER_TIME);
                }
                batches.push(vec![Sending { outgoing, is_probe: false }]);
            } else {
                self.waiting.push_back(outgoing);
            }
        }
        self.in_flight += batches.len();
        self.events_in_flight = events;
        batches
    }

    /// Updates the queue with the results of one request.
    pub(super) fn finish(&mut self, batch: &[Finished]) {
        self.in_flight -= 1;
        self.events_in_flight -= batch.len();
        if let Some(Finished { sending, .. }) = batch.first() {
            let destination = &sending.outgoing.destination;
            self.gathering.remove(destination);
            match batch.iter().all(|event| matches!(event.result, Err(SendError::Unavailable(_)))) {
                true => self.circuits.unavailable(destination),
                false => self.circuits.answered(destination),
            }
        }
        for outgoing in std::mem::take(&mut self.held) {
            self.push(outgoing);
        }
    }

    /// Whether events wait for the answer to an earlier request.
    pub(super) fn is_gathering(&self) -> bool {
        !self.gathering.is_empty() && !self.waiting.is_empty()
    }

    /// The events to claim: as many as the queue has room for, and the missing probes. While all receivers are away, only
    /// probes: a search for other events would read all that wait, and find none.
    pub(super) fn wanted(&self) -> Wanted {
        let has_none = |destination: &&String| self.held.iter().all(|held| held.destination != **destination);
        let is_any_there = self.receivers.iter().any(|receiver| self.circuits.is_closed(receiver));
        let room = MAX_IN_FLIGHT.saturating_sub(self.in_flight + self.waiting.len());
        Wanted {
            heads: if is_any_there { room } else { 0 },
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::circuit::TRIP_AFTER;
    use super::*;
    use crate::messages::Event;

    const MAX_BATCH: usize = 4;

    /// A queue, and its time.
    struct Sender {
        queue: Queue,
        now: OffsetDateTime,
    }

    impl Sender {
        fn new() -> Self {
            let receivers = ["a", "b", "old"].map(str::to_owned).to_vec();
            Self { queue: Queue::new(receivers), now: crate::db::now() }
        }

        fn push(&mut self, destination: &str, attempts: i64) {
            let event = Event::new("a-service", "made.v1", "7", json!({}));
            let claimed_until = self.now + Duration::from_secs(60);
            let destination = destination.to_owned();
            self.queue.push(Outgoing { seq: 1, destination, attempts, claimed_until, event });
        }

        fn take(&mut self) -> Vec<Vec<Sending>> {
            let max_batch = |destination: &str| if destination == "old" { 1 } else { MAX_BATCH };
            self.queue.take(self.now, max_batch)
        }

        /// Destination and size of each batch.
        fn sizes(batches: &[Vec<Sending>]) -> Vec<(&str, usize)> {
            batches.iter().map(|batch| (batch[0].outgoing.destination.as_str(), batch.len())).collect()
        }

        fn answer(&mut self, batch: Vec<Sending>, results: &[Result<(), SendError>]) {
            let results = batch.into_iter().zip(results.iter().cloned());
            let finished = results.map(|(sending, result)| Finished { sending, result });
            self.queue.finish(&finished.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_single_event_is_sent_immediately_and_the_next_ones_gather_until_its_answer() {
        let mut sender = Sender::new();
        sender.push("a", 0);
        let mut first = sender.take();
        assert_eq!(Sender::sizes(&first), [("a", 1)]);
        for _ in 0..MAX_BATCH + 1 {
            sender.push("a", 0);
        }
        sender.push("b", 0);
        assert_eq!(Sender::sizes(&sender.take()), [("b", 1)], "other destinations do not wait");
        assert!(sender.queue.is_gathering());
        sender.answer(first.remove(0), &[Ok(())]);
        assert_eq!(Sender::sizes(&sender.take()), [("a", MAX_BATCH)]);
        assert!(sender.take().is_empty() && sender.queue.is_gathering());
    }

    #[test]
    fn a_receiver_that_does_not_answer_has_a_limited_number_of_events_in_flight() {
        let (mut sender, mut sent) = (Sender::new(), 0);
        loop {
            (0..20).for_each(|_| sender.push("a", 0));
            let batches = sender.queue.take(sender.now, |_| 10);
            sent += batches.iter().map(Vec::len).sum::<usize>();
            sender.now += GATHER_TIME;
            if batches.is_empty() {
                break;
            }
        }
        assert_eq!(sent, MAX_EVENTS_IN_FLIGHT);
    }

    #[test]
    fn a_slow_answer_holds_up_other_events_for_a_moment_only() {
        let mut sender = Sender::new();
        sender.push("a", 0);
        assert_eq!(Sender::sizes(&sender.take()), [("a", 1)]);
        sender.push("a", 0);
        sender.push("a", 0);
        sender.now += GATHER_TIME - Duration::from_millis(1);
        assert!(sender.take().is_empty());
        sender.now += Duration::from_millis(1);
        assert_eq!(Sender::sizes(&sender.take()), [("a", 2)]);
    }

    #[test]
    fn an_event_that_has_failed_or_whose_receiver_takes_no_batches_is_sent_alone_and_without_delay() {
        let mut sender = Sender::new();
        for (destination, attempts) in [("a", 0), ("a", 1), ("a", 0), ("old", 0), ("old", 0), ("a", 3)] {
            sender.push(destination, attempts);
        }
        let batches = sender.take();
        assert_eq!(Sender::sizes(&batches), [("a", 2), ("a", 1), ("old", 1), ("old", 1), ("a", 1)]);
    }

    #[test]
    fn while_all_receivers_are_away_only_probes_are_wanted_from_the_table() {
        let mut queue = Queue::new(["a", "b"].map(str::to_owned).to_vec());
        assert_eq!(queue.wanted().heads, MAX_IN_FLIGHT);
        for (destination, heads) in [("a", MAX_IN_FLIGHT), ("b", 0)] {
            (0..TRIP_AFTER).for_each(|_| queue.circuits.unavailable(destination));
            assert_eq!(queue.wanted().heads, heads);
        }
        queue.allow_probes();
        assert_eq!(queue.wanted().probes, ["a", "b"]);
        queue.circuits.answered("a");
        assert_eq!(queue.wanted().heads, MAX_IN_FLIGHT);
    }

    #[test]
    fn a_lost_batch_is_one_failure_of_its_destination_and_one_answered_event_is_none() {
        let mut sender = Sender::new();
        let lost = || Err(SendError::Unavailable("lost".to_owned()));
        let batch = |sender: &mut Sender| {
            (0..MAX_BATCH).for_each(|_| sender.push("a", 0));
            sender.take().remove(0)
        };
        for _ in 1..TRIP_AFTER {
            let lost_batch = batch(&mut sender);
            sender.answer(lost_batch, &[lost(), lost(), lost(), lost()]);
            assert!(sender.queue.wanted().blocked.is_empty());
        }
        let answered = batch(&mut sender);
        sender.answer(answered, &[lost(), lost(), Ok(()), lost()]);
        for failures in 1..=TRIP_AFTER {
            let lost_batch = batch(&mut sender);
            sender.answer(lost_batch, &[lost(), lost(), lost(), lost()]);
            assert_eq!(sender.queue.wanted().blocked.is_empty(), failures < TRIP_AFTER);
        }
    }
}
