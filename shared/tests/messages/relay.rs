//! How a relay treats the result of a send, also after its claim has expired.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use serde_json::Value;
use shared::db::testing::databases;
use shared::db::{Db, now, query};
use shared::messages::{Event, Outgoing, Relay, SendError, Transport};
use shared::stop::Stop;
use tokio::sync::Notify;

use crate::harness::*;

/// The time that is watched: longer than a claim lasts.
const WATCHED: Duration = Duration::from_secs(7);

/// Signals `begun`, waits for `reject`, and then rejects the event.
struct RejectsOnSignal {
    begun: Notify,
    reject: Stop,
}

#[async_trait(?Send)]
impl Transport for RejectsOnSignal {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        self.begun.notify_one();
        self.reject.requested().await;
        Err(SendError::Rejected("no".to_owned()))
    }
}

#[actix_web::test]
async fn a_relay_whose_claim_has_expired_makes_no_dead_letter() {
    for db in databases().await {
        let (rejecter, reject) = Stop::pair();
        let transport = Rc::new(RejectsOnSignal { begun: Notify::new(), reject });
        let (outbox, paused) = Relay::new(db.clone(), transport.clone());
        let (stopper, stop) = Stop::pair();
        let paused = actix_web::rt::spawn(paused.run(stop));
        put(&db, &outbox, event("thing.done.v1", "a", 1)).await;
        transport.begun.notified().await;
        // This is what another relay does after the claim has expired.
        let claim = query("UPDATE outbox SET claimed_by = 'another', next_at = $1");
        claim.bind(now() + time::Duration::MINUTE).execute(&db).await.unwrap();

        stopper.stop();
        rejecter.stop();
        paused.await.unwrap();
        assert!(dead_letters(&db).await.is_empty());
        let unsent = query("SELECT claimed_by FROM outbox WHERE sent_at IS NULL").fetch_one(&db).await;
        assert_eq!(unsent.unwrap().get::<String>("claimed_by").unwrap(), "another");
    }
}

/// Delivers while `is_back`, and counts all sends.
#[derive(Default)]
struct Intermittent {
    is_back: Cell<bool>,
    sends: Cell<u32>,
    delivered: RefCell<Vec<(String, i64)>>,
}

#[async_trait(?Send)]
impl Transport for Intermittent {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        self.sends.set(self.sends.get() + 1);
        if !self.is_back.get() {
            return Err(SendError::Unavailable("away".to_owned()));
        }
        let Event { subject, data, .. } = &outgoing.event;
        self.delivered.borrow_mut().push((subject.clone(), data["number"].as_i64().unwrap()));
        Ok(())
    }
}

/// Lets the database count the changes of rows of the outbox.
async fn count_updates(db: &Db) {
    let statements = match db.kind() {
        "sqlite" => {
            &["CREATE TRIGGER counted AFTER UPDATE ON outbox BEGIN UPDATE updates SET n = n + 1; END"][..]
        }
        _ => &[
            "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN UPDATE updates SET n = n + 1; RETURN NEW; END $$",
            "CREATE TRIGGER counted AFTER UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION counted()",
        ],
    };
    for sql in ["CREATE TABLE updates (n bigint NOT NULL)", "INSERT INTO updates VALUES (0)"]
        .iter()
        .chain(statements)
    {
        query(*sql).execute(db).await.unwrap();
    }
}

async fn updates(db: &Db) -> i64 {
    query("SELECT n FROM updates").fetch_one(db).await.unwrap().get("n").unwrap()
}

