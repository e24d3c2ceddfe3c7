//! Builds the parts of this service, top to bottom: each part uses only parts that are built before it. [`Platform`] is
//! this replica's link to the other services: the registry, the balancers and the keys.

use shared::db::Db;
use shared::messages::Messages;
use shared::platform::Platform;
use shared::service::{BuildFuture, Listener, Server, Service};

use crate::clients::card_network::CardNetwork;
use crate::config::{Config, ORDERS, SERVICE, USERS};
use crate::messages::CommandHandler;
use crate::routes;
use crate::store::{self, Store};
use crate::tasks::card_network_worker::CardNetworkWorker;
use crate::tasks::reconciliation::{self, Progress};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let platform = Platform::new(listener.replica(), config.platform);
    let (outbox, relay) = config.messages.open(&platform, &db, &[ORDERS]).await?;

    let (store, leased_jobs) = Store::new(db.clone(), outbox, config.timing.lease);
    let card_network = CardNetwork::new(&config.card_network_url, config.timing.request_timeout);
    let worker = CardNetworkWorker::new(store.clone(), leased_jobs, card_network.clone(), config.timing);
    let (progress, interval) = (Progress::default(), config.reconcile_every);
    let readable_progress = progress.clone();

    let service = Service::new(listener)
        .data(store.clone())
        .routes(routes::routes())
        .authenticate(platform.authenticator(platform.user_keys(USERS)))
        .database(&db)
        .measure(move |readings| readable_progress.measure(readings))
        .messages(Messages::new(SERVICE, relay, CommandHandler::new(store.clone())))
        .task("card_network_worker", move |stop| worker.run(stop))
        .task("reconciliation", move |stop| {
            reconciliation::run(store, card_network, interval, progress, stop)
        })
        .register(&platform);
    Ok(service.build()?)
}
