//! The database of a running replica becomes unreachable and comes back. On PostgreSQL only, through a
//! [`Gate`].

use order_service::store::migrations;
use shared::db::{Db, DbConfig, now, query, testing};
use shared::testing::Gate;
use uuid::Uuid;

use crate::harness::*;

#[actix_web::test]
async fn without_its_database_a_replica_answers_503_and_with_it_timers_and_messages_continue() {
    let Some(url) = testing::postgres_url().await else { return };
    let mut gate = Gate::before(&url).await;
    let world = World::start(gate.url(&url)).await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 3).await;
    world.command(&order, "authorize").await;

    gate.shut().await;
    let refused = customer.post("/api/orders", cart(&tea, 1)).await;
    refused.expect_problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(customer.get("/health/ready").await.status, 503);
    assert_eq!(customer.get("/health/live").await.status, 200);
    // During the outage the authorization times out.
    let direct = Db::open(&DbConfig::at(&url), migrations()).await.unwrap();
    let id = Uuid::parse_str(order["id"].as_str().unwrap()).unwrap();
    query("UPDATE orders SET wake_at = $1 WHERE id = $2")
        .bind(now())
        .bind(id)
        .execute(&direct)
        .await
        .unwrap();

    gate.open().await;
    world.command(&order, "void").await;
    customer.assert_status(&order, "rejected (payment_timeout)").await;
    assert_eq!(world.stock(&tea).await, [10, 0, 0]);
    assert_eq!(customer.get("/health/ready").await.status, 200);
    customer.place(&tea, 1).await;
}
