//! Senders and receivers with real databases and a real transport.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::http::Method;
use async_trait::async_trait;
use serde_json::{Value, json};
use shared::auth::{Authenticator, Calls};
use shared::config::Variable as _;
use shared::db::testing::{databases, sqlite_url};
use shared::db::{Db, DbConfig, DbError, DeferredWrite, Migrations, Tx, query};
use shared::messages::{
    Delivery, Event, HandleError, Handler, HttpTransport, Messages, MessagesUrl, Nats, Outbox, Outgoing,
    Relay, SendError, Transport, Upcast,
};
use shared::platform::Platform;
use shared::resilience::Backoff;
use shared::service::{HttpConfig, Listener, ServerHandle, Service};
use shared::stop::{Stop, Stopper};
use shared::testing::{self, Api, Keys, nats_url};
use uuid::Uuid;

/// The databases of a sender and a receiver, and the URL of the transport between them.
pub(crate) struct Case {
    pub(crate) sender: Db,
    pub(crate) receives: Db,
    pub(crate) transport: String,
}

/// Every available transport with every available database.
pub(crate) async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let transports: [fn() -> Option<String>; 2] = [|| Some("http://".to_owned()), nats_url];
    for transport in transports {
        for (sender, receives) in databases().await.into_iter().zip(databases().await) {
            cases.extend(transport().map(|transport| Case { sender, receives, transport }));
        }
    }
    cases
}

/// NATS with SQLite, for tests that do not depend on the database.
pub(crate) async fn nats_case() -> Option<Case> {
    let transport = nats_url()?;
    let [sender, receives] = [open(&sqlite_url()).await, open(&sqlite_url()).await];
    Some(Case { sender, receives, transport })
}

/// The database at `url`, with the chassis' tables.
pub(crate) async fn open(url: &str) -> Db {
    Db::open(&DbConfig::at(url), Migrations::none()).await.unwrap()
}

/// Records each event in the table `effects`.
struct RecordingHandler {
    begun: Arc<AtomicUsize>,
    handled: Arc<AtomicUsize>,
    prepared: Arc<AtomicUsize>,
    next_version: Arc<AtomicBool>,
}

/// How often `thing.late.v1` is answered with [`HandleError::Retry`] before it fails.
pub(crate) const LATE: usize = 12;
/// How long `thing.slow.v1` takes: longer than the broker waits for an acknowledgement.
const SLOW: Duration = Duration::from_secs(7);

/// Upcasts with which the next version handles events that this version rejects or does not know.
const NEXT_VERSION: [Upcast; 2] = [
    Upcast { from: "thing.spoilt.v1", to: "thing.done.v1", data: |_| {} },
    Upcast { from: "thing.invented.v9", to: "thing.done.v1", data: |_| {} },
];

#[async_trait(?Send)]
impl Handler for RecordingHandler {
    async fn handle(&self, tx: &mut Tx, event: &Event, delivery: Delivery) -> Result<(), HandleError> {
        let begun = self.begun.fetch_add(1, Ordering::Relaxed);
        match event.kind.as_str() {
            "thing.done.v1" => {}
            "thing.slow.v1" => tokio::time::sleep(SLOW).await,
            "thing.stuck.v1" => return Err(HandleError::Retry),
            "thing.late.v1" if begun < LATE => return Err(HandleError::Retry),
            "thing.late.v1" => drop(query("INSERT INTO nowhere VALUES (1)").execute(&mut *tx).await?),
            "thing.spoilt.v1" => return Err(HandleError::Rejected("spoilt".to_owned())),
            "thing.deadly.v1" => panic!("a mistake in the handler"),
            "thing.broken.v1" => drop(query("INSERT INTO nowhere VALUES (1)").execute(&mut *tx).await?),
            "thing.contradicted.v1" => *tx.deferred() = BadEnd { panics: false },
            "thing.deadly_end.v1" => *tx.deferred() = BadEnd { panics: true },
            "thing.counted.v1" => {
                let count = query("UPDATE counts SET number = number + 1 WHERE subject = $1");
                count.bind(event.subject.as_str()).execute(&mut *tx).await?;
            }
            _ => return Err(HandleError::UnknownType),
        }
        let insert =
            query("INSERT INTO effects (subject, number, attempt, traceparent) VALUES ($1, $2, $3, $4)");
        let number = event.data["number"].as_i64().unwrap_or_default();
        let insert = insert.bind(event.subject.as_str()).bind(number).bind(delivery.attempt);
        insert.bind(event.traceparent.clone()).execute(tx).await?;
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn prepare(&self, _: &mut Tx, events: &[&Event]) -> Result<(), HandleError> {
        assert!(events.len() > 1, "several events");
        self.prepared.fetch_add(events.len(), Ordering::Relaxed);
        Ok(())
    }

    fn upcasts(&self) -> &[Upcast] {
        if self.next_version.load(Ordering::Relaxed) { &NEXT_VERSION } else { &[] }
    }
}

/// A deferred write that fails.
#[derive(Default)]
struct BadEnd {
    panics: bool,
}

#[async_trait(?Send)]
impl DeferredWrite for BadEnd {
    async fn write(self: Box<Self>, _: &mut Tx) -> Result<(), DbError> {
        assert!(!self.panics, "a mistake in a deferred write");
        Err(DbError::Contradiction("less than nothing".to_owned()))
    }
}

/// Delivers nothing. For receivers, which send nothing in these tests.
pub(crate) struct UnavailableTransport;

#[async_trait(?Send)]
impl Transport for UnavailableTransport {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        Err(SendError::Unavailable("nowhere".to_owned()))
    }
}

