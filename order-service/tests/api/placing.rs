//! Placing an order.

use actix_web::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::*;

#[actix_web::test]
async fn an_order_is_placed_paid_and_confirmed() {
    for world in worlds().await {
        let (tea, customer) = (world.product(10).await, world.customer());
        let reply = customer.post("/api/orders", cart(&tea, 3)).await;
        let order = reply.clone().expect(201);
        assert_eq!(reply.header("location"), path(&order));
        assert_eq!(reply.header("etag"), "\"1\"");
        assert_eq!(order["status"], "awaiting_payment");
        assert_eq!(order["customer_id"], customer.id.to_string());
        assert_eq!(order["total"], json!({ "amount": 1050, "currency": "EUR" }));
        assert_eq!(order["lines"][0]["total"], order["total"]);

        let authorize = world.command(&order, "authorize").await;
        assert_eq!(authorize["data"]["amount"], order["total"]);
        assert_eq!(authorize["data"]["token"], "tok_visa");
        assert_eq!(authorize["data"]["payment_id"], order["payment_id"]);
        world.pay(&order).await;
        customer.assert_status(&order, "confirmed").await;
        assert_eq!(world.stock(&tea).await, [7, 0, 3]);
    }
}

#[actix_web::test]
async fn a_declined_card_rejects_the_order_with_a_reason_and_releases_its_stock() {
    for (code, reason) in [
        ("card_declined", "card_declined"),
        ("insufficient_funds", "insufficient_funds"),
        ("payment_unavailable", "payment_unavailable"),
        ("stolen_card", "card_declined"),
    ] {
        let world = world().await;
        let (tea, customer) = (world.product(10).await, world.customer());
        let order = customer.place(&tea, 3).await;
        world.payment_with(&order, "declined", json!({ "code": code })).await;
        customer.assert_status(&order, &format!("rejected ({reason})")).await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
    }
}

#[actix_web::test]
async fn prefer_wait_answers_when_the_order_is_settled_by_any_replica() {
    for world in worlds().await {
        let (tea, other) = (world.product(10).await, world.another_replica().await);
        let customer = world.customer();
        for replica in [&world.replica, &other] {
            let waiting = customer.at(replica).with("prefer", "wait=10");
            let placing = waiting.post("/api/orders", cart(&tea, 1));
            let paying = async {
                let order = eventually("the order is placed", async || {
                    let orders = waiting.get("/api/orders?status=awaiting_payment").await.expect(200);
                    orders["orders"].get(0).cloned()
                });
                world.pay(&order.await).await;
            };
            let (reply, ()) = futures_util::join!(placing, paying);
            assert_eq!(reply.header("preference-applied"), "wait=10");
            assert_eq!(reply.header("etag"), "\"3\"");
            assert_eq!(reply.expect(201)["status"], "confirmed");
        }
    }
}

#[actix_web::test]
async fn prefer_wait_answers_with_an_unsettled_order_after_its_time() {
    let world = world().await;
    let tea = world.product(10).await;
    let reply = world.customer().with("prefer", "wait=1").post("/api/orders", cart(&tea, 1)).await;
    assert_eq!(reply.expect(201)["status"], "awaiting_payment");
}

#[actix_web::test]
async fn an_invalid_body_is_refused_and_every_invalid_field_is_named() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let id = tea["id"].clone();
    let line = |quantity: Value| json!({ "product_id": id, "quantity": quantity });
    let order = |lines: Value, token: Value| json!({ "lines": lines, "payment_token": token });
    let visa = json!("tok_visa");
    let cases = [
        (json!({}), vec!["lines", "payment_token"]),
        (json!([]), vec![""]),
        (order(json!([]), visa.clone()), vec!["lines"]),
        (order(json!({}), visa.clone()), vec!["lines"]),
        (order(json!(vec![line(json!(1)); 51]), visa.clone()), vec!["lines"]),
        (
            order(json!([line(json!(0)), line(json!(-1))]), visa.clone()),
            vec!["lines[0].quantity", "lines[1].quantity"],
        ),
        (order(json!([line(json!(1001))]), visa.clone()), vec!["lines[0].quantity"]),
        (order(json!([line(json!(1.5))]), visa.clone()), vec!["lines[0].quantity"]),
        (order(json!([line(json!("1"))]), visa.clone()), vec!["lines[0].quantity"]),
        (order(json!([line(json!(1e30))]), visa.clone()), vec!["lines[0].quantity"]),
        (order(json!([line(json!(1)), line(json!(2))]), visa.clone()), vec!["lines[1].product_id"]),
        (order(json!([{ "product_id": "x", "quantity": 1 }]), visa.clone()), vec!["lines[0].product_id"]),
        (order(json!([line(json!(1))]), json!("4242424242424242")), vec!["payment_token"]),
        (
            json!({ "lines": [line(json!(1))], "payment_token": visa, "total": 1, "customer_id": id }),
            vec!["customer_id", "total"],
        ),
    ];
    for (body, fields) in cases {
        let reply = customer.post("/api/orders", body.clone()).await;
        assert_eq!(reply.expect_problem(422, "validation_failed"), fields, "{body}");
    }
    assert_eq!(world.stock(&tea).await, [10, 0, 0]);
}

#[actix_web::test]
async fn an_unknown_product_is_named() {
    let world = world().await;
    let tea = world.product(10).await;
    let mut body = cart(&tea, 1);
    body["lines"].as_array_mut().unwrap().push(json!({ "product_id": Uuid::now_v7(), "quantity": 1 }));
    let reply = world.customer().post("/api/orders", body).await;
    assert_eq!(reply.expect_problem(422, "unknown_product"), ["lines[1].product_id"]);
}

#[actix_web::test]
async fn an_inactive_customer_cannot_order() {
    let world = world().await;
    let tea = world.product(10).await;
    for status in ["deactivated", "unknown"] {
        let customer = world.customer();
        world.stubs.user_statuses.lock().unwrap().insert(customer.id, status);
        let reply = customer.post("/api/orders", cart(&tea, 1)).await;
        reply.expect_problem(403, "customer_inactive");
    }
    assert_eq!(world.stock(&tea).await, [10, 0, 0]);
}

#[actix_web::test]
async fn no_order_is_placed_while_user_service_is_down() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    world.set_user_service_down(true);
    let reply = customer.post("/api/orders", cart(&tea, 1)).await;
    reply.expect_problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(world.stock(&tea).await, [10, 0, 0]);
    world.set_user_service_down(false);
    eventually("user-service is used again", async || {
        let reply = customer.post("/api/orders", cart(&tea, 1)).await;
        (reply.status == 201).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn an_order_needs_a_token_and_a_key() {
    let world = world().await;
    let tea = world.product(10).await;
    world.anonymous().post("/api/orders", cart(&tea, 1)).await.expect_problem(401, "missing_token");
    let keyless = world.customer().send(Method::POST, "/api/orders", Some(&cart(&tea, 1))).await;
    keyless.expect_problem(428, "idempotency_key_required");
    for bad in ["", "two words", &"k".repeat(256)] {
        let reply = world.customer().with_key(bad).post("/api/orders", cart(&tea, 1)).await;
        reply.expect_problem(400, "invalid_parameter");
    }
}
