//! Receives events from NATS: one durable consumer per partition, shared by the service's replicas.
//!
//! | result of handling | action |
//! |---|---|
//! | success, or a duplicate | acknowledge |
//! | `Retry`, or the database is unavailable | redeliver within a second, without limit |
//! | any other database error, or the handler took too long | redeliver with backoff; a dead letter at the tenth such failure |
//! | rejected, or the event cannot be parsed | a dead letter immediately |
//!
//! If a replica dies, the broker redelivers its unacknowledged events after [`outbox::LEASE`]. A replica that still
//! handles an event reports progress to the broker. The broker's count of deliveries is not used, because it grows in
//! every outage. Failures of the handler are counted in the database.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, Stream};
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::failures::{count_failure, failures};
use super::{Nats, PARTITIONS, TIMEOUT};
use crate::db::DbError;
use crate::messages::Event;
use crate::messages::inbox::{Delivery, HandleError, Inbox};
use crate::messages::outbox::{self, MAX_ATTEMPTS, UNAVAILABLE};
use crate::resilience::Backoff;
use crate::stop::Stop;
use crate::trace::{self, Current, SpanContext};

/// The pause between attempts to create the consumers.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The maximum number of progress reports for one event. After them, the broker redelivers the event.
const MAX_PROGRESS_REPORTS: u32 = 12;

