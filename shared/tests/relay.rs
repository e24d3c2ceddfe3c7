//! The relay: in order, at least once, and once in effect, whatever dies in between.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::json;
use shared::auth::{Authenticator, KeySet, Secret, ServiceKey};
use shared::db::testing::{databases, postgres_url, sqlite_url};
use shared::db::{Db, DbConfig, Migrations, Tx, query};
use shared::messages::{
    Delivery, Event, HandleError, Handler, HttpTransport, Messages, Outbox, Outgoing, Relay, SendError,
    Transport,
};
use shared::service::{HttpConfig, Service};
use shared::stack::{Stack, StackConfig};
use shared::stop::{Stop, Stopper};
use shared::testing::Gate;

/// Writes down each event that it gets, in the order of their effects.
struct WritesDown;

impl Handler for WritesDown {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
        _: Delivery,
    ) -> LocalBoxFuture<'a, Result<(), HandleError>> {
        async move {
            match event.kind.as_str() {
                "thing.done.v1" => {}
                "thing.spoilt.v1" => return Err(HandleError::Rejected("spoilt".to_owned())),
                _ => return Err(HandleError::UnknownType),
            }
            let insert = query("INSERT INTO effects (subject, number) VALUES ($1, $2)");
            let number = event.data["number"].as_i64().unwrap_or_default();
            insert.bind(event.subject.as_str()).bind(number).execute(tx).await?;
            Ok(())
        }
        .boxed_local()
    }
}

/// Delivers nothing: the receivers of these tests send nothing.
struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(&'a self, _: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>> {
        async { Err(SendError::Unavailable("nowhere".to_owned())) }.boxed_local()
    }
}

fn key() -> ServiceKey {
    ServiceKey::from_base64(&Secret::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")).unwrap()
}

/// A receiver with a database of its own; its address.
async fn receiver(db: &Db) -> String {
    query("CREATE TABLE effects (subject text NOT NULL, number bigint NOT NULL)").execute(db).await.unwrap();
    let messages = Messages::new("receiver", db.clone(), Rc::new(Nowhere), |_| WritesDown);
    let server = Service::new("receiver", HttpConfig::for_tests())
        .authenticate(Authenticator::new("receiver", key(), KeySet::default()))
        .messages(messages)
        .build()
        .await
        .unwrap();
    let address = format!("http://{}", server.address());
    actix_web::rt::spawn(server.run());
    address
}

/// What carries events to the receiver at `address`.
fn transport(address: &str) -> HttpTransport {
    use shared::config::Variable as _;
    let registry = shared::registry::RegistryUrl::parse(&format!("static://receiver={address}")).unwrap();
    let config = StackConfig { registry, service_key: key(), advertise_url: None };
    HttpTransport::new(&Stack::new("sender", config), &["receiver"])
}

/// A running relay on `db`.
fn relay(db: &Db, transport: impl Transport + 'static) -> (Outbox, Stopper) {
    let (outbox, relay) = Relay::new(db.clone(), Rc::new(transport));
    let (stopper, stop) = Stop::pair();
    actix_web::rt::spawn(relay.run(stop));
    (outbox, stopper)
}

async fn put(db: &Db, outbox: &Outbox, kind: &str, subject: &str, number: i64) {
    let mut tx = db.begin().await.unwrap();
    let event = Event::new("sender", kind, subject, json!({ "number": number }));
    outbox.put(&mut tx, "receiver", event).await.unwrap();
    tx.commit().await.unwrap();
}

/// The effects on `subject`, in order, when there are at least `count`.
async fn effects(db: &Db, subject: &str, count: usize) -> Vec<i64> {
    let order = if db.kind() == "sqlite" { "rowid" } else { "ctid" };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let rows =
            query(format!("SELECT number FROM effects WHERE subject = $1 ORDER BY {order}")).bind(subject);
        let rows = rows.fetch_all(db).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.get("number").unwrap()).collect();
        if numbers.len() >= count {
            return numbers;
        }
        assert!(tokio::time::Instant::now() < deadline, "{count} effects on {subject}: {numbers:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nothing is left to send.
async fn drained(db: &Db) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let row = query("SELECT COUNT(*) AS pending FROM outbox WHERE sent_at IS NULL")
            .fetch_one(db)
            .await
            .unwrap();
        if row.get::<i64>("pending").unwrap() == 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the outbox does not drain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Databases for a sender and a receiver, on each engine.
async fn pairs() -> Vec<(Db, Db)> {
    databases().await.into_iter().zip(databases().await).collect()
}

#[actix_web::test]
async fn the_events_of_a_subject_arrive_in_order_and_once() {
    for (sender, receives) in pairs().await {
        let (outbox, _relay) = relay(&sender, transport(&receiver(&receives).await));
        for number in 0..20 {
            for subject in ["a", "b", "c"] {
                put(&sender, &outbox, "thing.done.v1", subject, number).await;
            }
        }
        drained(&sender).await;
        for subject in ["a", "b", "c"] {
            assert_eq!(effects(&receives, subject, 20).await, (0..20).collect::<Vec<_>>());
        }
    }
}

#[actix_web::test]
async fn two_relays_side_by_side_send_each_event_once_in_effect_and_in_order() {
    for (sender, receives) in pairs().await {
        let address = receiver(&receives).await;
        let (one, _one) = relay(&sender, transport(&address));
        let (two, _two) = relay(&sender, transport(&address));
        for number in 0..30 {
            put(&sender, if number % 2 == 0 { &one } else { &two }, "thing.done.v1", "a", number).await;
        }
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 30).await, (0..30).collect::<Vec<_>>());
    }
}

