//! Admin endpoints, incoming messages and metrics.

use actix_web::http::Method;
use serde_json::{Value, json};
use shared::messages::Event;

use crate::harness::*;

#[actix_web::test]
async fn an_admin_lists_sagas_and_resumes_or_compensates_a_stuck_one() {
    for world in worlds().await {
        let (tea, customer, admin) = (world.product(10).await, world.customer(), world.admin());
        let sagas = async |state: &str| admin.get(&format!("/admin/sagas?state={state}")).await.expect(200);
        let order = customer.place(&tea, 3).await;
        let running = sagas("running").await;
        assert_eq!(running["sagas"][0]["order_id"], order["id"]);
        assert_eq!(running["sagas"][0]["step"], "authorize");
        assert!(running["sagas"][0]["next_attempt_at"].is_string());
        let command = async |verb: &str| {
            admin.post_empty(&format!("/admin/sagas/{}/{verb}", order["id"].as_str().unwrap())).await
        };
        command("resume").await.expect_problem(409, "invalid_transition");

        world.payment(&order, "authorized").await;
        world.payment_with(&order, "stuck", json!({ "reason": "five times 500" })).await;
        let stuck = sagas("stuck").await;
        assert_eq!(stuck["sagas"][0]["last_error"], "five times 500");
        assert_eq!(
            (&stuck["sagas"][0]["step"], &stuck["sagas"][0]["state"]),
            (&"capture".into(), &"stuck".into())
        );
        assert_eq!(sagas("running").await["sagas"], json!([]));

        command("resume").await.expect(200);
        eventually("the capture is sent again", async || {
            let captures = world.commands(&order).into_iter().filter(|kind| kind == "payment.capture.v1");
            (captures.count() == 2).then_some(())
        })
        .await;
        assert_eq!(sagas("stuck").await["sagas"], json!([]));
        world.payment_with(&order, "stuck", json!({ "reason": "again" })).await;
        assert_eq!(command("compensate").await.expect(200)["status"], "cancelling");
        world.command(&order, "void").await;
        world.payment(&order, "voided").await;
        customer.assert_status(&order, "cancelled").await;
        assert_eq!(world.stock(&tea).await, [10, 0, 0]);
        assert_eq!(admin.get("/admin/sagas").await.expect(200)["sagas"], json!([]));
    }
}

#[actix_web::test]
async fn what_an_admin_does_to_an_order_is_in_the_audit_table_once() {
    for world in worlds().await {
        let (tea, customer, admin) = (world.product(10).await, world.customer(), world.admin());
        let ask = async |by: &Person, order: &Value, verb: &str| {
            by.post_empty(&format!("{}/{verb}", path(order))).await
        };
        let (own, shipped) = (customer.place(&tea, 1).await, customer.place(&tea, 1).await);
        let [cancelled, compensated] = [customer.place(&tea, 1).await, customer.place(&tea, 1).await];
        ask(&customer, &own, "cancel").await.expect(202);
        for _ in 0..2 {
            ask(&admin, &cancelled, "cancel").await.expect(202);
        }
        world.pay(&shipped).await;
        customer.assert_status(&shipped, "confirmed").await;
        ask(&admin, &shipped, "ship").await.expect(200);
        ask(&admin, &shipped, "cancel").await.expect_problem(409, "not_cancellable");
        let path = format!("/admin/sagas/{}/compensate", compensated["id"].as_str().unwrap());
        admin.with("x-request-id", "of-this-one").post(&path, json!({})).await.expect(200);

        let audit = admin.get("/admin/audit").await.expect(200);
        let acts = audit["acts"].as_array().unwrap();
        let seen: Vec<_> =
            acts.iter().map(|act| (act["action"].as_str().unwrap(), &act["subject_id"])).collect();
        assert_eq!(
            seen,
            [
                ("admin.compensate", &compensated["id"]),
                ("ship", &shipped["id"]),
                ("cancel", &cancelled["id"])
            ]
        );
        assert!(acts.iter().all(|act| act["admin_id"] == json!(admin.id)), "{audit}");
        assert_eq!(acts[0]["request_id"], "of-this-one");
        assert_eq!(acts[2]["details"], json!({ "version": 2, "status": "cancelling" }));
        customer.get("/admin/audit").await.expect_problem(403, "forbidden");
    }
}

