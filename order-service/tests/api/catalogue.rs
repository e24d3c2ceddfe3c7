//! Products and their stock.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::harness::*;

fn product(sku: &str) -> Value {
    json!({
        "sku": sku, "name": "Black tea", "description": "Malty.",
        "price": { "amount": 1250, "currency": "EUR" }, "stock": 5,
    })
}

#[actix_web::test]
async fn an_admin_adds_a_product_and_everyone_can_read_it() {
    let world = world().await;
    let reply = world.admin().post("/api/products", product("TEA-1")).await;
    let added = reply.clone().expect(201);
    let path = format!("/api/products/{}", added["id"].as_str().unwrap());
    assert_eq!((reply.header("location"), reply.header("etag")), (path.as_str(), "\"1\""));
    assert_eq!((&added["available"], &added["price"]["amount"]), (&json!(5), &json!(1250)));
    let seen = world.anonymous().get(&path).await;
    assert_eq!(seen.header("etag"), "\"1\"");
    assert_eq!(seen.expect(200), added);
    world.admin().post("/api/products", product("TEA-1")).await.expect_problem(409, "sku_taken");
}

#[actix_web::test]
async fn only_an_admin_changes_the_catalogue() {
    let world = world().await;
    let tea = world.product(5).await;
    let id = tea["id"].as_str().unwrap();
    let (one, stock) = (format!("/api/products/{id}"), format!("/api/products/{id}/stock-adjustments"));
    for (api, status, code) in
        [(world.customer(), 403, "forbidden"), (world.anonymous(), 401, "missing_token")]
    {
        api.post("/api/products", product("X")).await.expect_problem(status, code);
        api.patch(&one, json!({ "name": "x" })).await.expect_problem(status, code);
        api.post(&stock, json!({ "delta": 1, "reason": "x" })).await.expect_problem(status, code);
    }
}

#[actix_web::test]
async fn a_product_is_changed_only_if_its_version_matches() {
    let world = world().await;
    let (tea, admin) = (world.product(5).await, world.admin());
    let path = format!("/api/products/{}", tea["id"].as_str().unwrap());
    let patch = async |version: &str, body: Value| admin.with("if-match", version).patch(&path, body).await;
    let reply = patch("\"1\"", json!({ "price": { "amount": 1, "currency": "EUR" } })).await;
    assert_eq!(reply.header("etag"), "\"2\"");
    let changed = reply.expect(200);
    assert_eq!((&changed["price"]["amount"], &changed["name"]), (&json!(1), &tea["name"]));
    patch("\"1\"", json!({ "name": "late" })).await.expect_problem(412, "stale_version");
    patch("*", json!({ "name": "any" })).await.expect(200);
    let without = admin.patch(&path, json!({ "description": "" })).await;
    assert_eq!(without.expect(200)["name"], "any");
}

#[actix_web::test]
async fn an_invalid_product_is_refused_and_every_invalid_field_is_named() {
    let world = world().await;
    let admin = world.admin();
    let with = |field: &str, value: Value| {
        let mut body = product("TEA-2");
        body[field] = value;
        body
    };
    for (body, fields) in [
        (json!({}), vec!["sku", "name", "description", "price", "stock"]),
        (with("sku", json!("two words")), vec!["sku"]),
        (with("name", json!("  ")), vec!["name"]),
        (with("description", json!("x".repeat(2001))), vec!["description"]),
        (with("description", json!("a\u{0}b")), vec!["description"]),
        (with("price", json!(1250)), vec!["price"]),
        (with("price", json!({ "amount": -1, "currency": "USD" })), vec!["price.amount", "price.currency"]),
        (with("price", json!({ "amount": 1_000_000_001, "currency": "EUR" })), vec!["price.amount"]),
        (with("price", json!({ "amount": 1.5, "currency": "EUR" })), vec!["price.amount"]),
        (with("stock", json!(-1)), vec!["stock"]),
        (with("stock", json!(1_000_001)), vec!["stock"]),
        (with("version", json!(7)), vec!["version"]),
    ] {
        let reply = admin.post("/api/products", body.clone()).await;
        assert_eq!(reply.expect_problem(422, "validation_failed"), fields, "{body}");
    }
}

#[actix_web::test]
async fn stock_is_adjusted_within_its_bounds() {
    let world = world().await;
    let (tea, admin) = (world.product(5).await, world.admin());
    let path = format!("/api/products/{}/stock-adjustments", tea["id"].as_str().unwrap());
    let adjusted = admin.post(&path, json!({ "delta": -5, "reason": "broken" })).await.expect(201);
    assert_eq!(adjusted, json!({ "product_id": tea["id"], "delta": -5, "available": 0 }));
    admin.post(&path, json!({ "delta": -1, "reason": "x" })).await.expect_problem(409, "out_of_stock");
    admin.post(&path, json!({ "delta": 1, "reason": "found" })).await.expect(201);
    let too_much = admin.post(&path, json!({ "delta": 1_000_000, "reason": "x" })).await;
    assert_eq!(too_much.expect_problem(422, "validation_failed"), ["delta"]);
    for body in [json!({ "delta": 0, "reason": "x" }), json!({ "delta": 2_000_000, "reason": "x" })] {
        let reply = admin.post(&path, body).await;
        assert_eq!(reply.expect_problem(422, "validation_failed"), ["delta"]);
    }
    let keyless = admin.send(Method::POST, &path, Some(&json!({ "delta": 1, "reason": "x" }))).await;
    keyless.expect_problem(428, "idempotency_key_required");
    let nowhere = "/api/products/018f3f1e-0000-7000-8000-000000000000/stock-adjustments";
    admin.post(nowhere, json!({ "delta": 1, "reason": "x" })).await.expect_problem(404, "not_found");
}

#[actix_web::test]
async fn products_are_searched_and_paged_newest_first() {
    let world = world().await;
    for sku in ["TEA-1", "CUP-1", "TEA-2"] {
        world.admin().post("/api/products", product(sku)).await.expect(201);
    }
    let skus = async |query: &str| {
        let page = world.anonymous().get(&format!("/api/products?{query}")).await.expect(200);
        let products = page["products"].as_array().unwrap();
        products.iter().map(|product| product["sku"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(skus("q=tea-").await, ["TEA-2", "TEA-1"]);
    assert_eq!(skus("q=%25").await, Vec::<String>::new());
    assert_eq!(skus("limit=1").await, ["TEA-2"]);
    assert_eq!(skus("").await, ["TEA-2", "CUP-1", "TEA-1"]);
    assert_eq!(skus("q=a%00b").await, Vec::<String>::new());
}

#[actix_web::test]
async fn an_invalid_token_is_refused_even_where_none_is_required() {
    let world = world().await;
    let reply = world.anonymous().with_token("nonsense").get("/api/products").await;
    reply.expect_problem(401, "invalid_token");
}
