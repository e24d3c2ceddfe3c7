//! Senders and receivers, with real databases and a real transport between them.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::http::Method;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::{Value, json};
use shared::auth::Authenticator;
use shared::config::Variable as _;
use shared::db::testing::{databases, sqlite_url};
use shared::db::{Db, DbConfig, Migrations, Tx, query};
use shared::messages::{
    Delivery, Event, HandleError, Handler, HttpTransport, Messages, MessagesUrl, Nats, Outbox, Outgoing,
    Relay, SendError, Transport, Upcast,
};
use shared::registry::RegistryUrl;
use shared::resilience::Backoff;
use shared::service::{HttpConfig, Listener, ServerHandle, Service};
use shared::stack::{Stack, StackConfig};
use shared::stop::{Stop, Stopper};
use shared::testing::{self, Api, Keys, nats_url};
use uuid::Uuid;

/// A sender's and a receiver's database, and the URL of the transport between them.
pub(crate) struct Case {
    pub(crate) sender: Db,
    pub(crate) receives: Db,
    pub(crate) transport: String,
}

/// Every transport with every database that this machine has.
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

/// NATS alone, for what does not depend on the database.
pub(crate) async fn nats_case() -> Option<Case> {
    let transport = nats_url()?;
    let [sender, receives] = [open(&sqlite_url()).await, open(&sqlite_url()).await];
    Some(Case { sender, receives, transport })
}

/// The database at `url`, with the chassis' tables.
pub(crate) async fn open(url: &str) -> Db {
    Db::open(&DbConfig::at(url), Migrations::none()).await.unwrap()
}

/// Writes down each event that it gets, in the order of their effects.
struct WritesDown {
    handled: Arc<AtomicUsize>,
    learned: Arc<AtomicBool>,
}

/// What the next version makes of events that this one rejects, or does not know.
const LEARNED: [Upcast; 2] = [
    Upcast { from: "thing.spoilt.v1", to: "thing.done.v1", data: |_| {} },
    Upcast { from: "thing.invented.v9", to: "thing.done.v1", data: |_| {} },
];

impl Handler for WritesDown {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
        delivery: Delivery,
    ) -> LocalBoxFuture<'a, Result<(), HandleError>> {
        async move {
            match event.kind.as_str() {
                "thing.done.v1" => {}
                "thing.spoilt.v1" => return Err(HandleError::Rejected("spoilt".to_owned())),
                "thing.deadly.v1" => panic!("a mistake in the handler"),
                "thing.broken.v1" => drop(query("INSERT INTO nowhere VALUES (1)").execute(&mut *tx).await?),
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
        .boxed_local()
    }

    fn upcasts(&self) -> &[Upcast] {
        if self.learned.load(Ordering::Relaxed) { &LEARNED } else { &[] }
    }
}

/// Delivers nothing: the receivers of these tests send nothing.
pub(crate) struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(&'a self, _: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>> {
        async { Err(SendError::Unavailable("nowhere".to_owned())) }.boxed_local()
    }
}

/// One replica of the receiver, or of another program that handles the same events.
pub(crate) struct Receiver {
    /// The replica as an admin sees it.
    pub(crate) admin: Api,
    /// The URL by which [`transport`] reaches it.
    pub(crate) url: String,
    /// How many events had their effect here.
    pub(crate) handled: Arc<AtomicUsize>,
    /// Whether the next version runs here, which can handle more.
    pub(crate) learned: Arc<AtomicBool>,
    pub(crate) handle: ServerHandle,
}

/// Starts a replica of the receiver on `db`, which events reach by `url`.
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
    let fetches: Rc<dyn Transport> = if url == "http://" { Rc::new(Nowhere) } else { transport(url).await };
    let (_, receiver) = program("receiver", db, fetches).await;
    let url = if url == "http://" { receiver.url.clone() } else { url.to_owned() };
    Receiver { url, ..receiver }
}

/// Starts a replica of the sender on `db`, as admins see it, and its outbox.
pub(crate) async fn sender(db: &Db, transport: Rc<dyn Transport>) -> (Outbox, Receiver) {
    program("sender", db, transport).await
}

