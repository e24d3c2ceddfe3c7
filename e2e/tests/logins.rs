//! The logins of PostgreSQL and NATS, and Consul's tokens, are replaced while customers order, step by step as
//! `scripts/rotate-secrets --compose` does it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Person, Stack, eventually, key};
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use shared::auth::Secret;
use shared::db::{Db, DbConfig, Migrations};
use shared::registry::{ConsulRegistry, Instance, Registry as _};
use shared::testing::server;

const BUYERS: usize = 12;
const SERVICES: [&str; 3] = ["user-service", "order-service", "payment-service"];

fn text(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    text.trim().to_owned()
}

/// The URLs that compose gives the services, with the servers of the test.
fn write_urls(secrets: &Path, urls: &Path) {
    let (postgres, nats) = (text(&secrets.join("postgres-address")), text(&secrets.join("nats-address")));
    for service in SERVICES {
        for (secret, file) in [("database-url", "database"), ("migrations-url", "migrations")] {
            let database = text(&secrets.join(service).join(secret));
            let database = database.replace("@postgres/", &format!("@{postgres}/"));
            fs::write(urls.join(format!("{service}-{file}")), database).unwrap();
        }
        if service != "user-service" {
            let messages = text(&secrets.join(service).join("messages-url"));
            fs::write(urls.join(format!("{service}-messages")), messages.replace("nats:4222", &nats))
                .unwrap();
        }
    }
}

/// A step of the rotation, in the secrets and in the servers.
async fn step(secrets: &Path, name: &str) {
    let mut command = tokio::process::Command::new(secrets.join("rotate"));
    assert!(command.arg(name).status().await.unwrap().success(), "{name}");
}

/// Whether the superuser of PostgreSQL has this password.
async fn is_superusers(secrets: &Path, password: &str) -> bool {
    let postgres = text(&secrets.join("postgres-address"));
    let config = DbConfig::at(&format!("postgres://postgres:{password}@{postgres}/postgres"));
    Db::open(&config, Migrations::none()).await.is_ok()
}

/// Whether order-service may use Consul with this token.
async fn is_consuls(secrets: &Path, token: &str) -> bool {
    let consul: ConsulRegistry = text(&secrets.join("consul-address")).parse().unwrap();
    let consul = consul.with_token(Some(Secret::new(token)));
    let replica = Instance::new("nobody", "http://127.0.0.1:1");
    let registered = consul.register("order-service", &replica).await;
    if registered.is_ok() {
        consul.deregister("order-service", "nobody").await.unwrap();
    }
    registered.is_ok()
}

/// Orders with a key, once.
async fn order(ann: &Person, product: &Value) -> Value {
    let lines = json!([{ "product_id": product["id"], "quantity": 1 }]);
    let order = json!({ "lines": lines, "payment_token": "tok_visa" });
    let api = ann.api.with_key(key());
    api.send(Method::POST, "/api/orders", Some(&order)).await.expect(201)
}

#[actix_web::test]
async fn the_logins_of_database_broker_and_registry_are_replaced_under_load_and_no_keyed_request_fails() {
    let Some(secrets) = server("TEST_COMPOSE_SECRETS", "servers of docker compose").map(PathBuf::from) else {
        return;
    };
    let urls = std::env::temp_dir().join(format!("urls-{}", uuid::Uuid::now_v7()));
    fs::create_dir_all(&urls).unwrap();
    write_urls(&secrets, &urls);
    let logins = || ["database", "migrations"].map(|kind| text(&urls.join(format!("order-service-{kind}"))));
    let old = logins();
    let superuser = || text(&secrets.join("postgres/superuser"));
    let token = || text(&secrets.join("order-service/consul-token"));
    let (old_superuser, old_token) = (superuser(), token());
    let mut stack = Stack::start_with(&[
        // Longer than a service takes to learn that a replica of another one leaves.
        ("DRAIN_GRACE", "2s"),
        // A busy machine needs long to open many connections at once.
        ("DATABASE_ACQUIRE_TIMEOUT", "10s"),
        ("DATABASE_URL_FILE", &format!("{}/{{program}}-database", urls.display())),
        ("DATABASE_MIGRATIONS_URL_FILE", &format!("{}/{{program}}-migrations", urls.display())),
        ("MESSAGES_URL_FILE", &format!("{}/{{program}}-messages", urls.display())),
        ("REGISTRY_URL", &format!("consul://{}", text(&secrets.join("consul-address")))),
        ("CONSUL_HTTP_TOKEN_FILE", &format!("{}/{{program}}/consul-token", secrets.display())),
    ])
    .await;
    let mut buyers = Vec::new();
    for _ in 0..BUYERS {
        buyers.push(stack.register().await);
    }
    let product = buyers[0].product().await;

    let (is_switched, is_over, orders_so_far) = (Cell::new(false), Cell::new(false), Cell::new(0));
    let buying = join_all(buyers.iter().enumerate().map(async |(number, ann)| {
        let mut orders = 0;
        // Most buyers come later, so that replicas which still have the old login open more connections.
        if number > 0 {
            let switched = async || is_switched.get().then_some(());
            eventually("the logins are switched", Duration::from_secs(60), switched).await;
        }
        while !is_over.get() {
            ann.order_reaches(&order(ann, &product).await, "confirmed").await;
            orders += 1;
            orders_so_far.set(orders_so_far.get() + 1);
        }
        orders
    }));
    let rotating = async {
        step(&secrets, "add").await;
        step(&secrets, "switch").await;
        write_urls(&secrets, &urls);
        is_switched.set(true);
        let busy = async || (orders_so_far.get() > 5 * BUYERS).then_some(());
        eventually("all buyers order", Duration::from_secs(60), busy).await;
        for service in SERVICES {
            for replica in 0..2 {
                stack.renew(service, replica).await;
                stack.healthy().await;
            }
        }
        step(&secrets, "remove").await;
        is_over.set(true);
    };
    let (orders, ()) = join(buying, rotating).await;
    assert!(orders.iter().all(|orders| *orders > 5), "{orders:?}");
    let new = logins();
    assert_ne!(old, new);
    let open = async |[worker, owner]: &[String; 2]| {
        let config = DbConfig { migrations_url: Some(owner.clone()), ..DbConfig::at(worker) };
        Db::open(&config, Migrations::none()).await
    };
    assert!(open(&new).await.is_ok());
    assert!(open(&old).await.is_err(), "the old login is removed");
    assert!(is_superusers(&secrets, &superuser()).await);
    assert!(!is_superusers(&secrets, &old_superuser).await, "the old password is replaced");
    assert!(is_consuls(&secrets, &token()).await);
    assert!(!is_consuls(&secrets, &old_token).await, "the old token is removed");
    fs::remove_dir_all(urls).unwrap();
}
