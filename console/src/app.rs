//! Wires the program, top to bottom: each part uses only the parts above it.

use std::sync::{Arc, Mutex};

use shared::db::Db;
use shared::platform::Platform;
use shared::registry::RegistryUrl;
use shared::service::{BuildFuture, Listener, Server, Service};

use crate::clients::admin::Admin;
use crate::clients::gateway::Gateway;
use crate::clients::inspection::Inspection;
use crate::clients::lab::Lab;
use crate::clients::overview::Overview;
use crate::clients::replicas::Replicas;
use crate::clients::sessions::Sessions;
use crate::config::{Config, SERVICE, USERS};
use crate::domain::Traffic;
use crate::routes::hosts::Hosts;
use crate::routes::{self, CardNetwork, otlp, pages};
use crate::store::{self, Store};
use crate::tasks::customers::Customers;
use crate::tasks::writer::Arrivals;
use crate::tasks::{customers, pruner, writer};

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let card_network = CardNetwork::of(&config);
    let listener = Listener::bind(SERVICE, config.http)?;
    let otlp = Listener::bind(SERVICE, config.otlp)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let store = Store::new(db.clone());
    let has_registry = !matches!(config.platform.registry, RegistryUrl::Memory(_));
    let (replicas, tls) = (Replicas::new(config.platform.tls.clone()), config.platform.tls.clone());
    let platform = Platform::new(listener.replica(), config.platform);

    let gateway = Gateway::new(&config.gateway);
    let admin = Admin::new(|service| platform.client(service));
    let authenticator = platform.authenticator(platform.user_keys(USERS));
    let sessions = Sessions::new(platform.client(USERS), authenticator);
    let traffic = Arc::new(Mutex::new(Traffic::default()));
    let has_lab = config.has_lab;
    let network = card_network.0.clone();
    let lab = has_lab.then(|| Lab::new(gateway.clone(), network.clone(), tls));
    let customers = has_lab.then(|| Arc::new(Customers::new(&config.public_gateway)));
    let inspection = lab
        .clone()
        .zip(customers.clone())
        .map(|(lab, customers)| Inspection::new(admin.clone(), gateway.clone(), network, lab, customers));
    let externals = card_network.0.clone().map(|url| ("card-network".to_owned(), url));
    let overview = Overview::new(
        gateway.clone(),
        replicas.clone(),
        admin.clone(),
        externals.into_iter().collect(),
        has_registry,
        traffic.clone(),
        lab.clone(),
    );

    let (arrivals, queue) = writer::queue();
    let hosts = Hosts(config.hosts);
    let receiver = receiver(otlp, arrivals).data(hosts.clone()).build()?;
    let receiving = receiver.handle();
    let (written, pruned) = (store.clone(), store.clone());
    let service = Service::new(listener)
        .data(hosts)
        .data(store)
        .data(gateway)
        .data(replicas)
        .data(admin)
        .data(sessions)
        .data(overview)
        .data(card_network)
        .data(lab)
        .data(customers.clone())
        .data(inspection)
        .routes(routes::routes())
        .configure(move |app| pages::configure(app, has_lab))
        .database(&db)
        .task("writer", move |stop| writer::write(queue, written, traffic, stop))
        .task("pruner", move |stop| pruner::prune(pruned, config.max_bytes, stop))
        .task("receiver", move |_| receive(receiver))
        .on_drain(async move { receiving.stop().await });
    let service = match customers {
        Some(customers) => service.task("customers", move |stop| customers::order(customers, stop)),
        None => service,
    };
    Ok(service.build()?)
}

/// The listener of traces and logs.
fn receiver(listener: Listener, arrivals: Arrivals) -> Service {
    Service::new(listener).without_signals().data(arrivals).configure(otlp::configure)
}

async fn receive(receiver: Server) {
    if let Err(error) = receiver.run().await {
        log::error!(error:%; "traces and logs are not received any more");
    }
}