/// A replica of the receiver, or of another program that handles the same events.
pub(crate) struct Receiver {
    /// A client with an admin's token.
    pub(crate) admin: Api,
    /// The URL for [`transport`].
    pub(crate) url: String,
    /// How often its handler was called.
    pub(crate) begun: Arc<AtomicUsize>,
    /// Number of events handled by this replica.
    pub(crate) handled: Arc<AtomicUsize>,
    /// Number of events that shared a transaction with others.
    pub(crate) prepared: Arc<AtomicUsize>,
    /// Set to true to behave like the next version.
    pub(crate) next_version: Arc<AtomicBool>,
    pub(crate) handle: ServerHandle,
}

/// Starts a replica of the receiver on `db`, with the transport `url`.
pub(crate) async fn receiver(db: &Db, url: &str) -> Receiver {
    let position = match db.kind() {
        "sqlite" => "INTEGER PRIMARY KEY",
        _ => "BIGINT GENERATED ALWAYS AS IDENTITY",
    };
    query(format!(
        "CREATE TABLE IF NOT EXISTS effects (position {position}, \
         subject text NOT NULL, number bigint NOT NULL, attempt bigint NOT NULL, traceparent text)"
    ))
    .execute(db)
    .await
    .unwrap();
    let receives: Rc<dyn Transport> =
        if url == "http://" { Rc::new(UnavailableTransport) } else { transport(url).await };
    let (_, receiver) = program("receiver", db, receives).await;
    let url = if url == "http://" { receiver.url.clone() } else { url.to_owned() };
    Receiver { url, ..receiver }
}

/// Starts a replica of the sender on `db`; returns its outbox, too.
pub(crate) async fn sender(db: &Db, transport: Rc<dyn Transport>) -> (Outbox, Receiver) {
    program("sender", db, transport).await
}

async fn program(service: &'static str, db: &Db, transport: Rc<dyn Transport>) -> (Outbox, Receiver) {
    let [begun, handled, prepared] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
    let next_version = Arc::<AtomicBool>::default();
    let handler = RecordingHandler {
        begun: begun.clone(),
        handled: handled.clone(),
        prepared: prepared.clone(),
        next_version: next_version.clone(),
    };
    let (outbox, relay) = Relay::new(db.clone(), transport, &["receiver"]);
    let platform = KEYS.platform(service, CALLS, "static://");
    let server = Service::bind(service, HttpConfig::for_tests())
        .unwrap()
        .authenticate(Authenticator::new(service, platform.service_keys, platform.calls, KEYS.key_set()))
        .messages(Messages::new(service, relay, handler))
        .build()
        .unwrap();
    let (api, handle) = testing::run(server);
    let admin = api.with_token(KEYS.user_token(ADMIN, &["admin"]));
    (outbox, Receiver { url: api.base, admin, begun, handled, prepared, next_version, handle })
}

pub(crate) const ADMIN: Uuid = Uuid::max();

const CALLS: &str = "\
    another receiver EVENT thing.found -
    sender receiver EVENT thing.done -
    sender receiver EVENT thing.spoilt -
    sender receiver EVENT thing.deadly -
    sender receiver EVENT thing.broken -
    sender receiver EVENT thing.contradicted -
    sender receiver EVENT thing.deadly_end -
    sender receiver EVENT thing.counted -
    sender receiver EVENT thing.slow -
    sender receiver EVENT thing.stuck -
    sender receiver EVENT thing.late -
    sender receiver EVENT thing.invented -
    sender receiver EVENT thing.\0 -";

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::from_seed("an-issuer", [7; 32]));

