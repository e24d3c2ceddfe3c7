//! Group commit: while a transaction runs, new events wait. The next transaction handles all of them, at most 32.
//!
//! ```text
//! receive ──► waiting ──► at most 32 in one transaction ──► answers
//!                              └── failed: each event in its own transaction ──► answers
//!                                      └── a row stays locked: after all others ──► answers
//! ```
//!
//! An event waits only while a transaction runs, or in the [pause](CommitDelay) after one with several events.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use futures_util::StreamExt as _;
use futures_util::stream;
use prometheus::{Histogram, register_histogram};

use super::{Delivery, HandleError, Inbox, Received, bounded, write_deferred};
use crate::db::batching::{self, Batched, Queue};
use crate::db::{CommitDelay, DbError};
use crate::messages::Event;
use crate::trace::Current;

/// Events in one transaction. More would keep their rows locked for longer, and hardly save anything.
pub(in crate::messages) const MAX_EVENTS: usize = 32;
/// Events of a failed batch that are handled at the same time.
const MAX_ALONE: usize = 4;

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
static SIZES: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Events in one batch of the inbox.";
    register_histogram!("inbox_batch_events", help, vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        .expect("the name is unique")
});

/// The events that wait for a transaction.
pub(super) type WaitingEvents = Queue<ReceivedEvent, Handled>;

type Waiting = batching::Waiting<ReceivedEvent, Handled>;
type Handled = Result<Received, HandleError>;

pub(in crate::messages) struct ReceivedEvent {
    event: Arc<Event>,
    delivery: Delivery,
    /// The trace in which it is handled.
    current: Current,
}

/// How long a transaction waits for a row lock.
#[derive(Clone, Copy)]
enum LockTimeout {
    Short,
    Usual,
}

impl Batched for Inbox {
    type Request = ReceivedEvent;
    type Answer = Handled;

    const MAX: usize = MAX_EVENTS;

    fn queue(&self) -> &WaitingEvents {
        &self.waiting
    }

    fn delay(&self) -> Option<CommitDelay> {
        Some(CommitDelay::new(&self.db))
    }

    async fn run(&self, batch: Vec<Waiting>) {
        self.handle_batch(batch).await;
    }
}

impl Inbox {
    /// Handles the event together with others that have arrived.
    pub(super) async fn handle_in_batch(
        self: &Arc<Self>,
        event: Arc<Event>,
        delivery: Delivery,
        current: Current,
    ) -> Handled {
        let handled = batching::call(self, ReceivedEvent { event, delivery, current }).await;
        handled.unwrap_or_else(|_| Err(HandleError::Retry))
    }

    async fn handle_batch(&self, mut batch: Vec<Waiting>) {
        SIZES.observe(batch.len() as f64);
        if batch.len() > 1 {
            // All transactions lock the rows of aggregates in the same order, so that none deadlock. The events of one
            // subject keep their order.
            batch.sort_by(|one, other| one.request.event.subject.cmp(&other.request.event.subject));
            match self.handle_together(&batch).await {
                Ok(received) => {
                    for (waiting, received) in batch.into_iter().zip(received) {
                        waiting.answer(Ok(received));
                    }
                    return;
                }
                Err(error) => {
                    log::info!(count = batch.len(), error:%; "a batch of events failed: each is handled alone")
                }
            }
        }
        // An event whose row stays locked does not hold up the others.
        let locked = if batch.len() > 1 { self.handle_each(batch, LockTimeout::Short).await } else { batch };
        self.handle_each(locked, LockTimeout::Usual).await;
    }

