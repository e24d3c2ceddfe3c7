//! Every program exports metrics at `/metrics`, and they change.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Stack, eventually};
use serde_json::json;
use xtask::{Kind, Program, programs, services};

const SOON: Duration = Duration::from_secs(20);

/// The sum of the samples that begin with `name` and have `label`.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// [`sum`] over all replicas of a service.
async fn sum_of_replicas(ports: &[u16], name: &str, label: &str) -> f64 {
    let mut total = 0.0;
    for port in ports {
        total += sum(&Api::local(*port).text("/metrics").await, name, label);
    }
    total
}

fn ports(stack: &mut Stack, service: &str) -> Vec<u16> {
    stack.replicas(service).iter().map(|replica| replica.port).collect()
}

#[actix_web::test]
async fn every_program_exports_requests_connections_and_memory_and_no_client_data() {
    let stack = Stack::start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let brewing = Method::from_bytes(b"BREW").unwrap();
    ann.api.send(brewing, "/api/made-up", None).await;

    for Program { name: program, kind, database, .. } in programs() {
        let is_gateway = *kind == Kind::Gateway;
        let api = if is_gateway { stack.admin_port.clone() } else { stack.direct(program) };
        let count = "http_server_request_duration_seconds_count{";
        let metrics = api.text("/metrics").await;
        assert!(sum(&metrics, "process_resident_memory_bytes ", "") > 0.0, "{program}: {metrics}");
        assert!(metrics.contains("\nprocess_cpu_seconds_total "), "{program}: {metrics}");
        let before = sum(&metrics, count, "");
        api.get("/health").await;
        assert!(sum(&api.text("/metrics").await, count, "") > before, "{program}: {metrics}");
        // The card network has a file of its own.
        if database.is_some() || *kind == Kind::External {
            assert!(sum(&metrics, "db_client_connection_count{", "") >= 1.0, "{program}: {metrics}");
        }
        for label in [&ann.id, order["id"].as_str().unwrap(), "made-up", "BREW"] {
            assert!(!metrics.contains(label), "{program}: {label} would make a new series: {metrics}");
        }
    }
}

#[actix_web::test]
async fn the_outcomes_of_orders_and_the_backlog_of_messages_are_exported() {
    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let product = ann.product().await;
    for (token, status) in [("tok_visa", "confirmed"), ("tok_declined", "rejected")] {
        let order = ann.place(&product, 1, token).await;
        ann.order_reaches(&order, status).await;
    }
    let orders = ports(&mut stack, "order-service");
    let outcomes = async |label: &str| sum_of_replicas(&orders, "orders_total{", label).await;
    assert_eq!(outcomes("status=\"confirmed\"").await, 1.0);
    assert_eq!(outcomes("reason=\"card_declined\"").await, 1.0);

    (0..2).for_each(|replica| stack.kill("payment-service", replica));
    let order = ann.place(&product, 1, "tok_visa").await;
    let unsent = async |name: &str| sum_of_replicas(&orders, name, "").await;
    eventually("a message is unsent", SOON, || async {
        (unsent("outbox_pending ").await > 0.0 && unsent("outbox_oldest_age_seconds ").await > 0.0)
            .then_some(())
    })
    .await;
    (0..2).for_each(|replica| stack.restart("payment-service", replica));
    ann.order_reaches(&order, "confirmed").await;
    eventually("all are sent", SOON, || async { (unsent("outbox_pending ").await == 0.0).then_some(()) })
        .await;
}

#[actix_web::test]
async fn money_that_moved_and_the_time_of_checkouts_are_exported_and_every_status_begins_at_zero() {
    let mut stack = Stack::start().await;
    let (orders, payments) = (ports(&mut stack, "order-service"), ports(&mut stack, "payment-service"));
    // An alert looks at the increase, and Prometheus sees none in a counter that begins with 1.
    for port in &orders {
        let metrics = Api::local(*port).text("/metrics").await;
        assert!(metrics.contains("\norders_total{reason=\"\",status=\"needs_attention\"} 0\n"), "{metrics}");
    }
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 2, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let checkouts = async |name: &str| sum_of_replicas(&orders, name, "outcome=\"confirmed\"").await;
    assert_eq!(checkouts("checkout_duration_seconds_count{").await, 1.0);
    assert!(checkouts("checkout_duration_seconds_sum{").await > 0.0);

    ann.cancel(&order).await.expect(202);
    ann.order_reaches(&order, "refunded").await;
    assert_eq!(checkouts("checkout_duration_seconds_count{").await, 1.0, "a refund is no checkout");
    let amount = order["total"]["amount"].as_f64().unwrap();
    let counted = async |name: &str, label: &str| sum_of_replicas(&payments, name, label).await;
    for (name, label, expected) in [
        ("payments_total{", "outcome=\"captured\"", 1.0),
        ("payments_total{", "outcome=\"refunded\"", 1.0),
        ("refunds_total{", "status=\"succeeded\"", 1.0),
        ("ledger_transferred_total{", "cause=\"capture\"", amount),
        ("ledger_transferred_total{", "cause=\"refund\"", amount),
        ("ledger_sum ", "", 0.0),
    ] {
        assert_eq!(counted(name, label).await, expected, "{name}{label}");
    }
}

#[actix_web::test]
async fn the_gateway_exports_active_requests_replica_states_and_retries() {
    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let console = stack.admin_port.clone();
    let metric = async |name: &str, label: &str| sum(&console.text("/metrics").await, name, label);
    let healthy = "state=\"healthy\"";
    let replicas: u16 = services().map(|service| service.replicas).sum();
    assert_eq!(metric("http_client_replica_state{", healthy).await, f64::from(replicas));

    let product = ann.product().await;
    let lines = json!([{ "product_id": product["id"], "quantity": 1 }]);
    let body = json!({ "lines": lines, "payment_token": "tok_slow" });
    let api = ann.api.clone();
    let slow =
        actix_web::rt::spawn(
            async move { api.with("prefer", "wait=10").post("/api/orders", body).await.status },
        );
    let busy = "peer_service=\"order-service\"";
    eventually("a replica is busy", SOON, || async {
        (metric("http_client_active_requests{", busy).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(slow.await.unwrap(), 201);
    assert_eq!(metric("http_client_active_requests{", busy).await, 0.0);

    let port = ports(&mut stack, "user-service")[1];
    stack.kill("user-service", 1);
    let state = format!("peer_instance=\"e2e-{port}\",peer_service=\"user-service\",{healthy}");
    eventually("it is not healthy", SOON, || async {
        ann.api.get("/api/users/me").await.expect(200);
        (metric("http_client_replica_state{", &state).await == 0.0).then_some(())
    })
    .await;
    assert!(metric("http_client_retries_total{", "peer_service=\"user-service\"").await >= 1.0);
    assert_eq!(
        metric("http_client_replica_state{", "peer_service=\"user-service\"").await,
        2.0,
        "one state each"
    );
}
