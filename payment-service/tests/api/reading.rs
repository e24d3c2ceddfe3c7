//! Which callers may see which payments.

use actix_web::http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Ordered, World};

#[actix_web::test]
async fn only_its_customer_and_admins_can_see_a_payment() {
    let world = World::start().await;
    let ordered = world.captured().await;
    let path = format!("/api/payments/{}", ordered.payment_id);
    for reader in [world.as_customer(ordered.customer_id), world.as_admin()] {
        let reply = reader.get(&path).await;
        let payment = reply.clone().expect(200);
        assert_eq!(reply.header("etag"), format!("\"{}\"", payment["version"]));
        assert_eq!(payment["id"], json!(ordered.payment_id));
        assert_eq!(payment["order_id"], json!(ordered.order_id));
        assert_eq!(payment["customer_id"], json!(ordered.customer_id));
        assert_eq!(payment["amount"], json!({ "amount": 1000, "currency": "EUR" }));
        assert_eq!(payment["decline_code"], json!(null));
        assert!(payment.get("token").is_none(), "{payment}");
    }
    world.as_customer(Uuid::now_v7()).get(&path).await.expect_problem(404, "not_found");
    world.service.get(&path).await.expect_problem(401, "missing_token");
    let forged = world.service.with_token("x.y.z");
    forged.get(&path).await.expect_problem(401, "invalid_token");
    for absent in [Uuid::now_v7().to_string(), "1".to_owned()] {
        let path = format!("/api/payments/{absent}");
        world.as_admin().get(&path).await.expect_problem(404, "not_found");
    }
}

#[actix_web::test]
async fn an_admin_sees_the_ledger_entries_of_one_payment() {
    let world = World::start().await;
    let (one, _other) = (world.captured().await, world.captured().await);
    let path = format!("/admin/payments/{}/entries", one.payment_id);
    let entries = world.as_admin().get(&path).await.expect(200)["entries"].clone();
    let entries = entries.as_array().unwrap();
    assert!(entries.len() >= 2, "{entries:?}");
    let sum: i64 = entries.iter().map(|entry| entry["amount"].as_i64().unwrap()).sum();
    assert_eq!(sum, 0, "{entries:?}");
    assert!(entries.iter().all(|entry| entry["currency"] == "EUR" && entry["at"].is_string()), "{entries:?}");
    world.as_customer(one.customer_id).get(&path).await.expect_problem(403, "forbidden");
    let absent = format!("/admin/payments/{}/entries", Uuid::now_v7());
    assert_eq!(world.as_admin().get(&absent).await.expect(200)["entries"], json!([]));
}

#[actix_web::test]
async fn a_customer_lists_their_own_payments_and_an_admin_all() {
    let world = World::start().await;
    let (mine, theirs) = (Ordered::new(), Ordered::new());
    world.authorize(&mine, "tok_visa").await;
    world.authorize(&theirs, "tok_visa").await;
    let me = world.as_customer(mine.customer_id);
    let own = me.get("/api/payments").await.expect(200);
    assert_eq!(own["payments"].as_array().unwrap().len(), 1);
    assert_eq!((&own["payments"][0]["id"], &own["next_cursor"]), (&json!(mine.payment_id), &json!(null)));

    let by_order = format!("/api/payments?order_id={}", theirs.order_id);
    assert_eq!(me.get(&by_order).await.expect(200)["payments"], json!([]), "an order of somebody else");
    let admin = world.as_admin();
    assert_eq!(admin.get(&by_order).await.expect(200)["payments"][0]["id"], json!(theirs.payment_id));
    let page = admin.get("/api/payments?limit=1").await.expect(200);
    let next = format!("/api/payments?limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(admin.get(&next).await.expect(200)["payments"][0]["id"], json!(mine.payment_id));
    for bad in ["order_id=7", "limit=0", "limit=101", "cursor=x"] {
        admin.get(&format!("/api/payments?{bad}")).await.expect_problem(400, "invalid_parameter");
    }
}

#[actix_web::test]
async fn only_an_admin_can_use_the_admin_endpoints() {
    let world = World::start().await;
    for path in ["/admin/ledger", "/admin/outbox", "/admin/messages", "/admin/dead-letters"] {
        world.service.get(path).await.expect_problem(401, "missing_token");
        world.as_customer(Uuid::now_v7()).get(path).await.expect_problem(403, "forbidden");
        world.as_admin().get(path).await.expect(200);
    }
}

#[actix_web::test]
async fn messages_are_taken_from_services_of_the_stack_only() {
    let world = World::start().await;
    let event = crate::harness::authorize_command(&Ordered::new(), "tok_visa");
    world.service.post("/messages", event.clone()).await.expect_problem(401, "missing_token");
    world.as_admin().post("/messages", event.clone()).await.expect_problem(401, "invalid_token");
    let for_another = world.others.keys.service_token("order-service", "user-service", None);
    let other = world.service.with_token(for_another);
    other.post("/messages", event.clone()).await.expect_problem(401, "invalid_token");
}

#[actix_web::test]
async fn the_service_describes_itself() {
    let world = World::start().await;
    let document = world.service.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, method) in
        [("/api/payments", "get"), ("/api/payments/{id}", "get"), ("/api/payments/{id}/refunds", "post")]
    {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    assert_eq!(document["paths"].as_object().unwrap().len(), 3, "what operators use is not in it");
    let health = world.service.get("/health/ready").await.expect(200);
    assert_eq!((&health["service"], &health["status"]), (&json!("payment-service"), &json!("ok")));
    let head = world.as_admin().send(Method::HEAD, "/api/payments", None).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
}