#[actix_web::test]
async fn admin_stock_shows_the_stock_equation() {
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
async fn admin_endpoints_require_an_admin() {
    let world = world().await;
    for path in ["/admin/sagas", "/admin/stock", "/admin/outbox", "/admin/messages", "/admin/dead-letters"] {
        world.customer().get(path).await.expect_problem(403, "forbidden");
        world.anonymous().get(path).await.expect_problem(401, "missing_token");
    }
    for verb in ["resume", "compensate"] {
        let path = format!("/admin/sagas/018f3f1e-0000-7000-8000-000000000000/{verb}");
        world.customer().post_empty(&path).await.expect_problem(403, "forbidden");
        world.admin().post_empty(&path).await.expect_problem(404, "not_found");
    }
    world.admin().get("/admin/sagas?state=done").await.expect_problem(400, "invalid_parameter");
}

#[actix_web::test]
async fn only_services_send_messages_and_an_unknown_type_becomes_a_dead_letter() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    let event = world.event(&order, "captured", json!({}));
    let sent = world.admin().send(Method::POST, "/messages", Some(&event.to_json())).await;
    assert_eq!(sent.status, 401);

    let not_in_the_table = world.event(&order, "celebrated", json!({}));
    world.deliver(&not_in_the_table).await.expect_problem(403, "forbidden");
    let mut of_another = event.clone();
    of_another.source = "user-service".to_owned();
    world.deliver(&of_another).await.expect_problem(403, "forbidden");

    let mut unknown = event.clone();
    unknown.kind = "payment.captured.v9".to_owned();
    assert_eq!(world.deliver(&unknown).await.status, 204);
    let kept = world.admin().get("/admin/dead-letters").await.expect(200);
    assert_eq!(kept["dead_letters"][0]["id"], unknown.id.to_string(), "kept as a dead letter");

    let unknown_order = json!({ "id": uuid::Uuid::now_v7(), "payment_id": order["payment_id"] });
    let captured = world.event(&unknown_order, "captured", json!({}));
    world.deliver(&captured).await.expect_problem(422, "message_rejected");
    let other_payment = json!({ "id": order["id"], "payment_id": uuid::Uuid::now_v7() });
    let captured = world.event(&other_payment, "captured", json!({}));
    world.deliver(&captured).await.expect_problem(422, "message_rejected");
    let malformed = Event::new("payment-service", "payment.captured.v2", "x", json!({ "order_id": 7 }));
    world.deliver(&malformed).await.expect_problem(422, "message_rejected");
    customer.assert_status(&order, "awaiting_payment").await;
}

#[actix_web::test]
async fn a_capture_of_another_amount_is_refused_and_an_old_event_version_is_read() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    world.payment(&order, "authorized").await;
    for other in [json!({ "amount": 1, "currency": "EUR" }), json!({ "amount": 350, "currency": "USD" })] {
        let captured = world.event(&order, "captured", json!({ "amount": other }));
        world.deliver(&captured).await.expect_problem(422, "message_rejected");
    }
    customer.assert_status(&order, "awaiting_payment").await;

    let data = json!({ "payment_id": order["payment_id"], "order_id": order["id"] });
    let old = Event::new("payment-service", "payment.captured.v1", order["id"].as_str().unwrap(), data);
    assert_eq!(world.deliver(&old).await.status, 204);
    customer.assert_status(&order, "confirmed").await;
}

#[actix_web::test]
async fn metrics_count_orders_by_status() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    world.pay(&order).await;
    let metrics = world.anonymous().text("/metrics").await;
    for line in [r#"orders_total{reason="",status="awaiting_payment"}"#, r#"status="confirmed"}"#] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
