//! Builds the parts of this service, top to bottom: each part uses only parts that are built before it. [`Platform`] is
//! this replica's link to the other services: the registry, the balancers and the keys. The store writes each event to
//! the table `outbox`, in the same transaction as the change of the order. The relay reads this table and sends the
//! events.

use shared::db::Db;
use shared::idempotency::GroupCommit;
use shared::messages::Messages;
use shared::platform::Platform;
use shared::service::{BuildFuture, Listener, Server, Service};

use crate::clients::users::Users;
use crate::config::{Config, PAYMENTS, SERVICE, USERS};
use crate::messages::PaymentEventHandler;
use crate::metrics;
use crate::routes::{self, PlaceOrderOperation};
use crate::store::{self, Store};
use crate::tasks::{order_updates, timers};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let platform = Platform::new(listener.replica(), config.platform);
    let (outbox, relay) = config.messages.open(&platform, &db, &[PAYMENTS]).await?;

    let store = Store::new(db.clone(), outbox, &listener.replica().instance)
        .limit_awaiting_payment(config.max_awaiting_payment);
    if config.seed_products {
        db.transaction(async |tx| store.seed(tx).await).await?;
    }
    metrics::init();
    let (timers_store, updates_store) = (store.clone(), store.clone());

    let service = Service::new(listener)
        .data(store.clone())
        .data(GroupCommit::new(db.clone(), PlaceOrderOperation { store: store.clone() }))
        .data(Users::new(platform.client(USERS)))
        .routes(routes::routes())
        .authenticate(platform.authenticator(platform.user_keys(USERS)))
        .database(&db)
        .messages(Messages::new(SERVICE, relay, PaymentEventHandler::new(store)))
        .task("timers", |stop| timers::run(timers_store, stop))
        .task("order_updates", |stop| order_updates::run(updates_store, stop))
        .register(&platform);
    Ok(service.build()?)
}
