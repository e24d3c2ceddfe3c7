//! A request that is sent twice happens once.

use actix_web::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::*;

async fn place(api: &Api, key: &str, body: Value) -> Reply {
    api.with_key(key).post("/api/orders", body).await
}

async fn adjust(api: &Api, key: &str, product: &Value, delta: i64) -> Reply {
    let path = format!("/api/products/{}/stock-adjustments", product["id"].as_str().unwrap());
    api.with_key(key).post(&path, json!({ "delta": delta, "reason": "counted" })).await
}

/// Sends a request ten times at once, to two replicas in turn. All successful answers must be equal; the
/// others must be 409 with `Retry-After`.
async fn ten_times(world: &World, person: &Person, request: impl AsyncFn(&Person) -> Reply) {
    let at_other = person.at(&world.another_replica().await);
    let many = (0..10).map(|index| request(if index % 2 == 0 { person } else { &at_other }));
    let mut answers = Vec::new();
    for reply in futures_util::future::join_all(many).await {
        match reply.status {
            201 => answers.push(reply.bytes),
            _ => {
                reply.expect_problem(409, "idempotency_in_progress");
                assert_eq!(reply.header("retry-after"), "1");
            }
        }
    }
    assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == answers[0]));
}

#[actix_web::test]
async fn a_replay_is_the_same_answer_byte_for_byte_even_if_the_order_changed_since() {
    for world in worlds().await {
        let (tea, customer, key) = (world.product(10).await, world.customer(), key());
        let first = place(&customer, &key, cart(&tea, 3)).await;
        let order = first.clone().expect(201);
        world.pay(&order).await;
        world.stubs.user_statuses.lock().unwrap().insert(customer.id, "deactivated");
        world.set_user_service_down(true);

        let waiting = customer.with_key(key).with("prefer", "wait=5");
        let again = waiting.post("/api/orders", cart(&tea, 3)).await;
        assert_eq!((again.status, &again.bytes), (first.status, &first.bytes));
        for header in ["location", "etag", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
        assert_eq!(
            (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
            ("", "true")
        );
        assert_eq!(world.stock(&tea).await, [7, 0, 3]);
    }
}

#[actix_web::test]
async fn a_key_is_valid_for_one_body() {
    for world in worlds().await {
        let (tea, customer, admin) = (world.product(10).await, world.customer(), world.admin());
        let (order_key, adjustment_key) = (key(), key());
        place(&customer, &order_key, cart(&tea, 3)).await.expect(201);
        place(&customer, &order_key, cart(&tea, 4)).await.expect_problem(422, "idempotency_key_reused");
        let mut unknown = cart(&tea, 3);
        unknown["lines"][0]["product_id"] = json!(Uuid::now_v7());
        place(&customer, &order_key, unknown).await.expect_problem(422, "idempotency_key_reused");
        adjust(&admin, &adjustment_key, &tea, 1).await.expect(201);
        adjust(&admin, &adjustment_key, &tea, 2).await.expect_problem(422, "idempotency_key_reused");
        assert_eq!(world.stock(&tea).await, [8, 3, 0]);
    }
}

#[actix_web::test]
async fn a_key_belongs_to_its_caller_and_its_path() {
    for world in worlds().await {
        let (tea, coffee, key) = (world.product(10).await, world.product(10).await, key());
        let one = place(&world.customer(), &key, cart(&tea, 1)).await.expect(201);
        let other = place(&world.customer(), &key, cart(&tea, 1)).await.expect(201);
        assert_ne!(one["id"], other["id"]);
        let (admin, another) = (world.admin(), world.admin());
        for (admin, product) in [(&admin, &tea), (&another, &tea), (&admin, &coffee)] {
            adjust(admin, &key, product, 5).await.expect(201);
        }
        assert_eq!((world.stock(&tea).await, world.stock(&coffee).await), ([18, 2, 0], [15, 0, 0]));
    }
}

#[actix_web::test]
async fn a_refusal_leaves_the_key_free() {
    for world in worlds().await {
        let (tea, customer, admin) = (world.product(1).await, world.customer(), world.admin());
        let (order_key, adjustment_key) = (key(), key());
        place(&customer, &order_key, cart(&tea, 2)).await.expect_problem(409, "out_of_stock");
        let mut bad = cart(&tea, 1);
        bad["payment_token"] = json!(7);
        place(&customer, &order_key, bad).await.expect_problem(422, "validation_failed");
        adjust(&admin, &adjustment_key, &tea, -3).await.expect_problem(409, "out_of_stock");

        adjust(&admin, &key(), &tea, 4).await.expect(201);
        place(&customer, &order_key, cart(&tea, 2)).await.expect(201);
        adjust(&admin, &adjustment_key, &tea, -3).await.expect(201);
        assert_eq!(world.stock(&tea).await, [0, 2, 0]);
    }
}

#[actix_web::test]
async fn ten_concurrent_requests_with_one_key_on_two_replicas_place_one_order() {
    for world in worlds().await {
        let (tea, customer, key) = (world.product(10).await, world.customer(), key());
        ten_times(&world, &customer, async |person| place(person, &key, cart(&tea, 1)).await).await;
        assert_eq!(world.stock(&tea).await, [9, 1, 0]);
        let listed = customer.get("/api/orders").await.expect(200);
        assert_eq!(listed["orders"].as_array().unwrap().len(), 1);
    }
}

#[actix_web::test]
async fn ten_concurrent_adjustments_with_one_key_on_two_replicas_apply_once() {
    for world in worlds().await {
        let (tea, key) = (world.product(10).await, key());
        ten_times(&world, &world.admin(), async |person| adjust(person, &key, &tea, 5).await).await;
        assert_eq!(world.stock(&tea).await, [15, 0, 0]);
    }
}

#[actix_web::test]
async fn every_post_honours_a_key() {
    for world in worlds().await {
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
            let api = api.with_key(key());
            let first = api.send(Method::POST, &path, body.as_ref()).await;
            let again = api.send(Method::POST, &path, body.as_ref()).await;
            assert!(first.status < 300, "{path}: {}", first.body);
            assert_eq!((again.status, &again.bytes), (first.status, &first.bytes), "{path}");
            assert_eq!(again.header("idempotency-replayed"), "true", "{path}");
        }
        assert_eq!(world.stock(&tea).await, [14, 0, 1]);
    }
}
