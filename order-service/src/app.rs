//! Where everything is put together.

use actix_web::web;
use anyhow::Context as _;
use shared::db::Db;
use shared::messages::Messages;
use shared::service::{Server, Service};
use shared::stack::Stack;

use crate::clients::customers::{Customers, USERS};
use crate::config::Config;
use crate::messages::{ORDERS, PAYMENTS, PaymentEvents};
use crate::store::{self, Store};
use crate::{changes, openapi, routes, seed, timers};

/// Puts the service together and binds its port.
///
/// # Errors
/// When the database cannot be opened or the port is taken.
pub async fn build(config: Config) -> anyhow::Result<Server> {
    let db = Db::open(&config.database, store::migrations()).await?;
    let stack = Stack::new(ORDERS, config.stack);

    let mut made = None;
    let transport = config.messages.open(&stack, &[PAYMENTS]).await?;
    let messages = Messages::new(ORDERS, db.clone(), transport, |outbox| {
        let store = made.insert(Store::new(db.clone(), outbox));
        PaymentEvents::new(store.clone())
    });
    let store = made.context("the messages have no handler")?;
    if config.seed_products {
        seed::seed(&store).await?;
    }
    let customers = Customers::new(stack.client(USERS));
    let data = (web::Data::new(store.clone()), web::Data::new(customers));
    let (named, timed, watched) = (store.clone(), store.clone(), store);
    let server = Service::new(ORDERS, config.http)
        .routes(move |app| {
            app.app_data(data.0.clone()).app_data(data.1.clone()).configure(routes::configure);
        })
        .authenticate(stack.authenticator(stack.user_keys(USERS)))
        .database(&db)
        .openapi(&openapi::document())
        .messages(messages)
        .on_bind(move |replica| named.set_instance(&replica.instance))
        .task("timers", move |stop| timers::run(timed, stop))
        .task("changes", move |stop| changes::look(watched, stop))
        .join(&stack)
        .build()
        .await?;
    Ok(server)
}
