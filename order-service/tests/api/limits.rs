//! Orders that await payment reserve stock, so their number is limited for each customer.

use serde_json::Value;
use shared::db::{Db, DbConfig, Migrations, query, testing};

use crate::harness::*;

#[actix_web::test]
async fn beyond_twenty_orders_that_await_payment_a_customer_has_to_wait_and_a_used_key_still_replays() {
    for world in worlds().await {
        let (tea, customer) = (world.product(100).await, world.customer());
        let first_key = key();
        let first = customer.with_key(first_key.clone()).post("/api/orders", cart(&tea, 1)).await.expect(201);
        for _ in 1..20 {
            customer.place(&tea, 1).await;
        }
        let refused_key = key();
        let refused = customer.with_key(refused_key.clone());
        let reply = refused.post("/api/orders", cart(&tea, 1)).await;
        reply.expect_problem(429, "rate_limited");
        assert_eq!(reply.header("retry-after"), "5");
        let replay = customer.with_key(first_key).post("/api/orders", cart(&tea, 1)).await;
        assert_eq!((replay.status, replay.header("idempotency-replayed")), (201, "true"));
        world.customer().place(&tea, 1).await;
        assert_eq!(world.stock(&tea).await, [79, 21, 0]);

        world.pay(&first).await;
        refused.post("/api/orders", cart(&tea, 1)).await.expect(201);
        customer.post("/api/orders", cart(&tea, 1)).await.expect_problem(429, "rate_limited");
    }
}

#[actix_web::test]
async fn of_many_concurrent_orders_on_two_replicas_twenty_are_accepted() {
    for world in worlds().await {
        let (tea, customer) = (world.product(100).await, world.customer());
        for _ in 0..15 {
            customer.place(&tea, 1).await;
        }
        let at_other = customer.at(&world.another_replica().await);
        let people = [&customer, &at_other];
        let many = (0..20).map(|index| people[index % 2].post("/api/orders", cart(&tea, 1)));
        let replies = futures_util::future::join_all(many).await;
        for refused in replies.iter().filter(|reply| reply.status != 201) {
            refused.expect_problem(429, "rate_limited");
        }
        assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 5);
        let listed = customer.get("/api/orders?status=awaiting_payment&limit=100").await.expect(200);
        assert_eq!(listed["orders"].as_array().map(Vec::len), Some(20), "{}", Value::to_string(&listed));
    }
}

#[actix_web::test]
async fn on_postgresql_an_order_locks_its_customer_without_writing_the_row_again() {
    let Some(url) = testing::postgres_url().await else { return };
    let world = World::start(url).await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let db = Db::open(&DbConfig::at(&world.database), Migrations::none()).await.unwrap();
    let row_version = async || {
        customer.place(&tea, 1).await;
        let sql = format!("{}SELECT xmin::text AS version FROM customers", testing::OF_A_TEST);
        query(sql).fetch_one(&db).await.unwrap().get::<String>("version").unwrap()
    };
    assert_eq!(row_version().await, row_version().await);
}
