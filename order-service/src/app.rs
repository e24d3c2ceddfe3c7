//! Wires the service, top to bottom: what stands higher does not know what stands lower.

use shared::db::Db;
use shared::messages::Messages;
use shared::service::{Listener, Server, Service};
use shared::stack::Stack;

use crate::clients::customers::{Customers, USERS};
use crate::config::{Config, SERVICE};
use crate::messages::{PAYMENTS, PaymentEvents};
use crate::store::{self, Store};
use crate::{changes, openapi, routes, seed, timers};

pub async fn build(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let stack = Stack::new(listener.replica(), config.stack);
    let (outbox, relay) = config.messages.open(&stack, &db, &[PAYMENTS]).await?;

    let store = Store::new(db.clone(), outbox, &listener.replica().instance);
    if config.seed_products {
        seed::seed(&store).await?;
    }
    let (timed, watched) = (store.clone(), store.clone());

    let service = Service::new(listener)
        .data(store.clone())
        .data(Customers::new(stack.client(USERS)))
        .openapi(&openapi::document())
        .configure(routes::configure)
        .authenticate(stack.authenticator(stack.user_keys(USERS)))
        .database(&db)
        .messages(Messages::new(SERVICE, relay, PaymentEvents::new(store)))
        .task("timers", move |stop| timers::run(timed, stop))
        .task("changes", move |stop| changes::look(watched, stop))
        .register(&stack);
    Ok(service.build()?)
}
