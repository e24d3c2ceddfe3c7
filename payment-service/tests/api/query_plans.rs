//! Tables that grow are read by an index. SQLite's plans are tested on small tables. Those of PostgreSQL depend on the
//! number of rows and on their values.

use serde_json::json;
use shared::db::{Db, DbConfig, Migrations, query, testing};

use crate::harness::{Setup, World};

/// Queries that may read a whole table.
const SMALL: [&str; 2] = [
    // A few rows for each account.
    "SCAN ledger_totals: SELECT",
    // This reads in the order of the key, from its end, and no further than the page.
    "FROM payments WHERE TRUE ORDER BY id DESC LIMIT",
];

/// Runs every statement that people and messages cause.
async fn use_everything(world: &World) {
    let ordered = world.captured().await;
    let refund = format!("/api/payments/{}/refunds", ordered.payment_id);
    let body = json!({ "reason": "a scratch", "amount": { "amount": 1, "currency": "EUR" } });
    world.as_admin().post(&refund, body).await.expect(201);
    world.refund_rest(&ordered).await;
    world.event(&ordered, "payment.refunded.v1").await;
    let of_order = format!("/api/payments?order_id={}", ordered.order_id);
    for path in ["/api/payments", &of_order] {
        for reader in [world.as_admin(), world.as_customer(ordered.customer_id)] {
            reader.get(path).await.expect(200);
        }
    }
    for path in ["/admin/ledger", "/admin/outbox", "/admin/dead-letters", "/admin/differences"] {
        world.as_admin().get(path).await.expect(200);
    }
}

#[actix_web::test]
async fn no_query_reads_a_whole_table_that_grows() {
    let database_url = testing::sqlite_url();
    let world = World::with(Setup { database_url: database_url.clone(), ..Setup::default() }).await;
    use_everything(&world).await;
    let db = Db::open(&DbConfig::at(&database_url), Migrations::none()).await.unwrap();
    let reads = testing::whole_table_reads(&db).await;
    let unexpected: Vec<_> =
        reads.iter().filter(|read| !SMALL.iter().any(|small| read.contains(small))).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for small in SMALL {
        assert!(reads.iter().any(|read| read.contains(small)), "this reads no whole table: {small}");
    }
}

/// If no payment has a job, PostgreSQL's statistics say nothing about the times of jobs.
#[actix_web::test]
async fn on_postgresql_no_query_reads_a_whole_table_in_which_everything_is_settled() {
    let Some(database_url) = testing::postgres_url().await else { return };
    let world = World::with(Setup { database_url: database_url.clone(), ..Setup::default() }).await;
    use_everything(&world).await;
    let db = Db::open(&DbConfig::at(&database_url), Migrations::none()).await.unwrap();
    let settle = format!("{}UPDATE payments SET due_at = NULL", testing::OF_A_TEST);
    query(settle).execute(&db).await.unwrap();
    let sent = "'seq', nextval(pg_get_serial_sequence('outbox', 'seq')), 'id', gen_random_uuid(), \
                'subject', gen_random_uuid(), 'sent_at', now()";
    let tables = [
        (
            "payments",
            "'id', md5(one.id::text || number)::uuid, 'order_id', gen_random_uuid(), \
             'customer_id', gen_random_uuid()",
        ),
        // The entries of the copies.
        ("ledger_entries", "'payment_id', md5(one.payment_id::text || number)::uuid"),
        ("outbox", sent),
        ("inbox", "'id', gen_random_uuid()"),
    ];
    for (table, changed) in tables {
        testing::multiply(&db, table, 5_000, changed).await;
    }
    let scans = testing::sequential_scans(&db, &tables.map(|(table, _)| table)).await;
    // PostgreSQL makes a plan for each LIMIT of this one, because that for an unknown LIMIT costs more.
    let unexpected: Vec<_> = scans.iter().filter(|scan| !scan.contains("LIMIT $3 FOR UPDATE")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// A customer may have many payments, an order has few.
#[actix_web::test]
async fn the_payments_of_an_order_are_found_by_the_order_also_for_a_customer() {
    let database_url = testing::sqlite_url();
    let world = World::with(Setup { database_url: database_url.clone(), ..Setup::default() }).await;
    let ordered = world.captured().await;
    let of_order = format!("/api/payments?order_id={}", ordered.order_id);
    world.as_customer(ordered.customer_id).get(&of_order).await.expect(200);
    let db = Db::open(&DbConfig::at(&database_url), Migrations::none()).await.unwrap();
    let plans = testing::query_plans(&db).await.into_iter();
    let steps: Vec<_> = plans
        .filter(|(_, sql)| {
            sql.contains("FROM payments") && sql.contains("customer_id") && sql.contains("order_id =")
        })
        .map(|(step, _)| step)
        .collect();
    assert!(!steps.is_empty() && steps.iter().all(|step| step.contains("payments_order")), "{steps:?}");
}
