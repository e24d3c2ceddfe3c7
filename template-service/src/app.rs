//! Wires the service, top to bottom: each part uses only the parts above it.

use shared::db::Db;
use shared::service::{BuildFuture, Listener, Server, Service};
use shared::stack::Stack;

use crate::config::{Config, SERVICE, USERS};
use crate::routes;
use crate::store::{self, Store};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let stack = Stack::new(listener.replica(), config.stack);

    let store = Store::new(db.clone());

    let service = Service::new(listener)
        .data(store)
        .routes(routes::routes())
        .authenticate(stack.authenticator(stack.user_keys(USERS)))
        .database(&db)
        .register(&stack);
    Ok(service.build()?)
}
