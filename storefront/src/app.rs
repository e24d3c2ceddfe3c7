//! Wires the program, top to bottom: each part uses only the parts above it.

use shared::platform::Platform;
use shared::service::{BuildFuture, Listener, Server, Service};

use crate::clients::products::Products;
use crate::clients::sessions::Sessions;
use crate::config::{Config, ORDERS, SERVICE, USERS};
use crate::routes;
use crate::views::assets::Assets;
use crate::views::pages::Pages;

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let is_lab = config.http.lab.is_some();
    let listener = Listener::bind(SERVICE, config.http)?;
    let platform = Platform::new(listener.replica(), config.platform);

    let pages = Pages::new(&listener.replica().instance, is_lab)?;

    let service = Service::new(listener)
        .data(pages)
        .data(Assets::new())
        .data(Products::new(platform.client(ORDERS)))
        .data(Sessions::new(platform.client(USERS)))
        .routes(routes::routes())
        .register(&platform);
    Ok(service.build()?)
}
