//! Wires the service: the only place that sees every part of it.

use shared::db::Db;
use shared::messages::Messages;
use shared::service::{Listener, Server, Service};
use shared::stack::Stack;

use crate::clients::card_network::CardNetwork;
use crate::config::Config;
use crate::messages::{Commands, ORDERS};
use crate::store::{Store, migrations};
use crate::worker::Worker;
use crate::{openapi, routes};

/// The name of this service.
pub const SERVICE: &str = "payment-service";

/// Opens the database and binds the listener.
///
/// # Errors
/// When either cannot be done.
pub async fn build(config: Config) -> anyhow::Result<Server> {
    let Config { http, stack, messages, database, card_network_url, timing } = config;
    let listener = Listener::bind(SERVICE, http)?;
    let db = Db::open(&database, migrations()).await?;
    let stack = Stack::new(listener.replica(), stack);
    let authenticator = stack.authenticator(stack.user_keys("user-service"));

    let (outbox, relay) = messages.open(&stack, &db, &[ORDERS]).await?;
    let (store, leased) = Store::new(db.clone(), outbox, timing.lease);
    let network = CardNetwork::new(&card_network_url, timing.question);
    let worker = Worker::new(store.clone(), leased, network, timing);

    let server = Service::new(listener)
        .data(store.clone())
        .openapi(&openapi::document())
        .configure(routes::configure)
        .authenticate(authenticator)
        .database(&db)
        .messages(Messages::new(SERVICE, relay, Commands::new(store)))
        .task("worker", move |stop| worker.run(stop))
        .register(&stack)
        .build()?;
    Ok(server)
}