    /// Handles each event in its own transaction. Returns those whose rows stayed locked for longer than the
    /// [short](LockTimeout::Short) timeout.
    async fn handle_each(&self, batch: Vec<Waiting>, lock_timeout: LockTimeout) -> Vec<Waiting> {
        let (locked, gave_up) = (RefCell::new(Vec::<Waiting>::new()), Cell::new(false));
        let handle = async |waiting: Waiting| {
            let is_same = |locked: &Waiting| locked.request.event.subject == waiting.request.event.subject;
            if locked.borrow().iter().any(is_same) {
                return locked.borrow_mut().push(waiting);
            }
            let handled = match gave_up.get() {
                false => self.handle_with(lock_timeout, &waiting.request).await,
                true => Err(HandleError::Retry),
            };
            match (&handled, lock_timeout) {
                (Err(HandleError::Db(DbError::Locked(_))), LockTimeout::Short) => {
                    return locked.borrow_mut().push(waiting);
                }
                // The rest of the batch is given up: each event would wait until its timeout, one after the other.
                (Err(HandleError::Db(DbError::Locked(_) | DbError::Unavailable(_))), _) => gave_up.set(true),
                _ => {}
            }
            waiting.answer(handled);
        };
        let handle_all = async |events| {
            for waiting in events {
                handle(waiting).await;
            }
        };
        stream::iter(by_subject(batch)).for_each_concurrent(MAX_ALONE, handle_all).await;
        locked.into_inner()
    }

    async fn handle_with(&self, lock_timeout: LockTimeout, received: &ReceivedEvent) -> Handled {
        let ReceivedEvent { event, delivery, current } = received;
        let handling = async {
            let tx = match lock_timeout {
                LockTimeout::Short => self.db.begin_with_short_lock_timeout().await?,
                LockTimeout::Usual => self.db.begin().await?,
            };
            self.handle_alone(tx, event, *delivery).await
        };
        current.clone().scope(handling).await
    }

    /// Handles all events in one transaction. After an error, none has an effect.
    async fn handle_together(&self, batch: &[Waiting]) -> Result<Vec<Received>, HandleError> {
        let traces = batch.iter().map(|waiting| waiting.request.current.clone());
        let mut tx = self.db.begin_in(traces).await?;
        let ids: BTreeSet<_> = batch.iter().map(|waiting| waiting.request.event.id).collect();
        let mut new = self.record_all(&mut tx, ids).await?;
        let events: Vec<_> = batch
            .iter()
            .map(|waiting| &*waiting.request.event)
            .filter(|event| new.contains(&event.id))
            .collect();
        if events.len() > 1 {
            bounded(self.handler.prepare(&mut tx, &events)).await?;
        }
        let mut received = Vec::with_capacity(batch.len());
        for ReceivedEvent { event, delivery, current } in batch.iter().map(|waiting| &waiting.request) {
            // An event may be in the batch twice.
            if new.remove(&event.id) {
                current.clone().scope(self.handle(&mut tx, event, *delivery)).await?;
                received.push(Received::Done);
            } else {
                received.push(Received::Duplicate);
            }
        }
        write_deferred(&mut tx).await?;
        tx.commit().await?;
        Ok(received)
    }
}

/// The events of each subject, in their order. The events of `batch` are sorted by subject.
fn by_subject(batch: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut subjects: Vec<Vec<Waiting>> = Vec::new();
    for waiting in batch {
        let is_same = |last: &Waiting| last.request.event.subject == waiting.request.event.subject;
        match subjects.last_mut().filter(|events| events.last().is_some_and(is_same)) {
            Some(events) => events.push(waiting),
            None => subjects.push(vec![waiting]),
        }
    }
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SpanContext;

    #[test]
    fn events_of_one_subject_stay_together_and_in_order() {
        let waiting = |(subject, number): (&str, i64)| {
            let event = Arc::new(Event::new("sender", "thing.done.v1", subject, number));
            let current = Current::new(None, SpanContext::NONE);
            Waiting::new(ReceivedEvent { event, delivery: Delivery { attempt: 1 }, current }).0
        };
        let batch = [("a", 1), ("b", 2), ("b", 3), ("c", 4)].into_iter().map(waiting).collect();
        let numbers =
            |events: Vec<Waiting>| events.iter().map(|waiting| waiting.request.event.data.as_i64()).collect();
        let subjects: Vec<Vec<_>> = by_subject(batch).into_iter().map(numbers).collect();
        assert_eq!(subjects, [vec![Some(1)], vec![Some(2), Some(3)], vec![Some(4)]]);
    }
}
