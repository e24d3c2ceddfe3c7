//! Wires the service: the only place that sees every part of it.

use actix_web::web;
use anyhow::Context as _;
use shared::db::Db;
use shared::messages::Messages;
use shared::service::{Server, Service};
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
    let db = Db::open(&database, migrations()).await?;
    let stack = Stack::new(SERVICE, stack);
    let authenticator = stack.authenticator(stack.user_keys("user-service"));

    let mut made = None;
    let transport = messages.open(&stack, &[ORDERS]).await?;
    let messages = Messages::new(SERVICE, db.clone(), transport, |outbox| {
        let (store, leased) = Store::new(db.clone(), outbox, timing.lease);
        made = Some((store.clone(), leased));
        Commands::new(store)
    });
    let (store, leased) = made.context("the messages have no handler")?;
    let network = CardNetwork::new(&card_network_url, timing.question);
    let worker = Worker::new(store.clone(), leased, network, timing);

    let store = web::Data::new(store);
    let server = Service::new(SERVICE, http)
        .routes(move |app| {
            app.app_data(store.clone());
            routes::configure(app);
        })
        .authenticate(authenticator)
        .openapi(&openapi::document())
        .database(&db)
        .messages(messages)
        .task("worker", move |stop| worker.run(stop))
        .join(&stack)
        .build()
        .await?;
    Ok(server)
}
