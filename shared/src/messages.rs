//! Messages between services: work that must survive a crash.
//!
//! ```text
//! business transaction ──► outbox row          inbox row + effect ◄── business transaction
//!                             │ commit                  ▲
//!                             └─► relay ─► transport ───┘
//! ```
//!
//! An event is written to the [`Outbox`] in the transaction of the change it tells of. The
//! [`Relay`] sends it: in order per subject, at least once, also with several relays side by side. The receiver
//! records it in its inbox in the transaction of the effect, so that the effect happens once. What
//! cannot be delivered is kept as a dead letter for a person to decide about.
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
mod nats; // the transport by NATS JetStream, both ends
mod outbox; // written with the change
mod prune; // nothing grows without bound
mod relay; // from the outbox to the transport
mod upcast; // old versions of events, read as new ones
mod url; // which transport

pub use event::Event;
pub use http::HttpTransport;
pub use inbox::{Delivery, HandleError, Handler, Received};
pub use nats::{ConnectError, Nats};
pub use outbox::{Outbox, Outgoing};
pub use relay::Relay;
pub use upcast::Upcast;
pub use url::{MessagesUrl, NatsUrl};

use std::rc::Rc;
use std::sync::Arc;

use actix_web::web;
use futures_util::future::{LocalBoxFuture, join};

use crate::db::Db;
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

/// Everything that a service needs to send and receive messages.
pub struct Messages {
    inbox: Arc<inbox::Inbox>,
    relay: Relay,
    outbox: Outbox,
    broker: Option<Nats>,
}

impl Messages {
    /// Messages of `service`, kept in `db`, carried by `transport`. `make` gets the outbox and gives
    /// what handles the events that arrive.
    pub fn new<H>(
        service: &'static str,
        db: Db,
        transport: Rc<dyn Transport>,
        make: impl FnOnce(Outbox) -> H,
    ) -> Self
    where
        H: Handler + Send + Sync + 'static,
    {
        let broker = transport.broker();
        let (outbox, relay) = Relay::new(db.clone(), transport);
        let handler = Arc::new(make(outbox.clone()));
        Self { inbox: Arc::new(inbox::Inbox::new(service, db, handler)), relay, outbox, broker }
    }
}

impl Service {
    /// Sends and receives messages: `POST /messages`, the admin's routes, the relay and the pruning.
    pub fn messages(self, messages: Messages) -> Self {
        let Messages { inbox, relay, outbox, broker } = messages;
        let db = inbox.db().clone();
        let (arriving, outbox) = (web::Data::from(inbox.clone()), web::Data::new(outbox));
        let service = match broker.clone() {
            None => self,
            Some(broker) => self.advisory("nats", move || {
                let broker = broker.clone();
                async move { broker.ping().await }
            }),
        };
        service
            .routes(move |app| {
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
                    // The relay ends last: who handles events writes some.
                    fetched.stop();
                };
                join(fetching, relay.run(last)).await;
            })
            .task("pruning", move |stop| prune::run(db, stop))
    }
}
