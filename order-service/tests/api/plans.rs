//! Whatever grows is read by an index. PostgreSQL has the same indexes; its plans depend on how much
//! there is, SQLite's do not.

use actix_web::http::Method;
use shared::db::{Db, DbConfig, Migrations, testing};

use crate::harness::*;

/// What reads all there is, and may.
const SMALL: [&str; 4] = [
    // A catalogue is small, and so is its stock.
    "SCAN products: SELECT",
    "SCAN stock: SELECT",
    // In the order of the key, from its end, and no further than the page.
    "FROM orders WHERE TRUE ORDER BY id DESC LIMIT",
    // One row that was made up.
    "SCAN earlier: INSERT INTO outbox",
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
    for view in ["sagas", "sagas?state=running", "sagas?state=stuck", "stock", "outbox", "dead-letters"] {
        admin.get(&format!("/admin/{view}")).await.expect(200);
    }
    customer.get(&format!("{}/timeline", path(&order))).await.expect(200);
    customer.send(Method::HEAD, &format!("{}/events", path(&order)), &[], None).await;

    let db = Db::open(&DbConfig::at(&world.database), Migrations::none()).await.unwrap();
    let reads = testing::whole_table_reads(&db).await;
    let unexpected: Vec<_> =
        reads.iter().filter(|read| !SMALL.iter().any(|small| read.contains(small))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for small in SMALL {
        assert!(reads.iter().any(|read| read.contains(small)), "this reads no whole table: {small}");
    }
}
