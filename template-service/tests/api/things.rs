use actix_web::http::Method;
use serde_json::{Value, json};
use shared::testing::Api;

use crate::harness::replicas;

async fn add(api: &Api, name: &str) -> Value {
    api.post("/api/things", json!({ "name": name })).await.expect(201)
}

fn names(page: &Value) -> Vec<&str> {
    page["things"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn the_owner_and_admins_see_what_was_added_and_nobody_else_does() {
    for replica in replicas().await {
        let owner = replica.user();
        let added = owner.post("/api/things", json!({ "name": "First" })).await;
        let path = added.header("location").to_owned();
        assert_eq!((added.status, added.header("etag")), (201, "\"1\""));
        assert_eq!(path, format!("/api/things/{}", added.body["id"].as_str().unwrap()));

        for api in [&owner, &replica.admin()] {
            let shown = api.get(&path).await;
            assert_eq!((shown.header("etag"), &shown.body), ("\"1\"", &added.body));
        }
        replica.user().get(&path).await.expect_problem(404, "not_found");
        owner.get("/api/things/7").await.expect_problem(404, "not_found");
        replica.api.get(&path).await.expect_problem(401, "missing_token");
    }
}

#[actix_web::test]
async fn a_client_that_has_the_current_version_gets_304_without_it() {
    for replica in replicas().await {
        let owner = replica.user();
        let path = format!("/api/things/{}", add(&owner, "First").await["id"].as_str().unwrap());
        for tags in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*"] {
            let shown = owner.with("if-none-match", tags).get(&path).await;
            assert_eq!((shown.status, shown.header("etag"), shown.bytes.len()), (304, "\"1\"", 0), "{tags}");
            assert_eq!(shown.header("content-type"), "");
        }
        owner.with("if-none-match", "\"2\"").get(&path).await.expect(200);
        // A caller who may not see it learns nothing of its version.
        replica.user().with("if-none-match", "\"1\"").get(&path).await.expect_problem(404, "not_found");
    }
}

#[actix_web::test]
async fn a_request_that_is_sent_twice_happens_once() {
    for replica in replicas().await {
        let owner = replica.user();
        let add = async |name: &str| owner.with_key("k").post("/api/things", json!({ "name": name })).await;
        let (first, again) = (add("First").await, add("First").await);
        assert_eq!((first.status, first.bytes), (201, again.bytes.clone()));
        assert_eq!(again.header("idempotency-replayed"), "true");
        add("Second").await.expect_problem(422, "idempotency_key_reused");
        assert_eq!(names(&owner.get("/api/things").await.expect(200)), ["First"]);
    }
}

#[actix_web::test]
async fn a_user_lists_their_own_page_by_page_and_an_admin_lists_all() {
    for replica in replicas().await {
        let (ann, bob) = (replica.user(), replica.user());
        for name in ["1", "2", "3"] {
            add(&ann, name).await;
        }
        add(&bob, "4").await;
        let page = ann.get("/api/things?limit=2").await.expect(200);
        assert_eq!(names(&page), ["3", "2"]);
        add(&ann, "5").await;
        let next = format!("/api/things?cursor={}", page["next_cursor"].as_str().unwrap());
        let rest = ann.get(&next).await.expect(200);
        assert_eq!((names(&rest), &rest["next_cursor"]), (vec!["1"], &Value::Null));
        assert_eq!(names(&replica.admin().get("/api/things").await.expect(200)), ["5", "4", "3", "2", "1"]);
        ann.get("/api/things?limit=0").await.expect_problem(400, "invalid_parameter");
    }
}

#[actix_web::test]
async fn every_fault_of_a_request_is_named() {
    for replica in replicas().await {
        let owner = replica.user();
        let body = json!({ "name": "", "colour": "red" });
        let refused = owner.post("/api/things", body.clone()).await;
        assert_eq!(refused.expect_problem(422, "validation_failed"), ["name", "colour"]);
        let no_key = owner.send(Method::POST, "/api/things", Some(&json!({ "name": "First" }))).await;
        no_key.expect_problem(428, "idempotency_key_required");
    }
}

#[actix_web::test]
async fn the_openapi_document_describes_every_endpoint() {
    for replica in replicas().await {
        let document = replica.api.get("/openapi.json").await.expect(200);
        let described = |path: &str| document["paths"][path].as_object().unwrap().keys().len();
        assert_eq!((described("/api/things"), described("/api/things/{id}")), (2, 1));
    }
}
