//! Query plans: tables that grow are read by an index. Only SQLite is tested. PostgreSQL has the same
//! indexes, but its plans depend on the number of rows.

use actix_web::http::Method;
use shared::db::{Db, DbConfig, Migrations, testing};

use crate::harness::*;

/// The full scans that are allowed.
const ALLOWED: [&str; 4] = [
    // A catalogue is small, and so is its stock.
    "SCAN products: SELECT",
    "SCAN stock: SELECT",
    // Reads one page from the end of the primary key.
    "FROM orders WHERE TRUE ORDER BY id DESC LIMIT",
    // The new events themselves.
    "SCAN new_events: INSERT INTO outbox",
];

#[actix_web::test]
async fn no_query_reads_a_whole_table_that_grows() {
    let world = world().await;
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

    let db = Db::open(&DbConfig::at(&world.database), Migrations::none()).await.unwrap();
    let reads = testing::whole_table_reads(&db).await;
    let unexpected: Vec<_> =
        reads.iter().filter(|read| !ALLOWED.iter().any(|allowed| read.contains(allowed))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for allowed in ALLOWED {
        assert!(reads.iter().any(|read| read.contains(allowed)), "no such scan: {allowed}");
    }
}
