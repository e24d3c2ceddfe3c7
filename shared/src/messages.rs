//! Reliable messages between services, with a transactional outbox and an inbox.
//!
//! ```text
//! transaction: change + outbox row             transaction: inbox row + effect
//!                            │ commit                  ▲
//!                            └─► relay ─► transport ───┘
//! ```
//!
//! A sender writes an event to its [`Outbox`] in the transaction of the change. Its [`Relay`] delivers the event at
//! least once and in order per subject, even if several relays share the outbox. The receiver records the event's id
//! in its inbox, in the transaction of the effect. So a repeated delivery has no second effect. An event that cannot
//! be delivered or handled becomes a dead letter. An admin replays or discards it.
//!
//! | `MESSAGES_URL` | transport |
//! |---|---|
//! | `http://` | pushes events to `POST /messages` of a healthy replica of the receiver, in batches under load |
//! | `nats://host:port` | publishes events to NATS JetStream, which stores them for the receiver |

mod admin; // /admin/outbox, /admin/messages, /admin/dead-letters, /admin/audit
mod backlog; // metrics of unsent events, dead letters and stored events
mod dead_letters; // events that could not be delivered or handled
mod event; // CloudEvents
mod faulty; // a transport with the faults of the lab
mod http; // transport over HTTP, both ends
mod inbox; // receives each event with one effect
#[cfg_attr(not(feature = "nats"), path = "messages/no_nats.rs")]
mod nats; // transport over NATS JetStream, both ends
mod outbox; // events written in the transaction of a change
mod prune; // retention
mod relay; // sends the outbox
mod rows; // the stored rows of one subject
mod secrets; // hides them in payloads
mod tracing; // spans of messages
mod upcast; // converts old event versions
mod url; // MESSAGES_URL
mod waiting; // number and age of waiting events

pub use event::Event;
pub use http::HttpTransport;
pub use inbox::{Delivery, HandleError, Handler, Received};
pub use nats::{ConnectError, Nats, NatsUrl};
pub use outbox::{Outbox, Outgoing};
pub use relay::Relay;
pub use upcast::Upcast;
pub use url::MessagesUrl;

use std::rc::Rc;
use std::sync::Arc;

use actix_web::web;
use async_trait::async_trait;
use futures_util::future::{join, join_all};

use self::backlog::Backlog;
use self::faulty::Faulty;
use crate::lab::Fault;
use crate::service::Service;
use crate::stop::Stop;

/// Carries events to other services. Used on the main thread only.
#[async_trait(?Send)]
pub trait Transport {
    /// Delivers one event. `Ok` means that the receiver has handled it, or that the broker has stored it.
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError>;

    /// The most events for `destination` that one [`send_batch`](Self::send_batch) should deliver.
    fn max_batch(&self, _destination: &str) -> usize {
        1
    }

    /// Delivers events for one destination, each of another subject. The results are in the order of the events.
    async fn send_batch(&self, batch: &[&Outgoing]) -> Vec<SendResult> {
        join_all(batch.iter().map(|outgoing| self.send(outgoing))).await
    }

    /// The broker to consume events from; `None` if the transport pushes them to the receiver.
    fn broker(&self) -> Option<Nats> {
        None
    }
}

/// The result of sending one event.
pub type SendResult = Result<(), SendError>;

/// The reason why an event was not delivered. The relay decides by it whether to retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver or the broker is unavailable, or it refuses calls of this service. Retried without limit.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The receiver failed to handle this event. After ten attempts it becomes a dead letter.
    #[error("failed: {0}")]
    Failed(String),
    /// The receiver will never accept the event. Not retried.
    #[error("rejected: {0}")]
    Rejected(String),
}

impl SendError {
    /// The value of the span attribute `error.type`.
    fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// The inbox and the relay of a service.
pub struct Messages {
    inbox: Arc<inbox::Inbox>,
    relay: Relay,
}

impl Messages {
    /// Sends messages with `relay`, and passes received ones to `handler`. `service` names the inbox.
    pub fn new(service: &'static str, relay: Relay, handler: impl Handler + Send + Sync + 'static) -> Self {
        let inbox = inbox::Inbox::new(service, relay.db().clone(), Arc::new(handler));
        Self { inbox: Arc::new(inbox), relay }
    }
}

impl Service {
    /// Adds `POST /messages`, the admin routes, the relay, the NATS consumers (if any) and the pruning.
    pub fn messages(self, messages: Messages) -> Self {
        let Messages { inbox, mut relay } = messages;
        if let Some(lab) = self.lab() {
            lab.offer(&[Fault::MessagesDuplicated, Fault::MessagesReordered, Fault::MessagesDelayed]);
            relay = relay.wrap_transport(|transport| Rc::new(Faulty::new(transport, lab)));
        }
        let (db, broker) = (relay.db().clone(), relay.broker());
        let (shared_inbox, outbox) = (web::Data::from(inbox.clone()), web::Data::new(relay.outbox().clone()));
        let (backlog, name) = (Backlog::default(), inbox.service());
        let (measured, counted, counted_broker) = (backlog.clone(), db.clone(), broker.clone());
        let service = match broker.clone() {
            None => self,
            Some(broker) => self.advisory("nats", move || {
                let broker = broker.clone();
                async move { broker.ping().await }
            }),
        };
        service
            .configure(move |app| {
                app.app_data(shared_inbox.clone()).app_data(outbox.clone());
                http::configure(app);
                admin::configure(app);
            })
            .task("messages", move |stop| async move {
                let (relay_stopper, relay_stop) = Stop::pair();
                let consuming = async move {
                    match broker {
                        Some(broker) => broker.consume(inbox, stop).await,
                        None => stop.requested().await,
                    }
                    // The relay stops last, because event handlers write to the outbox.
                    relay_stopper.stop();
                };
                join(consuming, relay.run(relay_stop)).await;
            })
            .measure(move |readings| measured.measure(readings))
            .prune(&db, &prune::RETENTION)
            .task("backlog", move |stop| backlog.run(counted, counted_broker, name, stop))
    }
}
