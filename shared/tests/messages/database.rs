//! A relay during an outage of its database.

use std::rc::Rc;
use std::time::Duration;

use shared::db::testing::postgres_url;
use shared::db::{Db, DbConfig, Migrations};
use shared::messages::Relay;
use shared::testing::Gate;

use crate::harness::*;

#[actix_web::test]
async fn a_relay_continues_after_an_outage_of_its_database() {
    let Some(url) = postgres_url().await else { return };
    let mut gate = Gate::before(&url).await;
    let soon = Duration::from_millis(300);
    let config = DbConfig { acquire_timeout: soon, statement_timeout: soon, ..DbConfig::at(&gate.url(&url)) };
    let ours = Db::open(&config, Migrations::none()).await.unwrap();
    let theirs = open(&url).await;
    let receives = open(&shared::db::testing::sqlite_url()).await;
    let (outbox, _relay) = relay(&ours, transport(&receiver(&receives, "http://").await.url).await);
    // Another replica, which writes and then crashes.
    let (dead, _) = Relay::new(theirs.clone(), Rc::new(UnavailableTransport), &["receiver"]);
    let numbered = |number| event("thing.done.v1", "a", number);
    put(&ours, &outbox, numbered(1)).await;
    assert_eq!(effects(&receives, "a", 1).await, [1]);

    gate.shut().await;
    put(&theirs, &dead, numbered(2)).await;
    assert!(ours.ping().await.is_err(), "the database is unavailable");
    gate.open().await;
    assert_eq!(effects(&receives, "a", 2).await, [1, 2]);

    gate.stall();
    put(&theirs, &dead, numbered(3)).await;
    assert!(ours.ping().await.is_err(), "the database is unavailable");
    gate.open().await;
    assert_eq!(effects(&receives, "a", 3).await, [1, 2, 3]);
}
