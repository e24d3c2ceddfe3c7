//! The worker: responses of the card network while the database is busy or unavailable, and while a replica stops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{self, Data};
use payment_service::clients::card_network::CardNetwork;
use payment_service::domain::Purchase;
use serde_json::json;
use shared::db::{Db, DbConfig, Migrations, query, testing};
use shared::service::{HttpConfig, Service};
use shared::stop::{Stop, Stopper};
use shared::testing::run;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::harness::{Replica, card_network, purchase, replicas};

/// A lease that is longer than a test waits.
const LONG_LEASE: Duration = Duration::from_secs(60);

/// A replica on PostgreSQL, and the URL of its database.
async fn on_postgres() -> Option<(Replica, String)> {
    let url = testing::postgres_url().await?;
    Some((Replica::with(DbConfig::at(&url)).await.leasing_for(LONG_LEASE).await, url))
}

/// Starts the worker of the replica.
async fn start(replica: &mut Replica) -> (Stopper, JoinHandle<()>) {
    let (stopper, stop) = Stop::pair();
    let worker = replica.worker(card_network().await.1);
    (stopper, actix_web::rt::spawn(worker.run(stop)))
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let probe = async || holds().await.then_some(());
    shared::testing::eventually(what, Duration::from_secs(20), probe).await;
}

async fn count_authorized(replica: &Replica) -> i64 {
    replica.number("SELECT COUNT(*) AS number FROM payments WHERE status = 'authorized'").await
}

/// Payments, each with its authorization to request.
async fn authorize(replica: &Replica, count: usize) -> Vec<Purchase> {
    let mut purchases = Vec::new();
    for _ in 0..count {
        purchases.push(purchase());
    }
    for purchase in &purchases {
        replica.authorize(purchase).await.unwrap();
    }
    purchases
}

/// The card network was asked once for each payment: a claim would have made another version.
async fn were_asked_once(replica: &Replica, purchases: &[Purchase]) {
    for purchase in purchases {
        assert_eq!(replica.payment(purchase.id).await.version, 2);
        assert_eq!(replica.events(purchase.order_id).await, ["payment.authorized.v1"]);
    }
}

/// A card network that answers no request before the test lets it.
struct Holding {
    running: AtomicUsize,
    most: AtomicUsize,
    open: Semaphore,
}

async fn hold(holding: Data<Holding>) -> HttpResponse {
    let running = holding.running.fetch_add(1, Ordering::SeqCst) + 1;
    holding.most.fetch_max(running, Ordering::SeqCst);
    let _open = holding.open.acquire().await.unwrap();
    holding.running.fetch_sub(1, Ordering::SeqCst);
    HttpResponse::Ok().json(json!({ "status": "authorized" }))
}

#[actix_web::test]
async fn a_replica_has_at_most_64_requests_at_a_time_also_while_it_claims_jobs() {
    for replica in replicas().await {
        let holding = Holding { running: 0.into(), most: 0.into(), open: Semaphore::new(0) };
        let (holding, careless) = (Data::new(holding), replica.careless().await);
        let mut replica = replica.leasing_for(LONG_LEASE).await;
        // Some to claim, and some that are leased to it.
        authorize(&careless, 100).await;
        authorize(&replica, 100).await;
        let of_network = holding.clone();
        let network = Service::bind("a-network", HttpConfig::for_tests()).unwrap().configure(move |app| {
            app.app_data(of_network.clone()).default_service(web::to(hold));
        });
        let network = run(network.build().unwrap()).0.base.parse().unwrap();
        let (_stopper, stop) = Stop::pair();
        let client = CardNetwork::new(&network, Duration::from_secs(60));
        actix_web::rt::spawn(replica.worker(client).run(stop));
        eventually("it is busy", async || holding.running.load(Ordering::SeqCst) >= 64).await;
        // If it sent more, they would come now.
        let more = eventually("more", async || holding.running.load(Ordering::SeqCst) > 64);
        assert!(tokio::time::timeout(Duration::from_secs(1), more).await.is_err(), "more than 64 at a time");
        holding.open.add_permits(1000);
        eventually("all are authorized", async || count_authorized(&replica).await == 200).await;
        assert_eq!(holding.most.load(Ordering::SeqCst), 64);
    }
}