async fn program(service: &'static str, db: &Db, transport: Rc<dyn Transport>) -> (Outbox, Receiver) {
    let (handled, learned) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let handler = WritesDown { handled: handled.clone(), learned: learned.clone() };
    let (outbox, relay) = Relay::new(db.clone(), transport);
    let server = Service::bind(service, HttpConfig::for_tests())
        .unwrap()
        .authenticate(Authenticator::new(service, KEYS.service.clone(), KEYS.key_set()))
        .messages(Messages::new(service, relay, handler))
        .build()
        .unwrap();
    let (api, handle) = testing::run(server);
    let admin = api.with_token(KEYS.user_token(Uuid::nil(), &["admin"]));
    (outbox, Receiver { url: api.base, admin, handled, learned, handle })
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::from_seed("an-issuer", [7; 32]));

impl Receiver {
    /// The dead letters that an admin sees, newest first.
    pub(crate) async fn dead_letters(&self) -> Vec<Value> {
        let body = self.admin.get("/admin/dead-letters").await.expect(200);
        body["dead_letters"].as_array().unwrap().clone()
    }

    /// The status that an admin gets for replaying the dead letter.
    pub(crate) async fn replay(&self, id: Uuid) -> u16 {
        self.admin.send(Method::POST, &format!("/admin/dead-letters/{id}/replay"), None).await.status
    }

    /// The status that an admin gets for discarding the dead letter.
    pub(crate) async fn discard(&self, id: Uuid) -> u16 {
        self.admin.delete(&format!("/admin/dead-letters/{id}")).await.status
    }
}

/// What carries events to the receiver at `url`; by HTTP there may be several, with commas.
pub(crate) async fn transport(url: &str) -> Rc<dyn Transport> {
    if url.starts_with("http://") {
        let registry = RegistryUrl::parse(&format!("static://receiver={url}")).unwrap();
        let config = StackConfig { registry, service_key: KEYS.service.clone(), advertise_url: None };
        let listener = Listener::bind("sender", HttpConfig::for_tests()).unwrap();
        return Rc::new(HttpTransport::new(&Stack::new(listener.replica(), config), &["receiver"]));
    }
    let Ok(MessagesUrl::Nats(url)) = MessagesUrl::parse(url) else { panic!("{url}") };
    let at_once = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    Rc::new(Nats::connect(&url).await.unwrap().retrying(at_once))
}

/// A running relay on `db`.
pub(crate) fn relay(db: &Db, transport: Rc<dyn Transport>) -> (Outbox, Stopper) {
    let (outbox, relay) = Relay::new(db.clone(), transport);
    let (stopper, stop) = Stop::pair();
    actix_web::rt::spawn(relay.run(stop));
    (outbox, stopper)
}

pub(crate) fn event(kind: &str, subject: &str, number: i64) -> Event {
    Event::new("sender", kind, subject, json!({ "number": number }))
}

pub(crate) async fn put(db: &Db, outbox: &Outbox, event: Event) {
    let mut tx = db.begin().await.unwrap();
    outbox.put(&mut tx, "receiver", event).await.unwrap();
    tx.commit().await.unwrap();
}

/// The effects on `subject`, in order, when there are at least `count`.
pub(crate) async fn effects(db: &Db, subject: &str, count: usize) -> Vec<i64> {
    eventually(&format!("{count} effects on {subject}"), || async {
        let rows = query("SELECT number FROM effects WHERE subject = $1 ORDER BY position").bind(subject);
        let rows = rows.fetch_all(db).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.get("number").unwrap()).collect();
        (numbers.len() >= count).then_some(numbers)
    })
    .await
}

/// Waits until nothing is left to send.
pub(crate) async fn drained(db: &Db) {
    eventually("the outbox drains", || async {
        let pending = query("SELECT COUNT(*) AS pending FROM outbox WHERE sent_at IS NULL");
        let row = pending.fetch_one(db).await.unwrap();
        (row.get::<i64>("pending").unwrap() == 0).then_some(())
    })
    .await;
}

/// The type of each dead letter in `db`, the tries that it had, and whose it is, oldest first.
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
