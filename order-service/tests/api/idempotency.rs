//! A request that is sent twice happens once.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::harness::*;

async fn place(api: &Api, key: &(&'static str, String), body: Value) -> Reply {
    api.send(Method::POST, "/api/orders", std::slice::from_ref(key), Some(body)).await
}

#[actix_web::test]
async fn a_replay_is_the_same_answer_byte_for_byte_whatever_happened_since() {
    for world in worlds().await {
        let (tea, customer, key) = (world.product(10).await, world.customer(), key());
        let first = place(&customer, &key, cart(&tea, 3)).await;
        let order = first.clone().expect(201);
        world.pay(&order).await;
        world.neighbours.people.lock().unwrap().insert(customer.id, "deactivated");
        world.users_are_away(true);

        let headers = [key, ("prefer", "wait=5".to_owned())];
        let again = customer.send(Method::POST, "/api/orders", &headers, Some(cart(&tea, 3))).await;
        assert_eq!((again.status, &again.bytes), (first.status, &first.bytes));
        for header in ["location", "etag", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
        assert_eq!(
            (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
            ("", "true")
        );
        assert_eq!(world.goods(&tea).await, [7, 0, 3]);
    }
}

#[actix_web::test]
async fn a_key_is_good_for_one_body() {
    let world = world().await;
    let (tea, customer, key) = (world.product(10).await, world.customer(), key());
    place(&customer, &key, cart(&tea, 3)).await.expect(201);
    place(&customer, &key, cart(&tea, 4)).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(world.goods(&tea).await, [7, 3, 0]);
}

#[actix_web::test]
async fn a_key_belongs_to_its_caller() {
    let world = world().await;
    let (tea, key) = (world.product(10).await, key());
    let one = place(&world.customer(), &key, cart(&tea, 1)).await.expect(201);
    let other = place(&world.customer(), &key, cart(&tea, 1)).await.expect(201);
    assert_ne!(one["id"], other["id"]);
}

#[actix_web::test]
async fn a_refusal_leaves_the_key_free() {
    for world in worlds().await {
        let (tea, customer, key) = (world.product(1).await, world.customer(), key());
        place(&customer, &key, cart(&tea, 2)).await.expect_problem(409, "out_of_stock");
        let mut bad = cart(&tea, 1);
        bad["payment_token"] = json!(7);
        place(&customer, &key, bad).await.expect_problem(422, "validation_failed");
        place(&customer, &key, cart(&tea, 1)).await.expect(201);
    }
}

#[actix_web::test]
async fn the_same_request_many_times_at_once_on_two_replicas_is_one_order() {
    for world in worlds().await {
        let (tea, customer, key) = (world.product(10).await, world.customer(), key());
        let elsewhere = customer.at(&world.another_replica().await);
        let many = (0..10).map(|index| {
            let api = if index % 2 == 0 { &customer } else { &elsewhere };
            place(api, &key, cart(&tea, 1))
        });
        let mut orders = Vec::new();
        for reply in futures_util::future::join_all(many).await {
            match reply.status {
                201 => orders.push(reply.bytes),
                _ => {
                    reply.expect_problem(409, "idempotency_in_progress");
                    assert_eq!(reply.header("retry-after"), "1");
                }
            }
        }
        assert!(!orders.is_empty() && orders.iter().all(|order| *order == orders[0]));
        assert_eq!(world.goods(&tea).await, [9, 1, 0]);
        let listed = customer.get("/api/orders").await.expect(200);
        assert_eq!(listed["orders"].as_array().unwrap().len(), 1);
    }
}

#[actix_web::test]
async fn every_post_honours_a_key() {
    let world = world().await;
    let (admin, customer, tea) = (world.admin(), world.customer(), world.product(10).await);
    let id = tea["id"].as_str().unwrap();
    let order = customer.place(&tea, 1).await;
    world.pay(&order).await;
    let product = json!({
        "sku": "ONCE", "name": "Once", "description": "", "stock": 1,
        "price": { "amount": 1, "currency": "EUR" },
    });
    for (api, path, body) in [
        (&admin, "/api/products".to_owned(), Some(product)),
        (
            &admin,
            format!("/api/products/{id}/stock-adjustments"),
            Some(json!({ "delta": 5, "reason": "found" })),
        ),
        (&admin, format!("{}/ship", path(&order)), None),
        (&admin, format!("{}/deliver", path(&order)), None),
    ] {
        let key = [key()];
        let first = api.send(Method::POST, &path, &key, body.clone()).await;
        let again = api.send(Method::POST, &path, &key, body).await;
        assert!(first.status < 300, "{path}: {}", first.json());
        assert_eq!((again.status, &again.bytes), (first.status, &first.bytes), "{path}");
        assert_eq!(again.header("idempotency-replayed"), "true", "{path}");
    }
    assert_eq!(world.goods(&tea).await, [14, 0, 1]);
}