#[actix_web::test]
async fn a_locked_payment_holds_up_no_other_response_and_its_own_is_recorded_later() {
    let Some((mut replica, _)) = on_postgres().await else { return };
    let purchases = authorize(&replica, 6).await;
    let mut holder = replica.db.begin().await.unwrap();
    let lock = query("SELECT id FROM payments WHERE id = $1 FOR UPDATE").bind(purchases[0].id);
    lock.fetch_all(&mut holder).await.unwrap();
    let _worker = start(&mut replica).await;
    // The wait for a lock would be longer.
    eventually("the others are authorized", async || count_authorized(&replica).await == 5).await;
    drop(holder);
    eventually("the last is authorized", async || count_authorized(&replica).await == 6).await;
    were_asked_once(&replica, &purchases).await;
}

#[actix_web::test]
async fn responses_that_arrive_while_the_database_is_unavailable_are_recorded_afterwards() {
    let Some((mut replica, url)) = on_postgres().await else { return };
    let purchases = authorize(&replica, 6).await;
    // Rolled back transactions count, too.
    let statements = [
        "CREATE SEQUENCE failures",
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF nextval('failures') <= 5 THEN RAISE EXCEPTION 'shutting down' USING ERRCODE = '57P01'; END IF; \
            RETURN new; END $$",
        "CREATE TRIGGER fail BEFORE UPDATE ON payments FOR EACH ROW EXECUTE FUNCTION fail()",
    ];
    let admin = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
    for statement in statements {
        query(statement).execute(&admin).await.unwrap();
    }
    let _worker = start(&mut replica).await;
    eventually("all are authorized", async || count_authorized(&replica).await == 6).await;
    were_asked_once(&replica, &purchases).await;
}

#[actix_web::test]
async fn a_worker_that_stops_finishes_the_jobs_that_are_leased_to_it() {
    for replica in replicas().await {
        let mut replica = replica.leasing_for(LONG_LEASE).await;
        let purchases = authorize(&replica, 3).await;
        let (stopper, stop) = Stop::pair();
        stopper.stop();
        replica.worker(card_network().await.1).run(stop).await;
        assert_eq!(count_authorized(&replica).await, 3);
        were_asked_once(&replica, &purchases).await;
    }
}

#[actix_web::test]
async fn a_worker_that_stops_while_it_claims_jobs_finishes_them() {
    let Some((replica, _)) = on_postgres().await else { return };
    let careless = replica.careless().await;
    careless.authorize(&purchase()).await.unwrap();
    let mut other = replica.other().await;
    let mut holder = replica.db.begin().await.unwrap();
    query("LOCK TABLE payments IN EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    let (stopper, worker) = start(&mut other).await;
    let waiting =
        "SELECT COUNT(*) AS number FROM pg_locks WHERE relation = 'payments'::regclass AND NOT granted";
    eventually("the claim waits", async || replica.number(waiting).await == 1).await;
    stopper.stop();
    drop(holder);
    worker.await.unwrap();
    assert_eq!(count_authorized(&replica).await, 1);
}

#[actix_web::test]
async fn a_payment_whose_lease_ends_during_the_request_is_requested_again_and_charged_once() {
    for replica in replicas().await {
        let (network, client, network_database) = card_network().await;
        let mut one = replica.leasing_for(Duration::from_secs(2)).await;
        let mut other = replica.leasing_for(Duration::from_secs(2)).await;
        let (stopper, stop) = Stop::pair();
        let purchase = purchase();
        // The first request is answered after 3 s.
        one.authorize_with(&purchase, "tok_slow").await.unwrap();
        let start =
            |replica: &mut Replica| actix_web::rt::spawn(replica.worker(client.clone()).run(stop.clone()));
        let workers = [start(&mut one), start(&mut other)];
        let calls = Db::open(&network_database, Migrations::none()).await.unwrap();
        eventually("another request has had a response", async || {
            let row = query("SELECT calls FROM calls").fetch_optional(&calls).await.unwrap();
            row.is_some_and(|row| row.get::<i64>("calls").unwrap() >= 2)
                && replica.status(purchase.id).await == "authorized"
        })
        .await;
        one.capture(purchase.id).await.unwrap();
        eventually("it is captured", async || replica.status(purchase.id).await == "captured").await;
        // They wait for the response to the first request.
        stopper.stop();
        futures_util::future::join_all(workers).await;
        let path = format!("/statement?order_id={}", purchase.order_id);
        let charges = network.get(&path).await.expect(200)["charges"].clone();
        assert_eq!(charges.as_array().unwrap().len(), 1, "{charges}");
        assert_eq!((&charges[0]["captured"], &charges[0]["times_captured"]), (&json!(1000), &json!(1)));
        let events = ["payment.authorized.v1", "payment.captured.v2"];
        assert_eq!(replica.events(purchase.order_id).await, events);
        assert_eq!(replica.store.ledger().await.unwrap().entries, 2, "the money moved once");
    }
}