impl Receiver {
    /// Newest first.
    pub(crate) async fn dead_letters(&self) -> Vec<Value> {
        let body = self.admin.get("/admin/dead-letters").await.expect(200);
        body["dead_letters"].as_array().unwrap().clone()
    }

    /// Waits until the metric `name` fulfils the condition.
    pub(crate) async fn metric(&self, name: &str, holds: impl Fn(f64) -> bool) {
        eventually(&format!("{name} is as it should be"), || async {
            let text = self.admin.text("/metrics").await;
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            holds(line.parse().unwrap()).then_some(())
        })
        .await;
    }

    /// Returns the response's status.
    pub(crate) async fn replay(&self, id: Uuid) -> u16 {
        self.admin.send(Method::POST, &format!("/admin/dead-letters/{id}/replay"), None).await.status
    }

    /// Returns the response's status.
    pub(crate) async fn discard(&self, id: Uuid) -> u16 {
        self.admin.delete(&format!("/admin/dead-letters/{id}")).await.status
    }
}

/// A transport to the receiver at `url`; for HTTP, several URLs separated by commas.
pub(crate) async fn transport(url: &str) -> Rc<dyn Transport> {
    if url.starts_with("http://") {
        let config = KEYS.platform("sender", CALLS, &format!("static://receiver={url}"));
        let listener = Listener::bind("sender", HttpConfig::for_tests()).unwrap();
        return Rc::new(HttpTransport::new(&Platform::new(listener.replica(), config), &["receiver"]));
    }
    let Ok(MessagesUrl::Nats(url)) = MessagesUrl::parse(url) else { panic!("{url}") };
    let no_backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    Rc::new(Nats::connect(&url, Calls::parse(CALLS).unwrap()).await.unwrap().retrying(no_backoff))
}

/// Starts a relay on `db`.
pub(crate) fn relay(db: &Db, transport: Rc<dyn Transport>) -> (Outbox, Stopper) {
    let (outbox, relay) = Relay::new(db.clone(), transport, &["receiver"]);
    let (stopper, stop) = Stop::pair();
    actix_web::rt::spawn(relay.run(stop));
    (outbox, stopper)
}

pub(crate) fn event(kind: &str, subject: &str, number: i64) -> Event {
    Event::new("sender", kind, subject, json!({ "number": number }))
}

pub(crate) async fn put(db: &Db, outbox: &Outbox, event: Event) {
    let mut tx = db.begin().await.unwrap();
    outbox.put(&mut tx, "receiver", event);
    tx.commit().await.unwrap();
}

/// Writes all `events` in one transaction, so that they are sent together.
pub(crate) async fn put_together(db: &Db, outbox: &Outbox, events: impl IntoIterator<Item = Event>) {
    let mut tx = db.begin().await.unwrap();
    for event in events {
        outbox.put(&mut tx, "receiver", event);
    }
    tx.commit().await.unwrap();
}

/// Waits for at least `count` effects on `subject`; returns their numbers in order.
pub(crate) async fn effects(db: &Db, subject: &str, count: usize) -> Vec<i64> {
    eventually(&format!("{count} effects on {subject}"), || async {
        let rows = query("SELECT number FROM effects WHERE subject = $1 ORDER BY position").bind(subject);
        let rows = rows.fetch_all(db).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.get("number").unwrap()).collect();
        (numbers.len() >= count).then_some(numbers)
    })
    .await
}

/// Waits until the outbox has no unsent event.
pub(crate) async fn drained(db: &Db) {
    eventually("the outbox drains", || async {
        let pending = query("SELECT COUNT(*) AS pending FROM outbox WHERE sent_at IS NULL");
        let row = pending.fetch_one(db).await.unwrap();
        (row.get::<i64>("pending").unwrap() == 0).then_some(())
    })
    .await;
}

/// Type, attempts and destination of each dead letter in `db`, oldest first.
pub(crate) async fn dead_letters(db: &Db) -> Vec<(String, i64, String)> {
    let kept = query("SELECT type, attempts, destination FROM dead_letters ORDER BY at");
    let rows = kept.fetch_all(db).await.unwrap();
    let letter = |row: &shared::db::Row| {
        (row.get("type").unwrap(), row.get("attempts").unwrap(), row.get("destination").unwrap())
    };
    rows.iter().map(letter).collect()
}

/// Waits at most a minute.
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    testing::eventually(what, Duration::from_secs(60), probe).await
}
