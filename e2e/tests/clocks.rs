//! The clock of one replica of each service is half a minute off, by libfaketime.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use e2e::{Stack, eventually};
use futures_util::future::join_all;
use serde_json::json;
use shared::db::testing::postgres_url;
use shared::testing::skip;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use xtask::services;

/// The library that Debian's package `faketime` installs.
fn library() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(|folder| Some(folder.ok()?.path()));
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketime.so.1")).filter(|file| file.exists());
    let found = found.next().map(|file: std::path::PathBuf| file.display().to_string());
    if found.is_none() {
        skip("with clocks that differ: the package faketime is not installed");
    }
    found
}

/// A stack whose services use the databases at `urls`, by name; SQLite for the others.
async fn skewed(library: &str, urls: &BTreeMap<&str, String>) -> Stack {
    let mut offsets =
        BTreeMap::from([("user-service", "+30s"), ("order-service", "-30s"), ("payment-service", "+30s")]);
    assert!(Path::new(library).exists());
    let stack = Stack::starting_changed(&[], |replica| {
        if let Some(url) = urls.get(replica.program.name) {
            replica.set("DATABASE_URL", url);
        }
        // The first of each.
        if let Some(offset) = offsets.remove(replica.program.name) {
            replica.set("LD_PRELOAD", library);
            replica.set("FAKETIME", offset);
            replica.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            replica.set("DONT_FAKE_MONOTONIC", "1");
        }
    })
    .await;
    eventually("the gateway serves", Duration::from_secs(60), async || {
        (stack.public.try_get("/health/ready").await?.status == 200).then_some(())
    })
    .await;
    stack
}

/// Customers log in and order. Every request must succeed, and every order be confirmed.
async fn orders_flow(stack: &Stack) {
    let customers = join_all((0..4).map(|_| stack.register())).await;
    let orders = customers.iter().map(async |ann| {
        let product = ann.product().await;
        for _ in 0..5 {
            let order = ann.place(&product, 1, "tok_visa").await;
            ann.order_reaches(&order, "confirmed").await;
        }
    });
    join_all(orders).await;
}

#[actix_web::test]
async fn with_clocks_thirty_seconds_off_on_sqlite_orders_flow_and_no_request_fails() {
    let Some(library) = library() else { return };
    let stack = skewed(&library, &BTreeMap::new()).await;
    stack.healthy().await;
    orders_flow(&stack).await;
}

#[actix_web::test]
async fn with_clocks_thirty_seconds_off_orders_flow_and_every_time_is_the_databases() {
    let Some(library) = library() else { return };
    let mut urls = BTreeMap::new();
    for service in services() {
        let Some(url) = postgres_url().await else { return };
        urls.insert(service.name, url);
    }
    let mut stack = skewed(&library, &urls).await;
    orders_flow(&stack).await;

    // A replica that is so far off is not ready, but its relay and its timers work.
    for (service, skew) in [("user-service", 30.0), ("order-service", -30.0), ("payment-service", 30.0)] {
        let replica = stack.direct(service);
        let report = replica.get("/health/ready").await.expect(503);
        assert_eq!(report["checks"], json!({ "clock": "down", "database": "ok" }), "{service}");
        let metrics = replica.text("/metrics").await;
        let told =
            metrics.lines().find_map(|line| line.strip_prefix("db_clock_skew_seconds ")?.parse::<f64>().ok());
        assert!((told.unwrap() - skew).abs() < 1.0, "{service}: {told:?}");
    }
    // What they wrote has the database's time.
    let admin = stack.admin().await;
    let orders = admin.api.get("/api/orders?limit=100").await.expect(200);
    let (mut instances, now) = (std::collections::BTreeSet::new(), OffsetDateTime::now_utc());
    for order in orders["orders"].as_array().unwrap() {
        let timeline = admin
            .api
            .get(&format!("/api/orders/{}/timeline", order["id"].as_str().unwrap()))
            .await
            .expect(200);
        for event in timeline["events"].as_array().unwrap() {
            let at = OffsetDateTime::parse(event["at"].as_str().unwrap(), &Rfc3339).unwrap();
            assert!((now - at).abs() < time::Duration::seconds(25), "{event}");
            instances.insert(event["instance"].as_str().unwrap().to_owned());
        }
    }
    let port = stack.replicas("order-service")[0].port.to_string();
    assert!(
        instances.iter().any(|instance| instance.ends_with(&port)),
        "the skewed one has written: {instances:?}"
    );
}
