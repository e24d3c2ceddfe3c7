//! Wires the service, top to bottom: each part uses only the parts above it.

use shared::db::Db;
use shared::messages::Messages;
use shared::service::{BuildFuture, Listener, Server, Service};
use shared::stack::Stack;

use crate::clients::card_network::CardNetwork;
use crate::config::{Config, ORDERS, SERVICE, USERS};
use crate::messages::Commands;
use crate::routes;
use crate::store::{self, Store};
use crate::tasks::network_worker::NetworkWorker;
use crate::tasks::reconciliation::{self, Progress};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let stack = Stack::new(listener.replica(), config.stack);
    let (outbox, relay) = config.messages.open(&stack, &db, &[ORDERS]).await?;

    let (store, leased) = Store::new(db.clone(), outbox, config.timing.lease);
    let network = CardNetwork::new(&config.card_network_url, config.timing.request_timeout);
    let worker = NetworkWorker::new(store.clone(), leased, network.clone(), config.timing);
    let (progress, interval) = (Progress::default(), config.reconcile_every);
    let measured = progress.clone();

    let service = Service::new(listener)
        .data(store.clone())
        .routes(routes::routes())
        .authenticate(stack.authenticator(stack.user_keys(USERS)))
        .database(&db)
        .measure(move |readings| measured.measure(readings))
        .messages(Messages::new(SERVICE, relay, Commands::new(store.clone())))
        .task("network_worker", move |stop| worker.run(stop))
        .task("reconciliation", move |stop| reconciliation::run(store, network, interval, progress, stop))
        .register(&stack);
    Ok(service.build()?)
}
