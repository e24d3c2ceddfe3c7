//! Wires the card network.

use shared::db::Db;
use shared::service::{BuildFuture, Listener, Server, Service};

use super::config::{Config, SERVICE};
use super::routes;
use super::store::{self, Store};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let store = Store::new(db.clone());
    let service = Service::new(listener).open_lab().data(store).configure(routes::configure).database(&db);
    Ok(service.build()?)
}
