//! The changes that admins may make to other users, and their audit trail.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use shared::testing::Api;
use uuid::Uuid;

use crate::harness::{PASSWORD, Service, claims, tokens};

async fn id(api: &Api) -> Uuid {
    api.get("/api/users/me").await.expect(200)["id"].as_str().unwrap().parse().unwrap()
}

#[actix_web::test]
async fn an_admin_changes_secrets_of_others_and_deactivates_them_only_soon_after_a_login() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let path = format!("/api/users/{}", id(&ann).await);
    let (fresh, refresh) = service.admin_session().await;
    // Six minutes after the login, with a token that was refreshed a moment ago.
    let old = service.api.with_token(service.six_minutes_after_the_login(&fresh));
    for change in [json!({ "password": "another long one" }), json!({ "email": "x@example.com" })] {
        old.patch(&path, change).await.expect_problem(403, "recent_login_required");
    }
    old.delete(&path).await.expect_problem(403, "recent_login_required");
    old.get(&path).await.expect(200);
    old.patch(&path, json!({ "name": "Anna" })).await.expect(200);
    service.log_in("ann@example.com", PASSWORD).await.expect(201);

    let (access, _) = tokens(&service.refresh(&refresh).await.expect(200));
    let (before, after) = (claims(&fresh), claims(&access));
    assert_eq!(before.auth_time, after.auth_time, "a refresh keeps the time of the login");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(now - Duration::from_secs(before.auth_time) < Duration::from_secs(60));
    let admin = service.api.with_token(access);
    admin.patch(&path, json!({ "password": "another long one" })).await.expect(200);
    service.log_in("ann@example.com", "another long one").await.expect(201);
    admin.delete(&path).await.expect(204);
}

#[actix_web::test]
async fn every_change_of_an_admin_to_another_person_is_in_the_audit_table() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let (admin, user_id) = (service.admin().await, id(&ann).await);
    let path = format!("/api/users/{user_id}");
    ann.patch("/api/users/me", json!({ "name": "Anna" })).await.expect(200);
    let change = json!({ "name": "A", "password": "another long one" });
    admin.with("x-real-ip", "203.0.113.9").patch(&path, change).await.expect(200);
    admin.with("if-match", "\"1\"").delete(&path).await.expect_problem(412, "stale_version");
    admin.delete(&path).await.expect(204);

    let audit = admin.get("/admin/audit?limit=1").await.expect(200);
    let next = format!("/admin/audit?cursor={}", audit["next_cursor"].as_str().unwrap());
    let rest = admin.get(&next).await.expect(200);
    let (newest, oldest) = (&audit["changes"][0], &rest["changes"][0]);
    assert_eq!((&newest["action"], &newest["fields"]), (&json!("deactivate"), &json!(["status"])));
    assert_eq!((&oldest["action"], &oldest["fields"]), (&json!("change"), &json!(["name", "password"])));
    for entry in [newest, oldest] {
        assert_eq!(entry["admin_id"], json!(id(&admin).await));
        assert_eq!(entry["user_id"], json!(user_id));
    }
    assert_eq!(oldest["client"], "203.0.113.9");
    assert_eq!((rest["changes"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &Value::Null));
    ann.get("/admin/audit").await.expect_problem(403, "forbidden");
    service.api.get("/admin/audit").await.expect_problem(401, "missing_token");
}

#[actix_web::test]
async fn the_token_of_a_deactivated_admin_ends_at_the_next_admin_call() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let admin = service.admin().await;
    let path = format!("/api/users/{}", id(&ann).await);
    admin.get(&path).await.expect(200);
    admin.delete("/api/users/me").await.expect(204);
    for path in [path.as_str(), "/api/users", "/admin/audit"] {
        admin.get(path).await.expect_problem(401, "invalid_token");
    }
    admin.patch(&path, json!({ "name": "x" })).await.expect_problem(401, "invalid_token");
    admin.delete(&path).await.expect_problem(401, "invalid_token");
    assert_eq!(ann.get("/api/users/me").await.expect(200)["name"], "Ann");
}

#[actix_web::test]
async fn the_token_of_an_admins_ended_session_ends_at_the_next_admin_call() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let path = format!("/api/users/{}", id(&ann).await);
    let [logged_out, replaced, kept] = [service.admin().await, service.admin().await, service.admin().await];
    logged_out.get(&path).await.expect(200);
    logged_out.delete("/api/sessions/current").await.expect(204);
    let password = json!({ "password": "another long one", "current_password": PASSWORD });
    kept.patch("/api/users/me", password).await.expect(200);
    for ended in [logged_out, replaced] {
        for path in [path.as_str(), "/api/users", "/admin/audit"] {
            ended.get(path).await.expect_problem(401, "invalid_token");
        }
        ended.patch(&path, json!({ "name": "x" })).await.expect_problem(401, "invalid_token");
        ended.delete(&path).await.expect_problem(401, "invalid_token");
    }
    kept.patch(&path, json!({ "name": "Anna" })).await.expect(200);
}

#[actix_web::test]
async fn a_deactivation_is_in_the_audit_table_once_however_often_it_is_asked_for() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let (admin, path) = (service.admin().await, format!("/api/users/{}", id(&ann).await));
    for _ in 0..2 {
        admin.delete(&path).await.expect(204);
    }
    let audit = admin.get("/admin/audit").await.expect(200);
    assert_eq!(audit["changes"].as_array().map(Vec::len), Some(1), "{audit}");
    assert_eq!(admin.get(&path).await.expect(200)["version"], 2);
}
