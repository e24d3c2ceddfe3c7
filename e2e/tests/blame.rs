//! A replica is ejected for its own failures only: not for what a client or the gateway could not do.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{Stack, eventually};
use futures_util::future::join_all;
use serde_json::json;
use shared::service::{HttpConfig, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a client may take to send its body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The ids of the replicas of `service` whose health is not `healthy`.
async fn unhealthy(stack: &Stack, service: &str) -> Vec<String> {
    let seen = stack.admin_port.get(&format!("/registry/services/{service}")).await.body;
    let instances = seen["instances"].as_array().unwrap().iter();
    instances.filter(|one| one["health"] != "healthy").map(|one| one["id"].to_string()).collect()
}

async fn connect(stack: &Stack) -> TcpStream {
    TcpStream::connect(stack.public.base.trim_start_matches("http://")).await.unwrap()
}

/// Reads an answer with a body; returns its status.
async fn status(stream: &mut TcpStream) -> u16 {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&part[..length]));
        let head = text.split_once("\r\n\r\n");
        let wanted = text
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split('\r').next()?.parse().ok());
        if length == 0 || head.zip(wanted).is_some_and(|((_, body), wanted): (_, usize)| body.len() >= wanted)
        {
            return text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        }
    }
}

#[actix_web::test]
async fn log_ins_whose_last_byte_comes_just_before_the_deadline_eject_no_replica() {
    // Slower than clients may be, but for this.
    let stack = Stack::start_with(&[("MIN_RATE_AFTER", "20s")]).await;
    let person = json!({ "email": "slow@example.com", "password": "a long enough one" });
    let mut new = person.clone();
    new["name"] = json!("A slow customer");
    stack.public.post("/api/users", new).await.expect(201);
    let body = person.to_string();
    let log_in = async || {
        let began = Instant::now();
        let mut stream = connect(&stack).await;
        let head = format!(
            "POST /api/sessions HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let (first, last) = body.split_at(body.len() - 1);
        stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
        tokio::time::sleep_until((began + UPLOAD_TIMEOUT - Duration::from_millis(100)).into()).await;
        stream.write_all(last.as_bytes()).await.unwrap();
        status(&mut stream).await
    };
    let statuses = join_all((0..24).map(|_| log_in())).await;
    assert!(statuses.iter().all(|status| [201, 503].contains(status)), "{statuses:?}");
    assert_eq!(unhealthy(&stack, "user-service").await, [] as [String; 0]);
}

/// Sets how many descriptors a running process may have.
fn limit(process: u32, descriptors: &str) {
    let limit = [format!("--pid={process}"), format!("--nofile={descriptors}")];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
}

#[actix_web::test]
async fn a_gateway_without_descriptors_sheds_load_and_ejects_no_replica() {
    let mut stack = Stack::start().await;
    let gateway = stack.replicas("gateway")[0].process().unwrap().id;
    let limits = std::fs::read_to_string(format!("/proc/{gateway}/limits")).unwrap();
    let limits: Vec<_> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(limits[3], limits[4], "the soft limit is raised to the hard one");

    let mut clients = join_all((0..12).map(|_| connect(&stack))).await;
    let get = async |stream: &mut TcpStream, path: &str| {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes()).await.unwrap();
        status(stream).await
    };
    for client in &mut clients {
        assert_eq!(get(client, "/health/live").await, 200);
    }
    let open = std::fs::read_dir(format!("/proc/{gateway}/fd")).unwrap().count();
    limit(gateway, &format!("{open}:{}", limits[4]));
    let statuses = join_all(clients.iter_mut().map(|client| get(client, "/api/products"))).await;
    limit(gateway, &format!("{0}:{0}", limits[4]));
    assert!(
        statuses.contains(&503) && statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(unhealthy(&stack, "order-service").await, [] as [String; 0]);
    for client in &mut clients {
        assert_eq!(get(client, "/api/products").await, 200);
    }
    let metrics = stack.admin_port.text("/metrics").await;
    assert!(
        metrics.contains("http_client_local_failures_total{peer_service=\"order-service\"} "),
        "{metrics}"
    );
}

#[actix_web::test]
async fn without_one_service_the_gateway_is_degraded_and_serves_the_others() {
    let mut stack = Stack::start().await;
    stack.kill("payment-service", 0);
    stack.kill("payment-service", 1);
    let report = eventually("the replicas are missed", Duration::from_secs(30), async || {
        let report = stack.public.get("/health/ready").await.expect(200);
        (report["status"] == "degraded").then_some(report)
    })
    .await;
    assert_eq!((&report["checks"]["start"], &report["checks"]["routes"]), (&json!("ok"), &json!("degraded")));
    stack.public.get("/api/products").await.expect(200);
}

#[actix_web::test]
async fn a_gateway_that_starts_is_not_ready_before_each_service_has_a_replica() {
    let file = std::env::temp_dir().join(format!("blame-{}.toml", uuid::Uuid::now_v7()));
    let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
    let route = "\n[[routes]]\nid = \"late\"\nprefix = \"/api/late\"\nservice = \"origin\"\n";
    std::fs::write(&file, routes + route).unwrap();
    let stack = Stack::starting(&[("CONFIG_FILE", file.to_str().unwrap())]).await;
    eventually("the others are served", Duration::from_secs(30), async || {
        (stack.public.get("/api/products").await.status == 200).then_some(())
    })
    .await;
    let report = stack.public.get("/health/ready").await.expect(503);
    assert_eq!((&report["status"], &report["checks"]["start"]), (&json!("down"), &json!("down")));

    let late = Service::bind("origin", HttpConfig::for_tests()).unwrap().build().unwrap();
    let (late, _running) = shared::testing::run(late);
    stack.register_origin("origin", &late.base).await;
    stack.healthy().await;
    std::fs::remove_file(file).unwrap();
}
