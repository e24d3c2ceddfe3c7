use serde_json::{Value, json};
use shared::testing::Api;
use user_service::config::SERVICE;
use uuid::Uuid;

use crate::harness::{PASSWORD, Service};

async fn id(api: &Api) -> Uuid {
    api.get("/api/users/me").await.expect(200)["id"].as_str().unwrap().parse().unwrap()
}

#[actix_web::test]
async fn a_user_sees_no_other_user() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let (bob, _) = service.user("bob@example.com").await;
    let path = format!("/api/users/{}", id(&ann).await);
    bob.get(&path).await.expect_problem(404, "not_found");
    bob.patch(&path, json!({ "name": "Bob" })).await.expect_problem(404, "not_found");
    bob.delete(&path).await.expect_problem(404, "not_found");
    bob.get("/api/users").await.expect_problem(403, "forbidden");
    service.api.get(&path).await.expect_problem(401, "missing_token");
    service.api.get("/api/users/7").await.expect_problem(401, "missing_token");
    service.api.with_token("x").get(&path).await.expect_problem(401, "invalid_token");
}

#[actix_web::test]
async fn an_admin_sees_and_lists_all_users() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    service.user("bob@example.com").await;
    let admin = service.admin().await;
    admin.get(&format!("/api/users/{}", id(&ann).await)).await.expect(200);
    let page = admin.get("/api/users?limit=2").await.expect(200);
    assert_eq!(page["users"].as_array().map(Vec::len), Some(2));
    let next = format!("/api/users?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = admin.get(&next).await.expect(200);
    assert_eq!((rest["users"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &Value::Null));
}

#[actix_web::test]
async fn a_service_sees_only_the_user_it_acts_for() {
    let service = Service::start().await;
    let (ann, _) = service.user("ann@example.com").await;
    let id = id(&ann).await;
    let path = format!("/api/users/{id}");
    let acting = |callee: &str, user: Uuid| {
        service.api.with_token(service.keys.service_token("order-service", callee, Some(user)))
    };
    acting(SERVICE, id).get(&path).await.expect(200);
    acting(SERVICE, Uuid::now_v7()).get(&path).await.expect_problem(404, "not_found");
    acting("payment-service", id).get(&path).await.expect_problem(401, "invalid_token");
}

#[actix_web::test]
async fn a_service_that_calls_for_nobody_uses_the_public_routes_that_the_table_lists() {
    let service = Service::start().await;
    service.user("ann@example.com").await;
    let calling = |caller: &str| service.api.with_token(service.keys.service_token(caller, SERVICE, None));
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    calling("storefront").post("/api/sessions", login.clone()).await.expect(201);
    calling("storefront").get("/api/users/me").await.expect_problem(403, "forbidden");
    calling("order-service").post("/api/sessions", login).await.expect_problem(403, "forbidden");
    // It may read a user, but only for somebody.
    calling("order-service").get("/api/users/me").await.expect_problem(401, "missing_token");
}
