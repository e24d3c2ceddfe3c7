use serde_json::json;

use crate::harness::Console;

/// The registry of the stub, whose only replica is the stub of the card network.
fn registry(url: &str) -> serde_json::Value {
    json!({ "services": [{ "name": "a-service", "instances": [
        { "id": "a-1", "url": url, "health": "healthy", "active_requests": 0, "reason": null, "until": null },
    ] }] })
}

#[actix_web::test]
async fn without_the_lab_its_page_and_its_calls_are_404_and_the_map_has_no_faults() {
    let console = Console::start().await;
    let admin = console.admin().await;
    for path in ["/lab", "/api/lab", "/api/lab/invariants", "/api/lab/customers"] {
        admin.get(path).await.expect_problem(404, "not_found");
    }
    let fault = json!({ "program": "a-service", "replica": "a-1", "fault": "slow", "seconds": 5 });
    admin.post("/api/lab/faults", fault).await.expect_problem(404, "not_found");
    admin.delete("/api/lab/faults/a-service/a-1/slow").await.expect_problem(404, "not_found");
    admin.put("/api/lab/customers", json!({ "count": 1 })).await.expect_problem(404, "not_found");
    assert_eq!(admin.get("/api/map").await.expect(200)["faults"], json!(null));
}

#[actix_web::test]
async fn faults_are_started_and_ended_at_the_replica_itself_with_the_admins_own_token() {
    let console = Console::start_lab().await;
    let admin = console.admin().await;
    assert_eq!(admin.get("/lab").await.status, 200);
    console.api.get("/api/lab").await.expect_problem(401, "missing_token");
    console.stubs.answer("GET /registry/services", 200, registry(&console.replica()));
    console.stubs.answer("GET /routes", 200, json!({ "routes": [] }));
    let running = json!({ "offers": ["slow", "kill"], "running": [{ "fault": "slow", "left_s": 12.5 }],
        "injected": { "slow": 3 }, "started_at": "2026-01-01T00:00:00Z" });
    for call in ["GET /lab/faults", "POST /lab/faults", "DELETE /lab/faults/slow"] {
        console.stubs.answer(call, 200, running.clone());
    }

    let seen = admin.get("/api/lab").await.expect(200);
    let names = seen["replicas"].as_array().unwrap().iter().map(|one| one["program"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["gateway", "a-service", "card-network"]);
    for part in ["offers", "running", "injected", "started_at"] {
        assert_eq!(seen["replicas"][1][part], running[part]);
    }
    let map = admin.get("/api/map").await.expect(200);
    assert_eq!(map["faults"].as_array().unwrap().len(), 3, "{map}");

    let fault = json!({ "program": "a-service", "replica": "a-1", "fault": "slow", "seconds": 5 });
    admin.post("/api/lab/faults", fault).await.expect(200);
    let calls = console.stubs.calls_of("POST /lab/faults");
    let [(token, body)] = &calls[..] else { panic!("{calls:?}") };
    assert!(token.starts_with("Bearer ") && *body == json!({ "fault": "slow", "seconds": 5 }), "{calls:?}");
    admin.delete("/api/lab/faults/a-service/a-1/slow").await.expect(200);
    assert_eq!(console.stubs.calls_of("DELETE /lab/faults/slow").len(), 1);
    let nowhere = json!({ "program": "a-service", "replica": "a-2", "fault": "slow", "seconds": 5 });
    admin.post("/api/lab/faults", nowhere).await.expect_problem(404, "not_found");
}

#[actix_web::test]
async fn without_an_answer_of_a_service_no_promise_is_judged_and_there_are_at_most_fifty_customers() {
    let console = Console::start_lab().await;
    let admin = console.admin().await;
    let asked = || console.stubs.calls_of("GET /admin/outbox").len();
    assert_eq!(admin.get("/api/lab/invariants").await.expect(200)["invariants"], json!(null));
    let before = asked();
    assert_eq!(admin.get("/api/lab/invariants").await.expect(200)["invariants"], json!(null));
    assert!(before > 0 && asked() == before, "a look that fails is shared, too");
    // Nor has a program a place in the lab that answers 404, as all these stubs do.
    assert_eq!(admin.get("/api/lab").await.expect(200)["replicas"], json!([]));
    let refused = admin.put("/api/lab/customers", json!({ "count": 51 })).await;
    assert_eq!(refused.expect_problem(422, "validation_failed"), ["count"]);
    // The stub of the gateway makes no product.
    assert_ne!(admin.put("/api/lab/customers", json!({ "count": 5 })).await.status, 200);
    let seen = admin.get("/api/lab/customers").await.expect(200);
    let none = json!({ "count": 0, "orders": 0, "cancelled": 0, "retries": 0, "is_full": false });
    assert_eq!(seen, none);
}
