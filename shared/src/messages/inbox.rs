//! The inbox: what has been received, so that its effect happens once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde::de::DeserializeOwned;

use super::{Event, Upcast, dead_letters};
use crate::db::{Db, DbError, Tx, now, query};
use crate::trace::{Kind, Span};

/// What a service does with the events it receives.
pub trait Handler {
    /// Does the work of `event` in `tx`, quickly: what takes long is written down there and done
    /// after. Repetitions have been sorted out, but events may be late or out of order.
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
        delivery: Delivery,
    ) -> LocalBoxFuture<'a, Result<(), HandleError>>;

    /// How events of old versions become those that are handled, oldest step first.
    fn upcasts(&self) -> &[Upcast] {
        &[]
    }
}

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The try at which it came, from 1.
    pub attempt: i64,
}

/// Why an event had no effect.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// This version does not know its type: it is kept until one does.
    #[error("the type is not known here")]
    UnknownType,
    /// It can never be handled.
    #[error("it cannot be handled: {0}")]
    Rejected(String),
    /// It cannot be handled now; it comes again within a second.
    #[error("it lost a race and is tried again")]
    Retry,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Event {
    /// The data as a `T`; unknown fields are ignored, so that a sender may add some.
    ///
    /// # Errors
    /// [`HandleError::Rejected`] if it is no `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, HandleError> {
        T::deserialize(&self.data).map_err(|error| HandleError::Rejected(format!("{}: {error}", self.kind)))
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Its effect happened now.
    Done,
    /// It had happened before.
    Duplicate,
    /// It is kept as a dead letter, because its type is not known.
    Kept,
}

/// Where events arrive, by whatever transport.
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

    /// Takes in one event: inbox row and effect in one transaction.
    pub(super) async fn receive(&self, event: &Event, delivery: Delivery) -> Result<Received, HandleError> {
        let (span, began) = (Span::below(event.traceparent.as_deref()), Instant::now());
        let received = self.take_in(event, delivery).await;
        span.end(Kind::Consumer, || format!("handle {}", event.kind), began.elapsed(), received.is_err());
        received
    }

    async fn take_in(&self, event: &Event, delivery: Delivery) -> Result<Received, HandleError> {
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
                // Not in the transaction of the handler, which may have written something.
                drop(tx);
                self.keep(event, delivery, &error).await?;
                Ok(Received::Kept)
            }
            Err(error) => Err(error),
        }
    }

    /// Handles an event again that was kept; it is in the inbox already.
    pub(super) async fn again(&self, tx: &mut Tx, event: &Event) -> Result<(), HandleError> {
        self.handle(tx, event, Delivery { attempt: 1 }).await
    }

    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError> {
        let newest = event.upcast(self.handler.upcasts());
        let handled = AssertUnwindSafe(self.handler.handle(tx, &newest, delivery)).catch_unwind().await;
        // An event that makes the handler panic must not take down one replica after the other.
        handled.unwrap_or_else(|_| Err(HandleError::Rejected("the handler panicked".to_owned())))
    }

    /// Keeps an event as a dead letter, because of `why`.
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

    /// Whether this is the first time.
    async fn record(&self, tx: &mut Tx, event: &Event) -> Result<bool, DbError> {
        let recorded = query(
            "INSERT INTO inbox (consumer, id, seen_at) VALUES ($1, $2, $3) \
             ON CONFLICT (consumer, id) DO NOTHING",
        )
        .bind(self.service)
        .bind(event.id)
        .bind(now())
        .execute(tx)
        .await?;
        Ok(recorded == 1)
    }
}
