//! The inbox: records the ids of received events, so that a repeated delivery has no second effect.

mod batches; // group commit

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub(super) use self::batches::MAX_EVENTS;

use self::batches::WaitingEvents;
use super::{Event, Upcast, dead_letters, tracing};
use crate::db::{Db, DbError, Tx, query};
use crate::panics::catch_panic;
use crate::trace::{Current, SpanContext, Traceparent};

/// How long a handler may take. Then its event has failed, so that the events behind it are handled. A sender over HTTP
/// gives up earlier, and sends the event again.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(20);

/// A service's event handler.
#[async_trait(?Send)]
pub trait Handler {
    /// Applies `event` in `tx`, which the inbox commits. The handler must be quick: for long work, write a task in
    /// `tx` and do it later. The inbox removes duplicates, but events may be late or out of order.
    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError>;

    /// Runs before [`Handler::handle`] if several events share `tx`. They are not upcast yet. May read and lock the rows of all of them with one
    /// statement. If it fails, each event is handled in its own transaction.
    async fn prepare(&self, _tx: &mut Tx, _events: &[&Event]) -> Result<(), HandleError> {
        Ok(())
    }

    /// Conversions of old event versions, oldest first.
    fn upcasts(&self) -> &[Upcast] {
        &[]
    }
}

/// Metadata of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// One more than the handler's failures so far. A redelivery without a failure does not count.
    pub attempt: i64,
}

/// The reason why an event was not handled. The transport decides by it what to do next.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// This version of the service does not know the type. The event becomes a dead letter.
    #[error("the type is not known here")]
    UnknownType,
    /// The event can never be handled. It becomes a dead letter.
    #[error("it cannot be handled: {0}")]
    Rejected(String),
    /// The event cannot be handled now, for example after an optimistic lock conflict. It is redelivered within a
    /// second.
    #[error("it cannot be handled now, and will be redelivered")]
    Retry,
    /// The handler did not end within 20 s.
    #[error("the handler took too long")]
    Timeout,
    #[error(transparent)]
    Db(#[from] DbError),
}

impl HandleError {
    /// The value of the span attribute `error.type`.
    fn kind(&self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::Rejected(_) => "rejected",
            Self::Retry => "retry",
            Self::Timeout => "timeout",
            Self::Db(_) => "database",
        }
    }
}

impl Event {
    /// Deserializes the data; [`HandleError::Rejected`] if that fails. Unknown fields are ignored, so that a
    /// sender may add some.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, HandleError> {
        T::deserialize(&self.data).map_err(|error| HandleError::Rejected(format!("{}: {error}", self.kind)))
    }
}

/// Result of receiving an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The handler ran.
    Done,
    /// The event had been received before.
    Duplicate,
    /// The type is unknown: stored as a dead letter.
    DeadLetter,
}

impl Received {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// Receives the events of every transport.
pub(super) struct Inbox {
    service: &'static str,
    db: Db,
    handler: Arc<dyn Handler + Send + Sync>,
    waiting: WaitingEvents,
}

impl Inbox {
    pub(super) fn new(service: &'static str, db: Db, handler: Arc<dyn Handler + Send + Sync>) -> Self {
        Self { service, db, handler, waiting: WaitingEvents::default() }
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn service(&self) -> &'static str {
        self.service
    }

    /// Handles an event, with inbox row and effect in one transaction. Events that arrive together share one transaction.
    pub(super) async fn receive(
        self: &Arc<Self>,
        event: &Arc<Event>,
        delivery: Delivery,
    ) -> Result<Received, HandleError> {
        let (mut span, current) = tracing::processing(event, delivery.attempt, self.service);
        let received = self.handle_in_batch(event.clone(), delivery, current).await;
        span.record(|span| match &received {
            Ok(received) => span.set("messaging.message.outcome", received.as_str()),
            Err(error) => span.fail(error.kind()),
        });
        received
    }

    /// Handles one event in its transaction `tx`.
    async fn handle_alone(
        &self,
        mut tx: Tx,
        event: &Event,
        delivery: Delivery,
    ) -> Result<Received, HandleError> {
        if !self.record(&mut tx, event).await? {
            return Ok(Received::Duplicate);
        }
        let handled = match self.handle(&mut tx, event, delivery).await {
            Ok(()) => write_deferred(&mut tx).await,
            failed => failed,
        };
        match handled {
            Ok(()) => {
                tx.commit().await?;
                Ok(Received::Done)
            }
            Err(error @ HandleError::UnknownType) => {
                // In a new transaction, because the handler may have written something in this one.
                drop(tx);
                self.store_dead_letter(event, delivery, &error).await?;
                Ok(Received::DeadLetter)
            }
            Err(error) => Err(error),
        }
    }

