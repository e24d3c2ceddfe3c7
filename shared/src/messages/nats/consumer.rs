//! The receiving end: one durable consumer for each partition, shared by the service's replicas.
//!
//! | handling | then |
//! |---|---|
//! | succeeds, or had done before | acknowledged |
//! | asks for a retry, or finds the database unavailable | again within a second, for ever |
//! | fails | again later and later; at the tenth delivery a dead letter |
//! | rejects the event, or it cannot be read | a dead letter at once |
//!
//! A delivery that is not answered within a claim's time, because its replica died, is repeated.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, Stream};
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::{Nats, PARTITIONS, TIMEOUT};
use crate::db::DbError;
use crate::messages::Event;
use crate::messages::inbox::{Delivery, HandleError, Inbox};
use crate::messages::outbox::{self, ATTEMPTS, UNAVAILABLE};
use crate::resilience::Backoff;
use crate::stop::Stop;

/// Before the broker is asked again for what it could not do.
const PAUSE: Duration = Duration::from_secs(1);

impl Nats {
    /// Brings this service's events to `inbox` until told to stop, and then finishes those it handles.
    /// Each connection begins anew: the broker may have forgotten everything.
    pub(in crate::messages) async fn consume(&self, inbox: Arc<Inbox>, stop: Stop) {
        let mut connected = self.connected.clone();
        while !stop.is_requested() {
            if *connected.borrow_and_update() {
                match self.consumers(inbox.service()).await {
                    Ok(consumers) => {
                        let (stopper, over) = Stop::pair();
                        let handling = consumers.into_iter().map(async |events| {
                            take(events, &inbox, &over, self.retry).await;
                            stopper.stop();
                        });
                        let watching = async {
                            tokio::select! {
                                _ = connected.changed() => {}
                                () = stop.requested() => {}
                                () = over.requested() => {}
                            }
                            stopper.stop();
                        };
                        join(join_all(handling), watching).await;
                        continue;
                    }
                    Err(error) => log::warn!(error:%; "events cannot be fetched"),
                }
            }
            tokio::select! {
                _ = connected.changed() => {}
                () = stop.sleep(PAUSE) => {}
            }
        }
        // The last acknowledgements. Without them the events come again, and are known.
        tokio::time::timeout(TIMEOUT, self.jetstream.client().flush()).await.map(drop).unwrap_or_default();
    }

    /// What comes for each partition, of consumers that are made if they are missing.
    async fn consumers(&self, service: &str) -> Result<Vec<Stream>, async_nats::Error> {
        let stream = self.stream().await?;
        let mut consumers = Vec::new();
        for partition in 0..PARTITIONS {
            let name = format!("{service}-{partition}");
            let config = pull::Config {
                durable_name: Some(name.clone()),
                filter_subject: self.subject(service, partition),
                ack_wait: outbox::LEASE.unsigned_abs(),
                // One at a time, also while it waits to come again: this is what keeps the order.
                max_ack_pending: 1,
                ..pull::Config::default()
            };
            let consumer = stream.get_or_create_consumer(&name, config).await?;
            // One by one, so that a replica that is paused holds no more than it handles.
            consumers.push(consumer.stream().max_messages_per_batch(1).messages().await?);
        }
        Ok(consumers)
    }
}

async fn take(mut events: Stream, inbox: &Inbox, over: &Stop, retry: Backoff) {
    loop {
        let message = tokio::select! {
            message = events.next() => message,
            () = over.requested() => return,
        };
        match message {
            Some(Ok(message)) => {
                let verdict = handle(inbox, &message, retry).await;
                if let Err(error) = message.ack_with(verdict).await {
                    log::warn!(error:%; "an event is not acknowledged, and will come again");
                }
            }
            Some(Err(error)) => {
                log::warn!(error:%; "no more events come");
                return;
            }
            None => return,
        }
    }
}

/// Takes in one event; what the broker is to hear.
async fn handle(inbox: &Inbox, message: &Message, retry: Backoff) -> AckKind {
    let attempt = message.info().map_or(1, |info| info.delivered);
    let delivery = Delivery { attempt };
    let (event, result) = match serde_json::from_slice::<Event>(&message.payload) {
        Ok(event) => {
            let received = inbox.receive(&event, delivery).await;
            (event, received)
        }
        Err(error) => (unreadable(&message.payload), Err(HandleError::Rejected(error.to_string()))),
    };
    let error = match result {
        Ok(received) => {
            log::debug!(kind = event.kind, id = event.id.to_string(), received:?; "a message arrived");
            return AckKind::Ack;
        }
        Err(error) => error,
    };
    log::warn!(kind = event.kind, id = event.id.to_string(), attempt, error:%; "a message was not handled");
    match &error {
        HandleError::Retry | HandleError::Db(DbError::Unavailable(_) | DbError::Locked(_)) => {
            again(UNAVAILABLE, attempt)
        }
        HandleError::Db(_) if attempt < ATTEMPTS => again(retry, attempt),
        _ => match inbox.keep(&event, delivery, &error).await {
            Ok(()) => AckKind::Term,
            Err(_) => again(UNAVAILABLE, attempt),
        },
    }
}

fn again(backoff: Backoff, attempt: i64) -> AckKind {
    AckKind::Nak(Some(backoff.delay(attempt.try_into().unwrap_or(u32::MAX))))
}

/// What is no event, as one that can be kept. The same bytes have the same id.
fn unreadable(payload: &[u8]) -> Event {
    let text = String::from_utf8_lossy(payload);
    let mut event = Event::new("unknown", "unreadable", "", text);
    event.id = Uuid::new_v5(&Uuid::NAMESPACE_OID, payload);
    event
}
