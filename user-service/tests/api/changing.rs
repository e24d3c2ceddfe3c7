use serde_json::json;

use crate::harness::{PASSWORD, Service, tokens};

#[actix_web::test]
async fn an_address_or_a_password_changes_only_with_the_current_password() {
    let service = Service::start().await;
    let (ann, refresh) = service.user("ann@example.com").await;
    let (_, other) = tokens(&service.log_in("ann@example.com", PASSWORD).await.expect(201));
    for change in [
        json!({ "password": "another long one" }),
        json!({ "email": "anna@example.com", "current_password": "the wrong one" }),
    ] {
        let reply = ann.patch("/api/users/me", change).await;
        assert_eq!(reply.expect_problem(422, "validation_failed"), ["current_password"]);
    }
    let change = json!({ "password": "another long one", "name": "Anna", "current_password": PASSWORD });
    let changed = ann.patch("/api/users/me", change).await;
    assert_eq!((changed.header("etag"), &changed.body["name"]), ("\"2\"", &json!("Anna")));
    service.log_in("ann@example.com", PASSWORD).await.expect_problem(401, "invalid_credentials");
    service.log_in("ann@example.com", "another long one").await.expect(201);
    service.refresh(&refresh).await.expect(200);
    service.refresh(&other).await.expect_problem(401, "invalid_token");
}

#[actix_web::test]
async fn a_wrong_current_password_counts_as_a_failed_login() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let change = json!({ "password": "another long one", "current_password": "the wrong one" });
    for _ in 0..10 {
        ann.patch("/api/users/me", change.clone()).await.expect_problem(422, "validation_failed");
    }
    ann.patch("/api/users/me", change).await.expect_problem(429, "rate_limited");
    service.log_in("ann@example.com", PASSWORD).await.expect_problem(429, "rate_limited");
}

#[actix_web::test]
async fn a_change_to_a_stale_version_is_refused() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    ann.with("if-match", "\"1\"").patch("/api/users/me", json!({ "name": "Anna" })).await.expect(200);
    let stale = ann.with("if-match", "\"1\"");
    stale.patch("/api/users/me", json!({ "name": "Ann" })).await.expect_problem(412, "stale_version");
    stale.delete("/api/users/me").await.expect_problem(412, "stale_version");
    assert_eq!(ann.get("/api/users/me").await.expect(200)["name"], "Anna");
}

#[actix_web::test]
async fn a_deactivated_user_keeps_the_address_and_cannot_log_in() {
    let service = Service::start().await;
    let (ann, refresh) = service.user("ann@example.com").await;
    ann.delete("/api/users/me").await.expect(204);
    assert_eq!(ann.get("/api/users/me").await.expect(200)["status"], "deactivated");
    service.log_in("ann@example.com", PASSWORD).await.expect_problem(401, "invalid_credentials");
    service.refresh(&refresh).await.expect_problem(401, "invalid_token");
    service.register("ann@example.com").await.expect_problem(409, "email_taken");
}