/// Delivers on the second try only: the receiver has it then, but nobody hears so the first time.
struct Forgetful {
    transport: HttpTransport,
    tries: Cell<u32>,
}

impl Transport for Forgetful {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>> {
        async move {
            self.tries.set(self.tries.get() + 1);
            self.transport.send(outgoing).await?;
            if self.tries.get() == 1 { Err(SendError::Unavailable("lost".to_owned())) } else { Ok(()) }
        }
        .boxed_local()
    }
}

#[actix_web::test]
async fn an_answer_that_is_lost_means_a_second_delivery_and_one_effect() {
    for (sender, receives) in pairs().await {
        let transport = transport(&receiver(&receives).await);
        let (outbox, _relay) = relay(&sender, Forgetful { transport, tries: Cell::new(0) });
        put(&sender, &outbox, "thing.done.v1", "a", 1).await;
        put(&sender, &outbox, "thing.done.v1", "a", 2).await;
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 2).await, [1, 2]);
    }
}

#[actix_web::test]
async fn what_is_rejected_becomes_a_dead_letter_and_the_next_events_pass() {
    for (sender, receives) in pairs().await {
        let (outbox, _relay) = relay(&sender, transport(&receiver(&receives).await));
        put(&sender, &outbox, "thing.spoilt.v1", "a", 1).await;
        put(&sender, &outbox, "thing.done.v1", "a", 2).await;
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 1).await, [2]);
        let row = query("SELECT type, attempts FROM dead_letters").fetch_one(&sender).await.unwrap();
        assert_eq!(row.get::<String>("type").unwrap(), "thing.spoilt.v1");
    }
}

#[actix_web::test]
async fn an_event_of_an_unknown_type_is_kept_by_the_receiver() {
    for (sender, receives) in pairs().await {
        let (outbox, _relay) = relay(&sender, transport(&receiver(&receives).await));
        put(&sender, &outbox, "thing.invented.v9", "a", 1).await;
        drained(&sender).await;
        let row = query("SELECT destination, type FROM dead_letters").fetch_one(&receives).await.unwrap();
        assert_eq!(row.get::<String>("type").unwrap(), "thing.invented.v9");
        assert_eq!(row.get::<String>("destination").unwrap(), "receiver");
    }
}

#[actix_web::test]
async fn while_the_receiver_is_away_events_wait_and_none_is_lost() {
    for (sender, receives) in pairs().await {
        let nobody = "http://127.0.0.1:9";
        let (outbox, first) = relay(&sender, transport(nobody));
        for number in 0..3 {
            put(&sender, &outbox, "thing.done.v1", "a", number).await;
        }
        first.stop();
        let (_outbox, _relay) = relay(&sender, transport(&receiver(&receives).await));
        assert_eq!(effects(&receives, "a", 3).await, [0, 1, 2]);
        drained(&sender).await;
    }
}

