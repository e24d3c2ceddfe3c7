//! The whole system with the Consul at `TEST_CONSUL_URL` instead of the gateway's registry.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use e2e::{Api, Person, Stack, eventually, free_ports};
use serde_json::{Value, json};
use shared::registry::{ConsulRegistry, Instance, Registry as _};
use shared::service::{HttpConfig, Service};
use shared::testing::consul_url;

/// The replicas of user-service on the gateway's admin port.
async fn replicas(stack: &Stack) -> Vec<Value> {
    let shown = stack.admin_port.get("/registry/services/user-service").await.expect(200);
    shown["instances"].as_array().unwrap().clone()
}

async fn served_by(ann: &Person) -> String {
    ann.api.get("/api/users/me").await.header("x-served-by").to_owned()
}

#[actix_web::test]
async fn with_consul_orders_are_confirmed_and_a_killed_replica_fails_no_request_and_returns() {
    let Some(consul) = consul_url() else { return };
    let mut stack = Stack::start_with(&[("REGISTRY_URL", &consul)]).await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;

    let name = format!("e2e-{}", stack.replicas("user-service")[1].port);
    let victim =
        async |stack: &Stack| replicas(stack).await.into_iter().find(|one| one["id"] == name.as_str());
    let before = victim(&stack).await.unwrap();
    stack.kill("user-service", 1);
    for _ in 0..50 {
        ann.api.get("/api/users/me").await.expect(200);
    }
    // Consul may already have removed it.
    assert!(victim(&stack).await.is_none_or(|dead| dead["health"] != "healthy"));
    stack.restart("user-service", 1);
    stack.healthy().await;
    let after = victim(&stack).await.unwrap();
    assert_ne!(after["metadata"]["started_at"], before["metadata"]["started_at"]);
    assert!(after["metadata"]["version"].is_string());
}

#[actix_web::test]
async fn a_replica_registered_in_consul_serves_within_a_second_and_is_removed_within_a_second() {
    let Some(url) = consul_url() else { return };
    let stack = Stack::start_with(&[("REGISTRY_URL", &url)]).await;
    let ann = stack.register().await;
    let consul: ConsulRegistry = url.strip_prefix("consul://").unwrap().parse().unwrap();
    let newcomer = Service::bind("user-service", HttpConfig::for_tests()).unwrap().build().unwrap();
    let instance = Instance::new("newcomer", &format!("http://{}", newcomer.address()));
    actix_web::rt::spawn(newcomer.run());

    let began = Instant::now();
    consul.register("user-service", &instance).await.unwrap();
    eventually("the new replica serves", Duration::from_secs(10), || async {
        served_by(&ann).await.ends_with("/newcomer").then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    let began = Instant::now();
    consul.deregister("user-service", "newcomer").await.unwrap();
    eventually("the new replica is removed", Duration::from_secs(10), || async {
        (replicas(&stack).await.len() == 2).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[actix_web::test]
async fn an_instance_outside_the_networks_gets_no_request_whatever_consul_says() {
    let Some(url) = consul_url() else { return };
    let stack = Stack::start_with(&[("REGISTRY_URL", &url)]).await;
    let consul: ConsulRegistry = url.strip_prefix("consul://").unwrap().parse().unwrap();
    let newcomer = Service::bind("user-service", HttpConfig::for_tests()).unwrap().build().unwrap();
    let inside = Instance::new("inside", &format!("http://{}", newcomer.address()));
    actix_web::rt::spawn(newcomer.run());
    // Reserved for documentation (RFC 5737).
    consul.register("user-service", &Instance::new("outside", "http://192.0.2.1:80")).await.unwrap();
    consul.register("user-service", &inside).await.unwrap();
    let seen = eventually("the gateway has read what Consul says", Duration::from_secs(10), || async {
        let seen = replicas(&stack).await;
        seen.iter().any(|one| one["id"] == "inside").then_some(seen)
    })
    .await;
    assert!(!seen.iter().any(|one| one["id"] == "outside"), "{seen:?}");
    assert!(stack.log("gateway").contains("http://192.0.2.1:80"), "it is logged");
    for id in ["inside", "outside"] {
        consul.deregister("user-service", id).await.unwrap();
    }
}

#[actix_web::test]
async fn the_gateways_own_check_overrules_consuls_either_way() {
    let Some(url) = consul_url() else { return };
    let stack = Stack::start_with(&[("REGISTRY_URL", &url)]).await;
    let ann = stack.register().await;
    let (agent, prefix) = url.strip_prefix("consul://").unwrap().split_once('/').unwrap();
    let agent = Api::at(format!("http://{agent}"));
    let register = async |id: &str, port: u16, status: &str| {
        let name = format!("{prefix}-user-service");
        let check = json!({ "Name": "ready", "TTL": "10m", "Status": status });
        let body = json!({ "ID": format!("{name}-{id}"), "Name": name, "Address": "127.0.0.1", "Port": port, "Check": check });
        agent.put("/v1/agent/service/register", body).await.expect(200);
    };
    let health = async |id: &str| {
        let found = replicas(&stack).await.into_iter().find(|one| one["id"] == id)?;
        Some(found["health"].as_str().unwrap().to_owned())
    };
    // Consul cannot reach one that serves, and does not notice that another is gone.
    let newcomer = Service::bind("user-service", HttpConfig::for_tests()).unwrap().build().unwrap();
    let served = newcomer.address().port();
    actix_web::rt::spawn(newcomer.run());
    let [dead] = free_ports();
    register("critical", served, "critical").await;
    register("passing", dead, "passing").await;
    eventually("the reachable one serves", Duration::from_secs(10), || async {
        served_by(&ann).await.ends_with("/critical").then_some(())
    })
    .await;
    assert_eq!(health("critical").await.unwrap(), "healthy");
    assert_eq!(health("passing").await.unwrap(), "unhealthy");
    for id in ["critical", "passing"] {
        let path = format!("/v1/agent/service/deregister/{prefix}-user-service-{id}");
        agent.put(&path, json!({})).await.expect(200);
    }
}

#[actix_web::test]
async fn with_consul_the_gateway_refuses_registrations() {
    let Some(consul) = consul_url() else { return };
    let stack = Stack::start_with(&[("REGISTRY_URL", &consul)]).await;
    let service = stack.admin_port.with_token(stack.service_token("user-service", "gateway", None));
    let path = "/registry/services/user-service/instances/mine";
    let body = json!({ "url": "http://127.0.0.1:1", "metadata": {} });
    service.put(path, body).await.expect_problem(409, "registered_elsewhere");
    let refused = service.delete(path).await;
    refused.expect_problem(409, "registered_elsewhere");
    assert_eq!(replicas(&stack).await.len(), 2);
}
