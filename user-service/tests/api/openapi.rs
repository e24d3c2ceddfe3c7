//! The OpenAPI document and the router.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::harness::Service;

#[actix_web::test]
async fn the_openapi_document_describes_every_method_that_the_router_answers() {
    let service = Service::start().await;
    let document = service.api.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 6);
    for (path, operations) in paths {
        let options = service.api.send(Method::OPTIONS, &path.replace("{id}", "me"), None).await;
        let answered =
            options.header("allow").split(", ").filter(|method| !["OPTIONS", "HEAD"].contains(method));
        let described = operations.as_object().unwrap().keys().map(|method| method.to_uppercase());
        let (mut answered, mut described) = (answered.collect::<Vec<_>>(), described.collect::<Vec<_>>());
        answered.sort_unstable();
        described.sort_unstable();
        assert_eq!(answered, described, "{path}");
        let tagged =
            |operation: &Value| ["users", "sessions"].map(|tag| json!([tag])).contains(&operation["tags"]);
        assert!(operations.as_object().unwrap().values().all(tagged), "{path}: {operations}");
    }
}

#[actix_web::test]
async fn a_path_names_its_methods_and_refuses_others() {
    let service = Service::start().await;
    let options = service.api.send(Method::OPTIONS, "/api/users/me", None).await;
    assert_eq!((options.status, options.header("allow")), (204, "OPTIONS, HEAD, GET, PATCH, DELETE"));
    service.api.send(Method::PUT, "/api/users", None).await.expect_problem(405, "method_not_allowed");
}