const DATABASE: &str = "RELAY_TEST_DATABASE";
const RECEIVER: &str = "RELAY_TEST_RECEIVER";

/// Delivers, and is killed before it can say so.
struct Dies(HttpTransport);

impl Transport for Dies {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>> {
        async move {
            self.0.send(outgoing).await?;
            kill_this_process();
            Ok(())
        }
        .boxed_local()
    }
}

fn kill_this_process() {
    Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
}

#[actix_web::test]
async fn a_relay_whose_database_was_away_goes_on_when_it_is_back() {
    let Some(url) = postgres_url().await else { return };
    let mut gate = Gate::before(&url).await;
    let soon = Duration::from_millis(300);
    let config = DbConfig { acquire_timeout: soon, statement_timeout: soon, ..DbConfig::at(&gate.url(&url)) };
    let ours = Db::open(&config, Migrations::none()).await.unwrap();
    let theirs = Db::open(&DbConfig::at(&url), Migrations::none()).await.unwrap();
    let receives = databases().await.remove(0);
    let (outbox, _relay) = relay(&ours, transport(&receiver(&receives).await));
    // Another replica, which writes and then dies.
    let (dead, _) = Relay::new(theirs.clone(), Rc::new(Nowhere));
    put(&ours, &outbox, "thing.done.v1", "a", 1).await;
    assert_eq!(effects(&receives, "a", 1).await, [1]);

    gate.shut().await;
    put(&theirs, &dead, "thing.done.v1", "a", 2).await;
    assert!(ours.ping().await.is_err(), "it is away");
    gate.open().await;
    assert_eq!(effects(&receives, "a", 2).await, [1, 2]);

    gate.stall();
    put(&theirs, &dead, "thing.done.v1", "a", 3).await;
    assert!(ours.ping().await.is_err(), "it is away");
    gate.open().await;
    assert_eq!(effects(&receives, "a", 3).await, [1, 2, 3]);
}

/// Not a test by itself: the program that the two tests below kill.
#[actix_web::test]
async fn program_to_be_killed() {
    let (Ok(database), Ok(address)) = (std::env::var(DATABASE), std::env::var(RECEIVER)) else { return };
    let db = Db::open(&DbConfig::at(&database), Migrations::none()).await.unwrap();
    if address.is_empty() {
        // Its relay never runs: it is killed between the commit and the sending.
        let (outbox, _relay) = Relay::new(db.clone(), Rc::new(Nowhere));
        put(&db, &outbox, "thing.done.v1", "a", 1).await;
        kill_this_process();
    } else {
        let (outbox, _relay) = relay(&db, Dies(transport(&address)));
        put(&db, &outbox, "thing.done.v1", "a", 1).await;
    }
    std::future::pending::<()>().await;
}

/// Runs the program above until it is killed; then another takes over the outbox.
async fn killed_then_taken_over(dies_after_sending: bool) -> Vec<i64> {
    let (database, receives) = (sqlite_url(), databases().await.remove(0));
    let address = receiver(&receives).await;
    let told = if dies_after_sending { address.as_str() } else { "" };
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "program_to_be_killed"]).env(DATABASE, &database).env(RECEIVER, told);
    let killed = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    assert!(!killed.status.success(), "it was not killed");

    let sender = Db::open(&DbConfig::at(&database), Migrations::none()).await.unwrap();
    let (_outbox, _relay) = relay(&sender, transport(&address));
    drained(&sender).await;
    effects(&receives, "a", 1).await
}

#[actix_web::test]
async fn a_program_killed_between_commit_and_send_leaves_the_event_to_another_relay() {
    assert_eq!(killed_then_taken_over(false).await, [1]);
}

#[actix_web::test]
async fn a_program_killed_between_send_and_mark_causes_a_second_delivery_and_one_effect() {
    assert_eq!(killed_then_taken_over(true).await, [1]);
}
