//! A transport with the faults of the [lab](crate::lab). No fault loses a message: both real transports deliver at least
//! once.

use std::cell::RefCell;
use std::rc::Rc;

use async_trait::async_trait;

use super::{Nats, Outgoing, SendError, Transport};
use crate::lab::{Fault, Lab, SLOW};

pub(super) struct Faulty {
    inner: Rc<dyn Transport>,
    lab: Lab,
    /// The last message that was sent while messages were reordered.
    before: RefCell<Option<Outgoing>>,
}

impl Faulty {
    pub(super) fn new(inner: Rc<dyn Transport>, lab: Lab) -> Self {
        Self { inner, lab, before: RefCell::default() }
    }
}

#[async_trait(?Send)]
impl Transport for Faulty {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        if self.lab.is_running(Fault::MessagesDelayed) {
            tokio::time::sleep(SLOW).await;
        }
        let is_reordered = self.lab.is_running(Fault::MessagesReordered);
        if is_reordered {
            // The relay sends those of other subjects meanwhile.
            tokio::time::sleep(SLOW.mul_f64(rand::random())).await;
        }
        self.inner.send(outgoing).await?;
        if self.lab.is_running(Fault::MessagesDuplicated) {
            self.again(outgoing).await;
        }
        let before = self.before.replace(is_reordered.then(|| outgoing.clone()));
        if let Some(before) = before.filter(|_| is_reordered) {
            self.again(&before).await;
        }
        Ok(())
    }

    fn broker(&self) -> Option<Nats> {
        self.inner.broker()
    }
}

impl Faulty {
    async fn again(&self, outgoing: &Outgoing) {
        if let Err(error) = self.inner.send(outgoing).await {
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

    /// Notes the subjects of what it sends.
    #[derive(Default)]
    struct Notes(RefCell<Vec<String>>);

    #[async_trait(?Send)]
    impl Transport for Notes {
        async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
            self.0.borrow_mut().push(outgoing.event.subject.clone());
            Ok(())
        }
    }

    fn outgoing(subject: &str) -> Outgoing {
        let event = Event::new("a-service", "made.v1", subject, json!({}));
        let claimed_until = crate::db::now();
        Outgoing { seq: 1, destination: "a-receiver".to_owned(), attempts: 0, claimed_until, event }
    }

    async fn sent(faults: &[Fault]) -> (Vec<String>, Duration) {
        let (notes, lab) = (Rc::new(Notes::default()), Lab::default());
        faults.iter().for_each(|fault| lab.start(*fault, Duration::from_secs(60)));
        let faulty = Faulty::new(notes.clone(), lab);
        let begun = tokio::time::Instant::now();
        for subject in ["a", "b"] {
            faulty.send(&outgoing(subject)).await.unwrap();
        }
        (notes.0.take(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_delayed_duplicated_and_repeated_after_later_ones() {
        assert_eq!(sent(&[]).await, (vec!["a".to_owned(), "b".to_owned()], Duration::ZERO));
        assert_eq!(sent(&[Fault::MessagesDelayed]).await.1, 2 * SLOW);
        assert_eq!(sent(&[Fault::MessagesDuplicated]).await.0, ["a", "a", "b", "b"]);
        assert_eq!(sent(&[Fault::MessagesReordered]).await.0, ["a", "b", "a"]);
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
