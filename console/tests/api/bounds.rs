use std::time::Instant;

use serde_json::json;
use shared::testing::eventually;

use crate::harness::{Console, SOON, id, now, span, traces};

#[actix_web::test]
async fn what_is_a_day_old_is_deleted() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let (old, young) = (id(32), id(32));
    let mut ended = span(&old, "GET /old");
    let yesterday = now() - 25 * 3600 * 1_000_000_000;
    ended["startTimeUnixNano"] = json!((yesterday - 5).to_string());
    ended["endTimeUnixNano"] = json!(yesterday.to_string());
    let spans = traces("a-service", vec![ended, span(&young, "GET /young")]);
    console.send("/v1/traces", &spans).await.expect(200);
    console.kept(&admin, &young).await;
    // The pruner looks every 10 s.
    eventually("the old one is deleted", 3 * SOON, async || {
        (admin.get(&format!("/api/traces/{old}")).await.status == 404).then_some(())
    })
    .await;
    console.kept(&admin, &young).await;
}

#[actix_web::test]
async fn the_oldest_are_deleted_when_there_are_too_many() {
    let most = 4 * 1024 * 1024;
    let console = Console::start_with(most).await;
    let admin = console.admin().await;
    let (first, last) = (id(32), id(32));
    console.keep(&admin, vec![span(&first, "GET /first")]).await;
    for _ in 0..20 {
        let spans: Vec<_> = (0..1000).map(|_| span(&id(32), "GET /api/things")).collect();
        eventually("there is room in the queue", SOON, async || {
            let sent = console.send("/v1/traces", &traces("a-service", spans.clone())).await;
            (sent.status == 200).then_some(())
        })
        .await;
    }
    console.keep(&admin, vec![span(&last, "GET /last")]).await;
    eventually("the first is deleted", 3 * SOON, async || {
        (admin.get(&format!("/api/traces/{first}")).await.status == 404).then_some(())
    })
    .await;
    console.kept(&admin, &last).await;
    let found = admin.get("/api/traces?limit=500").await.expect(200);
    assert!(found["traces"].as_array().unwrap().len() > 100, "not more than necessary is deleted");
}

#[actix_web::test]
async fn a_search_in_two_thousand_traces_is_quick() {
    let console = Console::start().await;
    let admin = console.admin().await;
    for _ in 0..4 {
        let mut spans = Vec::new();
        for _ in 0..500 {
            let trace = id(32);
            spans.extend((0..5).map(|number| span(&trace, &format!("GET /api/things/{number}"))));
        }
        eventually("there is room in the queue", SOON, async || {
            (console.send("/v1/traces", &traces("a-service", spans.clone())).await.status == 200)
                .then_some(())
        })
        .await;
    }
    let needle = id(32);
    console.keep(&admin, vec![span(&needle, "GET /needle")]).await;
    for search in ["needle", "status:error", "service:b-service", "duration:%3E1s"] {
        let began = Instant::now();
        admin.get(&format!("/api/traces?q={search}")).await.expect(200);
        let took = began.elapsed();
        // Ten times what it takes, because machines that test are busy.
        assert!(took.as_millis() < 1000, "{search}: {took:?}");
    }
}