impl Nats {
    /// Passes this service's events to `inbox` until `stop`, and then finishes those in progress. After each reconnect,
    /// it creates the stream and the consumers again, because the broker may have lost them.
    pub(in crate::messages) async fn consume(&self, inbox: Arc<Inbox>, stop: Stop) {
        let mut connected = self.connected.clone();
        while !stop.is_requested() {
            if *connected.borrow_and_update() {
                match self.consumers(inbox.service()).await {
                    Ok(consumers) => {
                        let (stopper, over) = Stop::pair();
                        let handling = consumers.into_iter().map(async |events| {
                            self.receive(events, &inbox, &over).await;
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
                () = stop.sleep(RETRY_PAUSE) => {}
            }
        }
        // Sends the last acknowledgements. If one is lost, the inbox drops the redelivered event.
        tokio::time::timeout(TIMEOUT, self.jetstream.client().flush()).await.map(drop).unwrap_or_default();
    }

    /// One stream of events per partition. Creates missing consumers.
    async fn consumers(&self, service: &str) -> Result<Vec<Stream>, async_nats::Error> {
        let stream = self.stream().await?;
        let mut consumers = Vec::new();
        for partition in 0..PARTITIONS {
            let name = format!("{service}-{partition}");
            let config = pull::Config {
                durable_name: Some(name.clone()),
                filter_subject: self.subject(service, partition),
                ack_wait: outbox::LEASE.unsigned_abs(),
                // One event at a time, even while it waits for redelivery. This preserves the order.
                max_ack_pending: 1,
                ..pull::Config::default()
            };
            let consumer = stream.get_or_create_consumer(&name, config).await?;
            // No prefetching: a replica that hangs must not hold events that others could handle.
            consumers.push(consumer.stream().max_messages_per_batch(1).messages().await?);
        }
        Ok(consumers)
    }

    async fn receive(&self, mut events: Stream, inbox: &Arc<Inbox>, over: &Stop) {
        loop {
            let message = tokio::select! {
                message = events.next() => message,
                () = over.requested() => return,
            };
            match message {
                Some(Ok(message)) => {
                    let acknowledgement = tokio::select! {
                        acknowledgement = sender(&message).scope(self.handle(inbox, &message)) => acknowledgement,
                        never = report_progress(&message) => match never {},
                    };
                    if let Err(error) = message.ack_with(acknowledgement).await {
                        log::warn!(error:%; "an event could not be acknowledged, and will be redelivered");
                    }
                }
                Some(Err(error)) => {
                    log::warn!(error:%; "the consumer failed");
                    return;
                }
                None => return,
            }
        }
    }

    /// Handles one event; returns the acknowledgement for the broker.
    async fn handle(&self, inbox: &Arc<Inbox>, message: &Message) -> AckKind {
        let event = match serde_json::from_slice::<Event>(&message.payload) {
            Ok(event) => Arc::new(event),
            Err(error) => {
                let error = HandleError::Rejected(error.to_string());
                return store_dead_letter(inbox, &unreadable(&message.payload), 1, &error).await;
            }
        };
        let is_first = message.info().is_ok_and(|info| info.delivered == 1);
        let failed = if is_first { Ok(0) } else { failures(inbox, event.id).await };
        let attempt = failed.as_ref().map_or(1, |failures| failures + 1);
        let received = match failed {
            // The broker limits which services publish to these subjects. This checks the source and the type that
            // the event names; see `calls.txt`.
            Ok(_) if !self.calls.accept(&event.source, inbox.service(), &event.kind) => {
                Err(HandleError::Rejected(format!("{} may not send this", event.source)))
            }
            Ok(_) => inbox.receive(&event, Delivery { attempt }).await,
            Err(error) => Err(error.into()),
        };
        let error = match received {
            Ok(received) => {
                log::debug!(message_type = event.kind, message_id = event.id.to_string(), outcome:? = received; "a message was handled");
                return AckKind::Ack;
            }
            Err(error) => error,
        };
        log::warn!(message_type = event.kind, message_id = event.id.to_string(), attempt, error:%; "a message was not handled");
        match &error {
            HandleError::Retry | HandleError::Db(DbError::Unavailable(_) | DbError::Locked(_)) => {
                redeliver(UNAVAILABLE, attempt)
            }
            HandleError::Db(_) | HandleError::Timeout => match count_failure(inbox, event.id).await {
                Ok(failures) if failures < MAX_ATTEMPTS => redeliver(self.retry, failures),
                Ok(failures) => store_dead_letter(inbox, &event, failures, &error).await,
                Err(_) => redeliver(UNAVAILABLE, attempt),
            },
            HandleError::UnknownType | HandleError::Rejected(_) => {
                store_dead_letter(inbox, &event, attempt, &error).await
            }
        }
    }
}

/// The context of the send; empty if the sender has none.
fn sender(message: &Message) -> Current {
    let traceparent = message.headers.as_ref().and_then(|headers| headers.get("traceparent"));
    let span = traceparent.and_then(|traceparent| trace::parse(traceparent.as_str(), None));
    Current::new(None, span.unwrap_or(SpanContext::NONE))
}

/// Reports progress, so that the broker does not redeliver an event whose handling takes longer than
/// [`outbox::LEASE`].
async fn report_progress(message: &Message) -> Infallible {
    for _ in 0..MAX_PROGRESS_REPORTS {
        tokio::time::sleep(outbox::LEASE.unsigned_abs() / 2).await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            log::debug!(error:%; "progress cannot be reported");
        }
    }
    std::future::pending().await
}

/// Makes the event a dead letter.
async fn store_dead_letter(inbox: &Inbox, event: &Event, attempt: i64, why: &HandleError) -> AckKind {
    match inbox.store_dead_letter(event, Delivery { attempt }, why).await {
        Ok(()) => AckKind::Term,
        Err(_) => redeliver(UNAVAILABLE, attempt),
    }
}

fn redeliver(backoff: Backoff, attempt: i64) -> AckKind {
    AckKind::Nak(Some(backoff.delay(attempt.try_into().unwrap_or(u32::MAX))))
}

/// Wraps an unparsable payload into an event, to store it as a dead letter. Equal payloads get the same id.
fn unreadable(payload: &[u8]) -> Event {
    let text = String::from_utf8_lossy(payload);
    let mut event = Event::new("unknown", "unreadable", "", text);
    event.id = Uuid::new_v5(&Uuid::NAMESPACE_OID, payload);
    event
}
