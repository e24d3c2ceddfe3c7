//! Wires the service, top to bottom: each part uses only the parts above it.

use shared::db::Db;
use shared::platform::Platform;
use shared::service::{BuildFuture, Listener, Server, Service};

use crate::config::{Config, SERVICE, USERS};
use crate::routes;
use crate::store::{self, Store};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let platform = Platform::new(listener.replica(), config.platform);

    let store = Store::new(db.clone());

    let service = Service::new(listener)
        .data(store)
        .routes(routes::routes())
        .authenticate(platform.authenticator(platform.user_keys(USERS)))
        .database(&db)
        .register(&platform);
    Ok(service.build()?)
}
