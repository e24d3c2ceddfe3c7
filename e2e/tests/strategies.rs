//! The load-balancing strategies, switched at run time and observed by a client.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{Person, Stack, eventually};
use futures_util::future::select_all;
use serde_json::json;

async fn switch(stack: &Stack, admin: &Person, strategy: &str) {
    let token = admin.api.token.clone().unwrap();
    let console = stack.admin_port.with_token(&token);
    let reply = console.put("/routes/users/strategy", json!({ "strategy": strategy })).await;
    assert_eq!(reply.expect(200)["strategy"], strategy);
}

/// The number of requests that each replica serves, of 600.
async fn shares(person: &Person) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..600 {
        let reply = person.api.get("/api/users/me").await;
        assert_eq!(reply.status, 200);
        *shares.entry(reply.header("x-served-by").to_owned()).or_default() += 1;
    }
    shares
}

#[actix_web::test]
async fn round_robin_is_even_random_nearly_even_and_least_connections_avoids_a_busy_replica() {
    // A request to a paused replica must hang until the end of the test.
    let file = std::env::temp_dir().join(format!("long-timeout-{}.toml", uuid::Uuid::now_v7()));
    let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
    std::fs::write(&file, routes.replace("id = \"users\"", "id = \"users\"\nhead_timeout_s = 60")).unwrap();
    let mut stack = Stack::start_with(&[("CONFIG_FILE", file.to_str().unwrap())]).await;
    std::fs::remove_file(file).unwrap();
    let (ann, admin) = (stack.register().await, stack.admin().await);

    switch(&stack, &admin, "round-robin").await;
    let even = shares(&ann).await;
    assert_eq!(even.values().copied().collect::<Vec<_>>(), [300, 300], "{even:?}");

    switch(&stack, &admin, "random").await;
    let random = shares(&ann).await;
    // Four standard deviations of 600 fair coin tosses.
    let limit = 4.0 * (600.0f64 * 0.25).sqrt();
    assert!(random.values().all(|share| (f64::from(*share) - 300.0).abs() <= limit), "{random:?}");

    switch(&stack, &admin, "least-connections").await;
    let slow = stack.replicas("user-service")[0].port;
    stack.pause("user-service", 0);
    // One of two requests is answered, the other hangs at the paused replica.
    let both: Vec<_> = (0..2)
        .map(|_| {
            let api = ann.api.clone();
            actix_web::rt::spawn(async move { api.try_get("/api/users/me").await.map(|reply| reply.status) })
        })
        .collect();
    let (answered, _, hanging) = select_all(both).await;
    assert_eq!(answered.unwrap(), Some(200));
    eventually("a request hangs", Duration::from_secs(5), || async {
        (stack.active_requests("user-service", slow).await == 1).then_some(())
    })
    .await;
    let avoided = shares(&ann).await;
    let share =
        avoided.iter().find(|(replica, _)| replica.ends_with(&format!("-{slow}"))).map_or(0, |(_, n)| *n);
    assert_eq!(share, 0, "{avoided:?}");
    stack.resume("user-service", 0);
    for request in hanging {
        assert_eq!(request.await.unwrap(), Some(200));
    }
}

#[actix_web::test]
async fn only_an_admin_switches_the_strategy_and_only_to_a_known_one() {
    let stack = Stack::start().await;
    let (ann, admin) = (stack.register().await, stack.admin().await);
    let as_admin = stack.admin_port.with_token(admin.api.token.clone().unwrap());
    let path = "/routes/users/strategy";
    stack.admin_port.put(path, json!({ "strategy": "random" })).await.expect_problem(401, "missing_token");
    let as_ann = stack.admin_port.with_token(ann.api.token.clone().unwrap());
    as_ann.put(path, json!({ "strategy": "random" })).await.expect_problem(403, "forbidden");
    as_admin.put(path, json!({ "strategy": "by-magic" })).await.expect_problem(422, "validation_failed");
    as_admin
        .put("/routes/nothing/strategy", json!({ "strategy": "random" }))
        .await
        .expect_problem(404, "not_found");
}
