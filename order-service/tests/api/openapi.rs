//! The OpenAPI document and the router.

use actix_web::http::Method;
use serde_json::json;

use crate::harness::*;

#[actix_web::test]
async fn the_openapi_document_describes_every_route_under_api() {
    let api = world().await.anonymous();
    let document = api.get("/openapi.json").await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 10);
    for (path, operations) in paths {
        assert!(path.starts_with("/api/"), "{path}");
        let id = "018f3f1e-0000-7000-8000-000000000000";
        let options = api.send(Method::OPTIONS, &path.replace("{id}", id), None).await;
        let allowed = options.header("allow").split(", ");
        let mut served: Vec<_> = allowed.filter(|method| !["OPTIONS", "HEAD"].contains(method)).collect();
        let mut described: Vec<_> =
            operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        served.sort_unstable();
        described.sort_unstable();
        assert_eq!(served, described, "{path}");
    }
    let place = &document["components"]["schemas"]["PlaceOrder"];
    assert_eq!(place["required"], json!(["lines", "payment_token"]));
}

#[actix_web::test]
async fn a_method_that_is_not_served_is_405_and_names_those_that_are() {
    let reply = world().await.customer().delete("/api/orders").await;
    reply.expect_problem(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), "OPTIONS, HEAD, GET, POST");
    assert_eq!(reply.body["service"], "order-service");
}
