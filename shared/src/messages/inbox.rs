//! The inbox: records the ids of received events, so that a repeated delivery has no second effect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::FutureExt as _;
use serde::de::DeserializeOwned;

use super::{Event, Upcast, dead_letters};
use crate::db::{Db, DbError, Tx, query};
use crate::trace::{Kind, Span};

/// A service's event handler.
#[async_trait(?Send)]
pub trait Handler {
    /// Applies `event` in `tx`, which the inbox commits. It must be quick: for long work, write a task in
    /// `tx` and do it later. Duplicates are filtered out, but events may be late or out of order.
    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError>;

    /// Conversions of old event versions, oldest first.
    fn upcasts(&self) -> &[Upcast] {
        &[]
    }
}

/// Metadata of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// One more than the handler's failures so far. A redelivery alone does not count.
    pub attempt: i64,
}

/// Why an event was not handled; decides what the transport does next.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// This version of the service does not know the type: the event becomes a dead letter.
    #[error("the type is not known here")]
    UnknownType,
    /// The event can never be handled: it becomes a dead letter.
    #[error("it cannot be handled: {0}")]
    Rejected(String),
    /// The event cannot be handled now, for example after an optimistic lock conflict: it is redelivered
    /// within a second.
    #[error("it lost a race and is tried again")]
    Retry,
    #[error(transparent)]
    Db(#[from] DbError),
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
    Kept,
}

/// Receives the events of every transport.
pub(super) struct Inbox {
    service: &'static str,
    db: Db,
    handler: Arc<dyn Handler + Send + Sync>,
}

impl Inbox {
    pub(super) fn new(service: &'static str, db: Db, handler: Arc<dyn Handler + Send + Sync>) -> Self {
        Self { service, db, handler }
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn service(&self) -> &'static str {
        self.service
    }

    /// Handles one event, with inbox row and effect in one transaction.
    pub(super) async fn receive(&self, event: &Event, delivery: Delivery) -> Result<Received, HandleError> {
        let (span, began) = (Span::below(event.traceparent.as_deref()), Instant::now());
        let received = self.handle_once(event, delivery).await;
        span.end(Kind::Consumer, || format!("handle {}", event.kind), began.elapsed(), received.is_err());
        received
    }

    async fn handle_once(&self, event: &Event, delivery: Delivery) -> Result<Received, HandleError> {
        let mut tx = self.db.begin().await?;
        if !self.record(&mut tx, event).await? {
            return Ok(Received::Duplicate);
        }
        match self.handle(&mut tx, event, delivery).await {
            Ok(()) => {
                tx.commit().await?;
                Ok(Received::Done)
            }
            Err(error @ HandleError::UnknownType) => {
                // In a new transaction, because the handler may have written something in this one.
                drop(tx);
                self.keep(event, delivery, &error).await?;
                Ok(Received::Kept)
            }
            Err(error) => Err(error),
        }
    }

    /// Handles a dead letter. Its id is in the inbox already.
    pub(super) async fn replay(&self, tx: &mut Tx, event: &Event) -> Result<(), HandleError> {
        self.handle(tx, event, Delivery { attempt: 1 }).await
    }

    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError> {
        let newest = event.upcast(self.handler.upcasts());
        let handled = AssertUnwindSafe(self.handler.handle(tx, &newest, delivery)).catch_unwind().await;
        // An event that makes the handler panic must not crash one replica after the other.
        handled.unwrap_or_else(|_| Err(HandleError::Rejected("the handler panicked".to_owned())))
    }

    /// Stores the event as a dead letter with the error `why`.
    pub(super) async fn keep(
        &self,
        event: &Event,
        delivery: Delivery,
        why: &HandleError,
    ) -> Result<(), DbError> {
        log::warn!(kind = event.kind, id = event.id.to_string(), why:%; "a message is kept as a dead letter");
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
}