#[actix_web::test]
async fn while_a_destination_is_away_its_rows_stay_as_they_are_and_all_are_sent_immediately_when_it_is_back()
{
    for db in databases().await {
        count_updates(&db).await;
        let transport = Rc::new(Intermittent::default());
        let (outbox, _relay) = relay(&db, transport.clone());
        let subjects: Vec<_> = (0..100).map(|number| format!("subject {number}")).collect();
        for number in 0..3 {
            for subject in &subjects {
                put(&db, &outbox, event("thing.done.v1", subject, number)).await;
            }
        }
        // By then every claim of the first hour has expired, and the events are in the database only.
        let begun = Instant::now();
        let (sends, rewritten) = (transport.sends.get(), updates(&db).await);
        eventually("the relay looks for it", || async { (begun.elapsed() > WATCHED).then_some(()) }).await;
        let probes = transport.sends.get() - sends;
        assert!((3..=12).contains(&probes), "{probes} probes in {WATCHED:?}");
        let rewritten = updates(&db).await - rewritten;
        assert!(rewritten <= 24, "{rewritten} rows were rewritten for nothing");

        transport.is_back.set(true);
        let back = Instant::now();
        drained(&db).await;
        assert!(back.elapsed() < Duration::from_secs(4), "it took {:?}", back.elapsed());
        for subject in &subjects {
            let delivered = transport.delivered.borrow();
            let numbers = delivered.iter().filter(|(of, _)| of == subject).map(|(_, number)| *number);
            assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2], "{subject}");
        }
    }
}

#[actix_web::test]
async fn a_relay_that_stops_sends_all_events_that_it_has_claimed() {
    for db in databases().await {
        let transport = Rc::new(Intermittent::default());
        transport.is_back.set(true);
        let (outbox, relay) = Relay::new(db.clone(), transport.clone());
        let (stopper, stop) = Stop::pair();
        for number in 0..100 {
            put(&db, &outbox, event("thing.done.v1", &number.to_string(), number)).await;
        }
        stopper.stop();
        relay.run(stop).await;
        assert_eq!(transport.delivered.borrow().len(), 100);
        drained(&db).await;
    }
}

/// A transport that refuses the events of the subjects "bad…".
struct RefusesSome(Intermittent);

#[async_trait(?Send)]
impl Transport for RefusesSome {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        match outgoing.event.subject.as_str() {
            subject if subject.starts_with("bad") => Err(SendError::Unavailable("busy".to_owned())),
            _ => self.0.send(outgoing).await,
        }
    }
}

#[actix_web::test]
async fn events_whose_receiver_is_always_busy_do_not_hold_up_others() {
    for db in databases().await {
        // Written by a replica that died: the relay finds them in the database, the bad ones first.
        let (dead, _) = Relay::new(db.clone(), Rc::new(UnavailableTransport));
        for number in 0..5 {
            put(&db, &dead, event("thing.done.v1", &format!("bad {number}"), 0)).await;
        }
        for number in 0..20 {
            put(&db, &dead, event("thing.done.v1", &number.to_string(), number)).await;
        }
        let transport = Rc::new(RefusesSome(Intermittent::default()));
        let (_outbox, _relay) = relay(&db, transport.clone());
        let sends = || async { (transport.0.sends.get() >= 20).then_some(()) };
        eventually("the destination is away", sends).await;
        transport.0.is_back.set(true);
        let delivered = || async { (transport.0.delivered.borrow().len() == 20).then_some(()) };
        eventually("all others are delivered", delivered).await;
    }
}

#[actix_web::test]
async fn only_a_refusal_by_the_receiver_itself_is_a_rejection() {
    let receiver = HttpServer::new(|| {
        App::new().default_service(web::to(|event: web::Bytes| async move {
            let event: Value = serde_json::from_slice(&event).unwrap();
            let status = event["subject"].as_str().unwrap().parse().unwrap();
            HttpResponse::build(StatusCode::from_u16(status).unwrap()).finish()
        }))
    });
    let receiver = receiver.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let transport = transport(&format!("http://{}", receiver.addrs()[0])).await;
    actix_web::rt::spawn(receiver.run());
    let outcome = async |status: &str| {
        let event = event("thing.done.v1", status, 1);
        let destination = "receiver".to_owned();
        transport.send(&Outgoing { seq: 1, destination, attempts: 0, claimed_until: now(), event }).await
    };
    assert!(outcome("204").await.is_ok());
    for refused in ["400", "413", "422"] {
        assert!(matches!(outcome(refused).await, Err(SendError::Rejected(_))), "{refused}");
    }
    // The response may come from a proxy.
    for failed in ["405", "408", "500"] {
        assert!(matches!(outcome(failed).await, Err(SendError::Failed(_))), "{failed}");
    }
    // Other keys, another clock, another version, or another program at the receiver's address.
    for passing in ["401", "403", "404", "409", "429", "502", "503", "504"] {
        assert!(matches!(outcome(passing).await, Err(SendError::Unavailable(_))), "{passing}");
    }
}
