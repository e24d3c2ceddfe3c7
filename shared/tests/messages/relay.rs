//! How a relay treats the result of a send, also after its claim has expired.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use serde_json::Value;
use shared::db::testing::{databases, postgres_url};
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
        let (outbox, paused) = Relay::new(db.clone(), transport.clone(), &["receiver"]);
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

/// Writes `count` events of a replica that has died, each of another subject.
async fn left_behind(db: &Db, count: i64) {
    let (dead, _) = Relay::new(db.clone(), Rc::new(UnavailableTransport), &["receiver"]);
    for first in (0..count).step_by(1000) {
        let numbers = first..count.min(first + 1000);
        put_together(db, &dead, numbers.map(|number| event("thing.done.v1", &number.to_string(), number)))
            .await;
    }
    let expire = query("UPDATE outbox SET next_at = created_at WHERE sent_at IS NULL");
    expire.execute(db).await.unwrap();
}

#[actix_web::test]
async fn a_backlog_is_drained_without_waiting_for_polls() {
    for db in databases().await {
        left_behind(&db, 1000).await;
        let transport = Rc::new(Intermittent::default());
        transport.is_back.set(true);
        let begun = Instant::now();
        let (_outbox, _relay) = relay(&db, transport.clone());
        drained(&db).await;
        // A poll claims 32 events, so polls alone would take half a minute.
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
        assert_eq!(transport.sends.get(), 1000, "each is sent once");
    }
}

/// How many rows of the outbox PostgreSQL has read.
async fn rows_read(db: &Db) -> i64 {
    let read =
        "SELECT seq_tup_read + idx_tup_fetch AS rows FROM pg_stat_user_tables WHERE relname = 'outbox'";
    query(read).fetch_one(db).await.unwrap().get("rows").unwrap()
}

#[actix_web::test]
async fn while_the_only_receiver_is_away_the_work_of_a_poll_does_not_grow_with_the_backlog() {
    const BACKLOG: i64 = 5000;
    let Some(url) = postgres_url().await else { return };
    let db = open(&url).await;
    left_behind(&db, BACKLOG).await;
    // A session reports what it has read up to ten seconds later.
    let are_reported = async || (rows_read(&db).await >= BACKLOG).then_some(());
    eventually("the reads of the preparation are reported", are_reported).await;
    query("VACUUM ANALYZE outbox").execute(&db).await.unwrap();
    let transport = Rc::new(Intermittent::default());
    let (_outbox, _relay) = relay(&db, transport.clone());
    let is_away = || async { (transport.sends.get() >= 8).then_some(()) };
    eventually("the circuit is open, and a probe was sent", is_away).await;
    let (sends, before, begun) = (transport.sends.get(), rows_read(&db).await, Instant::now());
    eventually("it polls", || async { (begun.elapsed() > WATCHED).then_some(()) }).await;
    let probes = i64::from(transport.sends.get() - sends);
    let read = rows_read(&db).await - before;
    assert!(probes >= 3, "{probes} probes in {WATCHED:?}");
    assert!(read < BACKLOG, "{read} reads of {BACKLOG} rows for {probes} probes");

    transport.is_back.set(true);
    drained(&db).await;
    assert_eq!(transport.delivered.borrow().len(), usize::try_from(BACKLOG).unwrap());
}

#[actix_web::test]
async fn an_event_of_another_replica_is_claimed_with_the_mark_of_its_predecessor_and_not_by_a_poll() {
    for db in databases().await {
        let (gate, transport) = (Rc::new(Notify::new()), Rc::new(Intermittent::default()));
        transport.is_back.set(true);
        let held = Rc::new(HoldsFirst { gate: gate.clone(), inner: transport.clone() });
        let (outbox, _relay) = relay(&db, held);
        // Its relay does not run.
        let (other, _other) = Relay::new(db.clone(), Rc::new(UnavailableTransport), &["receiver"]);
        let mut waits = Vec::new();
        for round in 0..20 {
            let subject = round.to_string();
            put(&db, &outbox, event("thing.done.v1", &subject, 1)).await;
            put(&db, &other, event("thing.done.v1", &subject, 2)).await;
            let begun = Instant::now();
            gate.notify_one();
            let both = || async { (transport.delivered.borrow().len() == 2 * (round + 1)).then_some(()) };
            eventually("both are delivered", both).await;
            waits.push(begun.elapsed());
        }
        waits.sort();
        // The relay polls once a second, so half of the events would wait for longer than half a second.
        assert!(waits[10] < Duration::from_millis(300), "{waits:?}");
    }
}

/// Sends the first event of each subject after a signal.
struct HoldsFirst {
    gate: Rc<Notify>,
    inner: Rc<Intermittent>,
}

#[async_trait(?Send)]
impl Transport for HoldsFirst {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        if outgoing.event.data["number"] == 1 {
            self.gate.notified().await;
        }
        self.inner.send(outgoing).await
    }
}

#[actix_web::test]
async fn a_relay_that_stops_sends_all_events_that_it_has_claimed() {
    for db in databases().await {
        let transport = Rc::new(Intermittent::default());
        transport.is_back.set(true);
        let (outbox, relay) = Relay::new(db.clone(), transport.clone(), &["receiver"]);
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
        let (dead, _) = Relay::new(db.clone(), Rc::new(UnavailableTransport), &["receiver"]);
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
