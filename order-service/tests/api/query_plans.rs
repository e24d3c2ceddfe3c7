//! Query plans: tables that grow are read by an index. SQLite's plans are tested on small tables. Those of PostgreSQL
//! depend on the number of rows and on their values.

use actix_web::http::Method;
use shared::db::{Db, DbConfig, Migrations, query, testing};

use crate::harness::*;

/// The full scans that are allowed.
const ALLOWED: [&str; 3] = [
    // A catalogue is small, and so is its stock.
    "SCAN products: SELECT",
    "SCAN stock: SELECT",
    // Reads one page from the end of the primary key.
    "FROM orders WHERE TRUE ORDER BY id DESC LIMIT",
];

/// Runs every statement that people cause.
async fn use_everything(world: &World) {
    let (tea, customer, admin) = (world.product(10).await, world.customer(), world.admin());
    let order = customer.place(&tea, 1).await;
    world.pay(&order).await;
    customer.cancel(&order).await.expect(202);
    let all = format!("/api/orders?customer_id={}&status=refunding&limit=1", customer.id);
    for path in ["/api/orders", "/api/orders?status=refunding", &all, "/api/products?q=tea"] {
        admin.get(path).await.expect(200);
    }
    let id = order["id"].as_str().unwrap();
    let messages = format!("messages?subject={id}&ids={id}");
    let sagas = ["sagas", "sagas?state=running", "sagas?state=stuck"];
    for view in sagas.into_iter().chain(["stock", "outbox", "dead-letters", &messages]) {
        admin.get(&format!("/admin/{view}")).await.expect(200);
    }
    customer.get(&format!("{}/timeline", path(&order))).await.expect(200);
    customer.send(Method::HEAD, &format!("{}/events", path(&order)), None).await;
}

#[actix_web::test]
async fn no_query_reads_a_whole_table_that_grows() {
    let world = world().await;
    use_everything(&world).await;
    let db = Db::open(&DbConfig::at(&world.database), Migrations::none()).await.unwrap();
    let reads = testing::whole_table_reads(&db).await;
    let unexpected: Vec<_> =
        reads.iter().filter(|read| !ALLOWED.iter().any(|allowed| read.contains(allowed))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for allowed in ALLOWED {
        assert!(reads.iter().any(|read| read.contains(allowed)), "no such scan: {allowed}");
    }
}

/// If no order has a timer, PostgreSQL's statistics say nothing about the times of timers.
#[actix_web::test]
async fn on_postgresql_no_query_reads_a_whole_table_in_which_everything_is_settled() {
    let Some(url) = testing::postgres_url().await else { return };
    let world = World::start(url).await;
    use_everything(&world).await;
    let db = Db::open(&DbConfig::at(&world.database), Migrations::none()).await.unwrap();
    let settle = format!("{}UPDATE orders SET step = 'done', wake_at = NULL", testing::OF_A_TEST);
    query(settle).execute(&db).await.unwrap();
    let settled =
        "'id', gen_random_uuid(), 'payment_id', gen_random_uuid(), 'customer_id', gen_random_uuid()";
    let sent = "'seq', nextval(pg_get_serial_sequence('outbox', 'seq')), 'id', gen_random_uuid(), \
                'subject', gen_random_uuid(), 'sent_at', now()";
    let new_id = "'id', gen_random_uuid()";
    let tables = [
        ("orders", settled),
        ("outbox", sent),
        ("inbox", new_id),
        ("idempotency_keys", "'key', gen_random_uuid()"),
    ];
    for (table, changed) in tables {
        testing::multiply(&db, table, 5_000, changed).await;
    }
    let scans = testing::sequential_scans(&db, &tables.map(|(table, _)| table)).await;
    assert!(scans.is_empty(), "{scans:#?}");
}

#[actix_web::test]
async fn the_unpaid_orders_of_a_customer_are_counted_by_their_own_index() {
    for world in worlds().await {
        let tea = world.product(10).await;
        world.customer().place(&tea, 1).await;
        let db = Db::open(&DbConfig::at(&world.database), Migrations::none()).await.unwrap();
        if db.kind() == "postgres" {
            testing::multiply(
                &db,
                "orders",
                5_000,
                "'id', gen_random_uuid(), 'customer_id', gen_random_uuid()",
            )
            .await;
        }
        let plans = testing::query_plans(&db).await.into_iter();
        let reads: Vec<_> = plans
            .filter(|(step, sql)| sql.contains("(SELECT COUNT(*) FROM orders") && step.contains(" orders"))
            .map(|(step, _)| step)
            .collect();
        let is_own = |step: &String| step.contains("orders_awaiting_payment");
        assert!(!reads.is_empty() && reads.iter().all(is_own), "{}: {reads:?}", db.kind());
    }
}
