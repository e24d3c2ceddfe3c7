//! A transport with the faults of the [lab](crate::lab). No fault loses a message: both real transports deliver at least
//! once.

use std::cell::RefCell;
use std::rc::Rc;

use async_trait::async_trait;

use super::{Nats, Outgoing, SendError, SendResult, Transport};
use crate::lab::{Fault, Lab, SLOW};

pub(super) struct Faulty {
    inner: Rc<dyn Transport>,
    lab: Lab,
    /// The last messages that were sent while messages were reordered.
    previous: RefCell<Vec<Outgoing>>,
}

impl Faulty {
    pub(super) fn new(inner: Rc<dyn Transport>, lab: Lab) -> Self {
        Self { inner, lab, previous: RefCell::default() }
    }
}

#[async_trait(?Send)]
impl Transport for Faulty {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        let mut results = self.send_batch(&[outgoing]).await;
        results.pop().unwrap_or_else(|| Err(SendError::Unavailable("there is no result".to_owned())))
    }

    fn max_batch(&self, destination: &str) -> usize {
        self.inner.max_batch(destination)
    }

    async fn send_batch(&self, batch: &[&Outgoing]) -> Vec<SendResult> {
        if self.lab.acts(Fault::MessagesDelayed) {
            tokio::time::sleep(SLOW).await;
        }
        let is_reordered = self.lab.is_running(Fault::MessagesReordered);
        if is_reordered {
            // The relay sends those of other subjects meanwhile.
            tokio::time::sleep(SLOW.mul_f64(rand::random())).await;
        }
        let results = self.inner.send_batch(batch).await;
        let delivered = batch.iter().zip(&results).filter(|(_, result)| result.is_ok());
        let delivered: Vec<&Outgoing> = delivered.map(|(outgoing, _)| *outgoing).collect();
        if !delivered.is_empty() && self.lab.acts(Fault::MessagesDuplicated) {
            self.again(&delivered).await;
        }
        let delivered = if is_reordered { delivered.into_iter().cloned().collect() } else { Vec::new() };
        let previous = self.previous.replace(delivered);
        if !previous.is_empty() && self.lab.acts(Fault::MessagesReordered) {
            self.again(&previous.iter().collect::<Vec<_>>()).await;
        }
        results
    }

    fn broker(&self) -> Option<Nats> {
        self.inner.broker()
    }
}

impl Faulty {
    async fn again(&self, batch: &[&Outgoing]) {
        for error in self.inner.send_batch(batch).await.into_iter().filter_map(Result::err) {
            log::debug!(error:%; "a message is not sent once more");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join;
    use serde_json::json;

    use super::*;
    use crate::messages::Event;

    /// Notes the subjects of what it sends. Rejects the subject "bad".
    #[derive(Default)]
    struct Notes(RefCell<Vec<String>>);

    #[async_trait(?Send)]
    impl Transport for Notes {
        async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
            let subject = &outgoing.event.subject;
            self.0.borrow_mut().push(subject.clone());
            if subject == "bad" { Err(SendError::Rejected("bad".to_owned())) } else { Ok(()) }
        }
    }

    fn outgoing(subject: &str) -> Outgoing {
        let event = Event::new("a-service", "made.v1", subject, json!({}));
        let claimed_until = crate::db::now();
        Outgoing { seq: 1, destination: "a-receiver".to_owned(), attempts: 0, claimed_until, event }
    }

    /// What was sent, after which time, and how often the faults have acted.
    async fn sent(faults: &[Fault]) -> (Vec<String>, Duration, u64) {
        let (notes, lab) = (Rc::new(Notes::default()), Lab::default());
        faults.iter().for_each(|fault| lab.start(*fault, Duration::from_secs(60)));
        let faulty = Faulty::new(notes.clone(), lab.clone());
        let begun = tokio::time::Instant::now();
        for subject in ["a", "b"] {
            faulty.send(&outgoing(subject)).await.unwrap();
        }
        (notes.0.take(), begun.elapsed(), lab.injected().into_values().sum())
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_delayed_duplicated_and_repeated_after_later_ones() {
        assert_eq!(sent(&[]).await, (vec!["a".to_owned(), "b".to_owned()], Duration::ZERO, 0));
        let (_, took, times) = sent(&[Fault::MessagesDelayed]).await;
        assert_eq!((took, times), (2 * SLOW, 2));
        let (sent_now, _, times) = sent(&[Fault::MessagesDuplicated]).await;
        assert_eq!((sent_now.join(" ").as_str(), times), ("a a b b", 2));
        let (sent_now, _, times) = sent(&[Fault::MessagesReordered]).await;
        assert_eq!((sent_now.join(" ").as_str(), times), ("a b a", 1), "the first has nothing to overtake");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_delivered_of_a_batch_is_duplicated_and_repeated_after_later_ones() {
        let batches =
            [vec![outgoing("a"), outgoing("bad"), outgoing("b")], vec![outgoing("c"), outgoing("d")]];
        for (fault, expected) in [
            (Fault::MessagesDuplicated, "a bad b a b c d c d"),
            (Fault::MessagesReordered, "a bad b c d a b"),
        ] {
            let (notes, lab) = (Rc::new(Notes::default()), Lab::default());
            lab.start(fault, Duration::from_secs(60));
            let faulty = Faulty::new(notes.clone(), lab);
            let mut failed = 0;
            for batch in &batches {
                let results = faulty.send_batch(&batch.iter().collect::<Vec<_>>()).await;
                assert_eq!(results.len(), batch.len());
                failed += results.iter().filter(|result| result.is_err()).count();
            }
            assert_eq!((notes.0.take().join(" ").as_str(), failed), (expected, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_message_overtakes_an_earlier_one() {
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let (notes, lab) = (Rc::new(Notes::default()), Lab::default());
            lab.start(Fault::MessagesReordered, Duration::from_secs(60));
            let faulty = Faulty::new(notes.clone(), lab);
            let (earlier, later) = (outgoing("a"), outgoing("b"));
            let (one, other) = join(faulty.send(&earlier), faulty.send(&later)).await;
            one.and(other).unwrap();
            orders.insert(notes.0.take()[0].clone());
        }
        assert_eq!(orders.len(), 2, "{orders:?}");
    }
}
