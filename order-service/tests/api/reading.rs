//! Access to orders: one order, lists, timelines.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::*;

fn ids(list: &Value) -> Vec<&str> {
    list["orders"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn an_order_of_someone_else_is_404() {
    let world = world().await;
    let (tea, owner, stranger) = (world.product(10).await, world.customer(), world.customer());
    let order = owner.place(&tea, 1).await;
    for part in ["", "/timeline", "/events"] {
        let path = format!("{}{part}", path(&order));
        stranger.get(&path).await.expect_problem(404, "not_found");
        world.anonymous().get(&path).await.expect_problem(401, "missing_token");
    }
    stranger.cancel(&order).await.expect_problem(404, "not_found");
    world.anonymous().cancel(&order).await.expect_problem(401, "missing_token");
    for part in ["ship", "deliver"] {
        let path = format!("{}/{part}", path(&order));
        owner.post_empty(&path).await.expect_problem(403, "forbidden");
        stranger.post_empty(&path).await.expect_problem(403, "forbidden");
    }
    owner.assert_status(&order, "awaiting_payment").await;
    world.admin().assert_status(&order, "awaiting_payment").await;
}

#[actix_web::test]
async fn an_unknown_or_malformed_order_id_is_404() {
    let world = world().await;
    for id in ["018f3f1e-0000-7000-8000-000000000000", "7", "018f3f1e000070008000000000000000"] {
        for part in ["", "/timeline", "/events"] {
            let path = format!("/api/orders/{id}{part}");
            world.customer().get(&path).await.expect_problem(404, "not_found");
        }
        let cancel = format!("/api/orders/{id}/cancel");
        world.customer().post_empty(&cancel).await.expect_problem(404, "not_found");
        let ship = format!("/api/orders/{id}/ship");
        world.admin().post_empty(&ship).await.expect_problem(404, "not_found");
    }
}

#[actix_web::test]
async fn a_customer_lists_their_own_orders_and_an_admin_all() {
    let world = world().await;
    let (tea, one, other, admin) =
        (world.product(10).await, world.customer(), world.customer(), world.admin());
    let first = one.place(&tea, 1).await;
    let second = other.place(&tea, 1).await;
    let third = one.place(&tea, 1).await;
    world.payment(&third, "declined").await;

    let mine = one.get("/api/orders").await.expect(200);
    assert_eq!(ids(&mine), [third["id"].as_str().unwrap(), first["id"].as_str().unwrap()]);
    let theirs = one.get(&format!("/api/orders?customer_id={}", other.id)).await.expect(200);
    assert_eq!(theirs, mine, "ignored from anyone but an admin");

    let all = admin.get("/api/orders").await.expect(200);
    assert_eq!(ids(&all).len(), 3);
    let narrowed = admin.get(&format!("/api/orders?customer_id={}", other.id)).await.expect(200);
    assert_eq!(ids(&narrowed), [second["id"].as_str().unwrap()]);
    let rejected = admin.get("/api/orders?status=rejected").await.expect(200);
    assert_eq!(ids(&rejected), [third["id"].as_str().unwrap()]);
}

#[actix_web::test]
async fn pages_contain_every_order_once() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    for _ in 0..5 {
        customer.place(&tea, 1).await;
    }
    let (mut seen, mut query) = (BTreeSet::new(), "limit=2".to_owned());
    for size in [2, 2, 1] {
        let page = customer.get(&format!("/api/orders?{query}")).await.expect(200);
        assert_eq!(ids(&page).len(), size);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        query = format!("limit=2&cursor={}", page["next_cursor"].as_str().unwrap_or_default());
    }
    assert_eq!((seen.len(), query.as_str()), (5, "limit=2&cursor="));
}

#[actix_web::test]
async fn an_invalid_query_parameter_is_refused_and_an_unknown_one_ignored() {
    let world = world().await;
    for bad in ["status=paid", "status=", "limit=0", "limit=101", "cursor=x", "customer_id=x"] {
        let reply = world.admin().get(&format!("/api/orders?{bad}")).await;
        reply.expect_problem(400, "invalid_parameter");
    }
    world.admin().get("/api/orders?colour=red").await.expect(200);
}

#[actix_web::test]
async fn the_timeline_shows_each_change_with_its_cause_and_trace() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = customer.with("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let placed = traced.post("/api/orders", cart(&tea, 1)).await.expect(201);
    let authorize = world.command(&placed, "authorize").await;
    assert!(authorize["traceparent"].as_str().unwrap().contains(trace), "{authorize}");
    let authorized = world.event(&placed, "authorized", Value::Null);
    assert_eq!(world.deliver(&authorized).await.status, 204);
    world.payment(&placed, "captured").await;

    let timeline = customer.get(&format!("{}/timeline", path(&placed))).await.expect(200);
    let events = timeline["events"].as_array().unwrap();
    let changes: Vec<_> =
        events.iter().map(|event| (&event["from"], &event["to"], &event["cause"])).collect();
    let (awaiting, confirmed) = (&Value::from("awaiting_payment"), &Value::from("confirmed"));
    assert_eq!(
        changes,
        [
            (&Value::Null, awaiting, &"placed".into()),
            (awaiting, awaiting, &"payment.authorized".into()),
            (awaiting, confirmed, &"payment.captured".into()),
        ]
    );
    assert_eq!(events[0]["trace_id"], trace);
    assert_eq!(events[1]["message_id"], authorized.id.to_string());
    assert_eq!((&events[1]["attempt"], &events[0]["message_id"]), (&1.into(), &Value::Null));
    assert!(events[0]["instance"].as_str().unwrap().starts_with("test-"));
}