    /// Handles a dead letter. Its id is in the inbox already.
    pub(super) async fn replay(&self, tx: &mut Tx, event: &Event) -> Result<(), HandleError> {
        self.handle(tx, event, Delivery { attempt: 1 }).await?;
        write_deferred(tx).await
    }

    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError> {
        // A conversion may panic, too.
        let handling = async {
            let mut newest = event.upcast(self.handler.upcasts());
            // The spans of the handler, and the messages that it sends, are children of the span of handling.
            if let Some(span) = Current::span().filter(SpanContext::is_sampled) {
                newest.to_mut().traceparent = Some(Traceparent::of(&span).as_str().to_owned());
            }
            self.handler.handle(tx, &newest, delivery).await
        };
        bounded(handling).await
    }

    /// Stores the event as a dead letter with the error `why`.
    pub(super) async fn store_dead_letter(
        &self,
        event: &Event,
        delivery: Delivery,
        why: &HandleError,
    ) -> Result<(), DbError> {
        log::warn!(message_type = event.kind, message_id = event.id.to_string(), error:% = why; "a message is kept as a dead letter");
        let mut tx = self.db.begin().await?;
        if self.record(&mut tx, event).await? {
            dead_letters::keep(&mut tx, self.service, event, delivery.attempt, &why.to_string()).await?;
        }
        tx.commit().await
    }

    /// Inserts the inbox row; returns whether it is new.
    async fn record(&self, tx: &mut Tx, event: &Event) -> Result<bool, DbError> {
        let recorded = query(
            "INSERT INTO inbox (consumer, id, seen_at) VALUES ($1, $2, $3) \
             ON CONFLICT (consumer, id) DO NOTHING",
        )
        .bind(self.service)
        .bind(event.id)
        .bind(tx.now())
        .execute(tx)
        .await?;
        Ok(recorded == 1)
    }

    /// Inserts several inbox rows; returns the ids that are new.
    async fn record_all(&self, tx: &mut Tx, ids: BTreeSet<Uuid>) -> Result<BTreeSet<Uuid>, DbError> {
        let recorded = query(
            "INSERT INTO inbox (consumer, id, seen_at) SELECT $1, value, $3 FROM UNNEST($2) AS value WHERE TRUE \
             ON CONFLICT (consumer, id) DO NOTHING RETURNING id",
        )
        .bind(self.service)
        .bind(ids.into_iter().collect::<Vec<_>>())
        .bind(tx.now())
        .fetch_all(tx)
        .await?;
        recorded.iter().map(|row| row.get("id")).collect()
    }
}

/// Runs the deferred writes of the handlers of `tx`.
async fn write_deferred(tx: &mut Tx) -> Result<(), HandleError> {
    let written = rejected_on_panic(async { Ok(tx.write_deferred().await?) });
    written.await.map_err(|error| match error {
        HandleError::Db(DbError::Contradiction(why)) => HandleError::Rejected(why),
        error => error,
    })
}

/// A handler that hangs must not hold up its replica.
async fn bounded(handling: impl Future<Output = Result<(), HandleError>>) -> Result<(), HandleError> {
    let handled = tokio::time::timeout(HANDLER_TIMEOUT, rejected_on_panic(handling)).await;
    handled.unwrap_or(Err(HandleError::Timeout))
}

/// An event that makes its handler panic must not crash one replica after the other.
async fn rejected_on_panic(
    handling: impl Future<Output = Result<(), HandleError>>,
) -> Result<(), HandleError> {
    let handled = catch_panic(handling).await;
    handled.unwrap_or_else(|panicked| Err(HandleError::Rejected(panicked.to_string())))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_hangs_fails_and_a_slow_one_does_not() {
        assert!(matches!(bounded(pending()).await, Err(HandleError::Timeout)));
        let slow = async {
            tokio::time::sleep(HANDLER_TIMEOUT / 2).await;
            Ok(())
        };
        assert!(bounded(slow).await.is_ok());
    }
}
