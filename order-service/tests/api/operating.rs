//! What admins and other services see.

use actix_web::http::Method;
use serde_json::json;
use shared::messages::Event;

use crate::harness::*;

#[actix_web::test]
async fn an_admin_sees_running_and_stuck_sagas_and_resumes_or_compensates_the_stuck() {
    for world in worlds().await {
        let (tea, customer, admin) = (world.product(10).await, world.customer(), world.admin());
        let sagas = async |state: &str| admin.get(&format!("/admin/sagas?state={state}")).await.expect(200);
        let order = customer.place(&tea, 3).await;
        let running = sagas("running").await;
        assert_eq!(running["sagas"][0]["order_id"], order["id"]);
        assert_eq!(running["sagas"][0]["step"], "authorize");
        assert!(running["sagas"][0]["next_attempt_at"].is_string());
        let act = async |verb: &str| {
            admin.poke(&format!("/admin/sagas/{}/{verb}", order["id"].as_str().unwrap())).await
        };
        act("resume").await.expect_problem(409, "invalid_transition");

        world.payment(&order, "authorized").await;
        world.payment_with(&order, "stuck", json!({ "reason": "five times 500" })).await;
        let stuck = sagas("stuck").await;
        assert_eq!(stuck["sagas"][0]["last_error"], "five times 500");
        assert_eq!(
            (&stuck["sagas"][0]["step"], &stuck["sagas"][0]["state"]),
            (&"capture".into(), &"stuck".into())
        );
        assert_eq!(sagas("running").await["sagas"], json!([]));

        act("resume").await.expect(200);
        eventually("the capture is sent again", || async {
            let captures = world.commands(&order).into_iter().filter(|kind| kind == "payment.capture.v1");
            (captures.count() == 2).then_some(())
        })
        .await;
        assert_eq!(sagas("stuck").await["sagas"], json!([]));
        world.payment_with(&order, "stuck", json!({ "reason": "again" })).await;
        assert_eq!(act("compensate").await.expect(200)["status"], "cancelling");
        world.command(&order, "void").await;
        world.payment(&order, "voided").await;
        customer.sees(&order, "cancelled").await;
        assert_eq!(world.goods(&tea).await, [10, 0, 0]);
        assert_eq!(admin.get("/admin/sagas").await.expect(200)["sagas"], json!([]));
    }
}

#[actix_web::test]
async fn the_stock_equation_holds_and_is_shown() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 3).await;
    customer.place(&tea, 2).await;
    world.pay(&order).await;
    let path = format!("/api/products/{}/stock-adjustments", tea["id"].as_str().unwrap());
    world.admin().post(&path, json!({ "delta": 4, "reason": "found" })).await.expect(201);
    let stock = world.admin().get("/admin/stock").await.expect(200);
    assert_eq!(
        stock["products"][0],
        json!({
            "product_id": tea["id"], "on_hand": 9, "reserved": 2, "sold": 3, "initial": 10, "adjusted": 4,
        })
    );
}

#[actix_web::test]
async fn only_an_admin_operates() {
    let world = world().await;
    for path in ["/admin/sagas", "/admin/stock", "/admin/outbox", "/admin/dead-letters"] {
        world.customer().get(path).await.expect_problem(403, "forbidden");
        world.nobody().get(path).await.expect_problem(401, "missing_token");
    }
    for verb in ["resume", "compensate"] {
        let path = format!("/admin/sagas/018f3f1e-0000-7000-8000-000000000000/{verb}");
        world.customer().poke(&path).await.expect_problem(403, "forbidden");
        world.admin().poke(&path).await.expect_problem(404, "not_found");
    }
    world.admin().get("/admin/sagas?state=done").await.expect_problem(400, "invalid_parameter");
}

#[actix_web::test]
async fn only_a_service_sends_messages_and_a_strange_one_is_kept_or_refused() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    let event = world.event(&order, "captured", json!({}));
    let sent = world.admin().send(Method::POST, "/messages", &[], Some(event.to_json())).await;
    assert_eq!(sent.status, 401);

    let unknown = world.event(&order, "celebrated", json!({}));
    assert_eq!(world.deliver(&unknown).await.status, 204);
    let kept = world.admin().get("/admin/dead-letters").await.expect(200);
    assert_eq!(kept["dead_letters"][0]["id"], unknown.id.to_string(), "kept, not dropped");

    let stranger = json!({ "id": uuid::Uuid::now_v7(), "payment_id": order["payment_id"] });
    let of_no_order = world.event(&stranger, "captured", json!({}));
    world.deliver(&of_no_order).await.expect_problem(422, "message_rejected");
    let other_payment = json!({ "id": order["id"], "payment_id": uuid::Uuid::now_v7() });
    let of_other = world.event(&other_payment, "captured", json!({}));
    world.deliver(&of_other).await.expect_problem(422, "message_rejected");
    let nonsense = Event::new("payment-service", "payment.captured.v2", "x", json!({ "order_id": 7 }));
    world.deliver(&nonsense).await.expect_problem(422, "message_rejected");
    customer.sees(&order, "awaiting_payment").await;
}

#[actix_web::test]
async fn a_capture_of_another_amount_is_refused_and_one_of_the_old_version_is_read() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    world.payment(&order, "authorized").await;
    for other in [json!({ "amount": 1, "currency": "EUR" }), json!({ "amount": 350, "currency": "USD" })] {
        let captured = world.event(&order, "captured", json!({ "amount": other }));
        world.deliver(&captured).await.expect_problem(422, "message_rejected");
    }
    customer.sees(&order, "awaiting_payment").await;

    let data = json!({ "payment_id": order["payment_id"], "order_id": order["id"] });
    let old = Event::new("payment-service", "payment.captured.v1", order["id"].as_str().unwrap(), data);
    assert_eq!(world.deliver(&old).await.status, 204);
    customer.sees(&order, "confirmed").await;
}

#[actix_web::test]
async fn the_openapi_document_describes_every_route_under_api() {
    let world = world().await;
    let document = world.nobody().get("/openapi.json").await.expect(200);
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        operations.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    operations.sort();
    assert_eq!(
        operations,
        [
            "get /api/orders",
            "get /api/orders/{id}",
            "get /api/orders/{id}/events",
            "get /api/orders/{id}/timeline",
            "get /api/products",
            "get /api/products/{id}",
            "patch /api/products/{id}",
            "post /api/orders",
            "post /api/orders/{id}/cancel",
            "post /api/orders/{id}/deliver",
            "post /api/orders/{id}/ship",
            "post /api/products",
            "post /api/products/{id}/stock-adjustments",
        ]
    );
    let place = &document["components"]["schemas"]["PlaceOrder"];
    assert_eq!(place["required"], json!(["lines", "payment_token"]));
}

#[actix_web::test]
async fn metrics_count_orders_by_where_they_came_to() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    world.pay(&order).await;
    let metrics = world.nobody().get("/metrics").await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    for line in [r#"orders_total{reason="",status="awaiting_payment"}"#, r#"status="confirmed"}"#] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[actix_web::test]
async fn a_method_that_is_not_there_is_405_and_names_those_that_are() {
    let world = world().await;
    let reply = world.customer().send(Method::DELETE, "/api/orders", &[], None).await;
    reply.expect_problem(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), "OPTIONS, HEAD, GET, POST");
}
