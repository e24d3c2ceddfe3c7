//! Messages between services: work that must survive a crash.
//!
//! ```text
//! business transaction ──► outbox row          inbox row + effect ◄── business transaction
//!                             │ commit                  ▲
//!                             └─► relay ─► transport ───┘
//! ```
//!
//! A service writes an event to the [`Outbox`] in the transaction of the change. The [`Relay`] sends it: in
//! order per subject, at least once, also when several relays run. The receiver records the event in its
//! inbox in the transaction of the effect, so that the effect happens once. An event that cannot be
//! delivered becomes a dead letter, and an admin decides about it.
//!
//! | `MESSAGES_URL` | the transport |
//! |---|---|
//! | `http://` | pushes to `POST /messages` of a healthy replica of the receiver |
//! | `nats://host:port` | gives them to NATS JetStream, which keeps them for the receiver |

mod admin; // /admin/outbox, /admin/dead-letters
mod dead_letters; // what could not be delivered
mod event; // CloudEvents
mod http; // the transport by HTTP, both ends
mod inbox; // once in effect
#[cfg_attr(not(feature = "nats"), path = "messages/no_nats.rs")]
mod nats; // the transport by NATS JetStream, both ends
mod outbox; // written with the change
mod prune; // nothing grows without bound
mod relay; // from the outbox to the transport
mod upcast; // old versions of events, read as new ones
mod url; // which transport

pub use event::Event;
pub use http::HttpTransport;
pub use inbox::{Delivery, HandleError, Handler, Received};
pub use nats::{ConnectError, Nats, NatsUrl};
pub use outbox::{Outbox, Outgoing};
pub use relay::Relay;
pub use upcast::Upcast;
pub use url::MessagesUrl;

use std::sync::Arc;

use actix_web::web;
use futures_util::future::{LocalBoxFuture, join};

use crate::service::Service;
use crate::stop::Stop;

/// Carries events to other services. Used on the main thread only.
pub trait Transport {
    /// Delivers one event: `Ok` only when the receiver, or its broker, has it for good.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>>;

    /// The broker that events are fetched from, if they are not pushed.
    fn broker(&self) -> Option<Nats> {
        None
    }
}

/// Why an event was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver cannot be reached or cannot work now: to be tried for ever.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The receiver failed on this event: to be tried a few times.
    #[error("failed: {0}")]
    Failed(String),
    /// The receiver will never take it.
    #[error("rejected: {0}")]
    Rejected(String),
}

/// What a service needs to send and receive messages.
pub struct Messages {
    inbox: Arc<inbox::Inbox>,
    relay: Relay,
}

impl Messages {
    /// Messages of `service`: `relay` sends them, and `handler` gets those that arrive.
    pub fn new(service: &'static str, relay: Relay, handler: impl Handler + Send + Sync + 'static) -> Self {
        let inbox = inbox::Inbox::new(service, relay.db().clone(), Arc::new(handler));
        Self { inbox: Arc::new(inbox), relay }
    }
}

impl Service {
    /// Sends and receives messages: `POST /messages`, the admin's routes, the relay and the pruning.
    pub fn messages(self, messages: Messages) -> Self {
        let Messages { inbox, relay } = messages;
        let (db, broker) = (relay.db().clone(), relay.broker());
        let (arriving, outbox) = (web::Data::from(inbox.clone()), web::Data::new(relay.outbox().clone()));
        let service = match broker.clone() {
            None => self,
            Some(broker) => self.advisory("nats", move || {
                let broker = broker.clone();
                async move { broker.ping().await }
            }),
        };
        service
            .configure(move |app| {
                app.app_data(arriving.clone()).app_data(outbox.clone());
                http::configure(app);
                admin::configure(app);
            })
            .task("messages", move |stop| async move {
                let (fetched, last) = Stop::pair();
                let fetching = async move {
                    match broker {
                        Some(broker) => broker.consume(inbox, stop).await,
                        None => stop.requested().await,
                    }
                    // The relay ends last: handlers of events write events.
                    fetched.stop();
                };
                join(fetching, relay.run(last)).await;
            })
            .task("pruning", move |stop| prune::run(db, stop))
    }
}
