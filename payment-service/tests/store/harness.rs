//! A store on each database, with a verb for each action.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use payment_service::card_network;
use payment_service::clients::card_network::CardNetwork;
use payment_service::config::Timing;
use payment_service::domain::{Money, NetworkResponse, Payment, Purchase, Refund, Timeouts};
use payment_service::error::Error;
use payment_service::store::{Job, Recorded, Store, migrations};
use payment_service::tasks::card_network_worker::CardNetworkWorker;
use shared::db::{Db, DbConfig, Tx, now, query, testing};
use shared::messages::{Outgoing, Relay, SendError, Transport};
use shared::service::HttpConfig;
use shared::testing::{Api, run};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

const TIMEOUTS: Timeouts = Timeouts { authorize: Duration::from_secs(20), others: Duration::from_secs(60) };
const LEASE: Duration = Duration::from_secs(10);

/// One replica's store.
pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) db: Db,
    url: String,
    jobs: UnboundedReceiver<Job>,
    // Keeps the outbox open, and sends nothing.
    _relay: Relay,
}

struct Nowhere;

#[async_trait(?Send)]
impl Transport for Nowhere {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        Err(SendError::Unavailable("nobody is there".to_owned()))
    }
}

/// The simulated card network on a new database, and a client of it.
pub(crate) async fn card_network() -> (Api, CardNetwork, DbConfig) {
    let database = DbConfig::at(&testing::sqlite_url());
    let config = card_network::config::Config { http: HttpConfig::for_tests(), database: database.clone() };
    let (network, _) = run(card_network::app::build(config).await.unwrap());
    let client = CardNetwork::new(&network.base.parse().unwrap(), Duration::from_secs(20));
    (network, client, database)
}

/// A replica on a new database of each kind.
pub(crate) async fn replicas() -> Vec<Replica> {
    let mut replicas = Vec::new();
    for url in testing::urls().await {
        replicas.push(Replica::on(url, LEASE).await);
    }
    replicas
}

pub(crate) fn eur(amount: i64) -> Money {
    Money::new(amount, "EUR".try_into().unwrap()).unwrap()
}

pub(crate) fn purchase() -> Purchase {
    Purchase { id: Uuid::now_v7(), order_id: Uuid::now_v7(), customer_id: Uuid::now_v7(), amount: eur(1000) }
}

impl Replica {
    /// Opens the store on the database that `config` names.
    pub(crate) async fn with(config: DbConfig) -> Self {
        Self::open(config, LEASE).await
    }

    async fn on(url: String, lease: Duration) -> Self {
        Self::open(DbConfig::at(&url), lease).await
    }

    async fn open(config: DbConfig, lease: Duration) -> Self {
        let db = Db::open(&config, migrations()).await.unwrap();
        let (outbox, relay) = Relay::new(db.clone(), Rc::new(Nowhere), &[]);
        let (store, jobs) = Store::new(db.clone(), outbox, lease);
        Self { store, db, url: config.url, jobs, _relay: relay }
    }

    /// Another replica on the same database.
    pub(crate) async fn other(&self) -> Self {
        Self::on(self.url.clone(), LEASE).await
    }

    /// Another replica, whose leases are over as soon as they begin.
    pub(crate) async fn careless(&self) -> Self {
        Self::on(self.url.clone(), Duration::ZERO).await
    }

    /// Another replica with that lease.
    pub(crate) async fn leasing_for(&self, lease: Duration) -> Self {
        Self::on(self.url.clone(), lease).await
    }

    /// The worker of this replica, which gets its jobs.
    pub(crate) fn worker(&mut self, network: CardNetwork) -> CardNetworkWorker {
        let jobs = std::mem::replace(&mut self.jobs, unbounded_channel().1);
        let timing = Timing { poll: Duration::from_millis(50), ..Timing::default() };
        CardNetworkWorker::new(self.store.clone(), jobs, network, timing)
    }

    /// The job that a commit of this replica left to it.
    pub(crate) fn job(&mut self) -> Option<Job> {
        self.jobs.try_recv().ok()
    }

    pub(crate) async fn authorize(&self, purchase: &Purchase) -> Result<(), Error> {
        self.authorize_with(purchase, "tok_visa").await
    }

    pub(crate) async fn authorize_with(&self, purchase: &Purchase, token: &str) -> Result<(), Error> {
        let token = token.to_owned();
        self.db.transaction(async |tx| self.store.authorize(tx, purchase.clone(), token, None).await).await
    }

    pub(crate) async fn capture(&self, id: Uuid) -> Result<(), Error> {
        self.db.transaction(async |tx| self.store.capture(tx, id, None).await).await
    }

    pub(crate) async fn void(&self, purchase: &Purchase) -> Result<(), Error> {
        self.db.transaction(async |tx| self.store.void(tx, purchase.clone(), None).await).await
    }

    pub(crate) async fn refund_rest(&self, id: Uuid) -> Result<(), Error> {
        self.db.transaction(async |tx| self.store.refund_rest(tx, id, "cancelled", None).await).await
    }

    pub(crate) async fn refund(&self, id: Uuid, amount: Option<Money>) -> Result<Refund, Error> {
        self.db.transaction(async |tx| self.store.refund(tx, id, amount, "a gift", None).await).await
    }

    pub(crate) async fn claim(&self, limit: i64) -> Vec<Job> {
        let claim = async |tx: &mut Tx| self.store.claim_due(tx, limit).await;
        self.db.transaction(claim).await.unwrap()
    }

    /// Records the response of the card network to `job`.
    pub(crate) async fn respond(&self, job: &Job, response: NetworkResponse) -> Recorded {
        let change = job.payment.clone().apply_response(response, &TIMEOUTS, now()).unwrap();
        let record = async |tx: &mut Tx| self.store.record(tx, job, &change, Duration::ZERO).await;
        self.db.transaction(record).await.unwrap()
    }

    /// A captured payment of 10.00.
    pub(crate) async fn captured(&mut self) -> Payment {
        let purchase = purchase();
        self.authorize(&purchase).await.unwrap();
        let job = self.job().unwrap();
        assert_eq!(self.respond(&job, NetworkResponse::Approved).await, Recorded::Settled);
        self.capture(purchase.id).await.unwrap();
        let job = self.job().unwrap();
        assert_eq!(self.respond(&job, NetworkResponse::Captured).await, Recorded::Settled);
        self.payment(purchase.id).await
    }

    pub(crate) async fn payment(&self, id: Uuid) -> Payment {
        self.store.payment(id).await.unwrap().unwrap()
    }

    pub(crate) async fn status(&self, id: Uuid) -> &'static str {
        self.payment(id).await.state.status.as_str()
    }

    /// The types of the events written for an order, oldest first.
    pub(crate) async fn events(&self, order_id: Uuid) -> Vec<String> {
        let rows = query("SELECT event FROM outbox WHERE subject = $1 ORDER BY seq")
            .bind(order_id.to_string())
            .fetch_all(&self.db)
            .await
            .unwrap();
        let kind = |event: serde_json::Value| event["type"].as_str().unwrap().to_owned();
        rows.iter().map(|row| kind(row.get("event").unwrap())).collect()
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        query(sql).fetch_one(&self.db).await.unwrap().get("number").unwrap()
    }
}
