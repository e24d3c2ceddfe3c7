//! Messages between services: work that must survive a crash.
//!
//! ```text
//! business transaction ──► outbox row          inbox row + effect ◄── business transaction
//!                             │ commit                  ▲
//!                             └─► relay ─► transport ─► POST /messages
//! ```
//!
//! An event is written to the [`Outbox`] in the transaction of the change it tells of. The
//! [`Relay`] sends it: in order per subject, at least once, also with several relays side by side. The receiver
//! records it in its inbox in the transaction of the effect, so that the effect happens once. What
//! cannot be delivered is kept as a dead letter for a person to decide about.

mod admin; // /admin/outbox, /admin/dead-letters
mod dead_letters; // what could not be delivered
mod event; // CloudEvents
mod http; // the transport by HTTP, both ends
mod inbox; // once in effect
mod outbox; // written with the change
mod prune; // nothing grows without bound
mod relay; // from the outbox to the transport
mod upcast; // old versions of events, read as new ones

pub use event::Event;
pub use http::HttpTransport;
pub use inbox::{Delivery, HandleError, Handler, Received};
pub use outbox::{Outbox, Outgoing};
pub use relay::Relay;
pub use upcast::Upcast;

use std::rc::Rc;
use std::sync::Arc;

use actix_web::web;
use futures_util::future::LocalBoxFuture;

use crate::db::Db;
use crate::service::Service;

/// Carries events to other services. Used on the main thread only.
pub trait Transport {
    /// Delivers one event: `Ok` only when the receiver has it for good.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>>;
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
        let (outbox, relay) = Relay::new(db.clone(), transport);
        let handler = Arc::new(make(outbox.clone()));
        Self { inbox: Arc::new(inbox::Inbox::new(service, db, handler)), relay, outbox }
    }
}

impl Service {
    /// Sends and receives messages: `POST /messages`, the admin's routes, the relay and the pruning.
    pub fn messages(self, messages: Messages) -> Self {
        let Messages { inbox, relay, outbox } = messages;
        let db = inbox.db().clone();
        let (inbox, outbox) = (web::Data::from(inbox), web::Data::new(outbox));
        self.routes(move |app| {
            app.app_data(inbox.clone()).app_data(outbox.clone());
            http::configure(app);
            admin::configure(app);
        })
        .task("relay", move |stop| relay.run(stop))
        .task("pruning", move |stop| prune::run(db, stop))
    }
}
