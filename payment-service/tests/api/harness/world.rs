//! A payment service, a card network, and the others.

use std::time::Duration;

use payment_service::config::{CALLS, Config, SERVICE, Timing};
use payment_service::{app, card_network};
use serde_json::{Value, json};
use shared::db::{DbConfig, testing};
use shared::messages::MessagesUrl;
use shared::service::HttpConfig;
use shared::testing::{Api, Reply, run};
use url::Url;
use uuid::Uuid;

use super::{Others, eventually};

/// The settings that a test may change.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) timing: Timing,
    pub(crate) database_url: String,
    /// The simulated card network, if `None`.
    pub(crate) card_network_url: Option<String>,
    pub(crate) reconcile_every: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            database_url: testing::sqlite_url(),
            card_network_url: None,
            reconcile_every: Duration::from_secs(3600),
        }
    }
}

/// A running payment service and everything it needs.
pub(crate) struct World {
    pub(crate) service: Api,
    pub(crate) network: Api,
    pub(crate) others: Others,
    pub(crate) admin: Uuid,
    pub(crate) setup: Setup,
}

/// A world in a new database of each kind.
pub(crate) async fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for database_url in testing::urls().await {
        worlds.push(World::with(Setup { database_url, ..Setup::default() }).await);
    }
    worlds
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordered {
    pub(crate) payment_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: Uuid,
}

impl Ordered {
    pub(crate) fn new() -> Self {
        Self { payment_id: Uuid::now_v7(), order_id: Uuid::now_v7(), customer_id: Uuid::now_v7() }
    }

    fn json(&self) -> Value {
        let Self { payment_id, order_id, customer_id } = self;
        let amount = json!({ "amount": 1000, "currency": "EUR" });
        json!({ "payment_id": payment_id, "order_id": order_id, "customer_id": customer_id, "amount": amount })
    }
}

/// A card network with a new database.
pub(crate) async fn card_network() -> Api {
    let database = DbConfig::at(&testing::sqlite_url());
    let config = card_network::config::Config { http: HttpConfig::for_tests(), database };
    let server = card_network::app::build(config).await.unwrap();
    run(server).0
}

/// The registry URL of a service beside these others.
pub(crate) fn registry(others: &Others) -> String {
    format!("static://user-service={url};order-service={url}", url = others.url)
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let (others, network) = (Others::start().await, card_network().await);
        // Until there is one.
        let service = network.clone();
        let world = Self { service, network, others, admin: Uuid::now_v7(), setup };
        Self { service: world.another_replica().await, ..world }
    }

    /// One more replica on the same database, ready to serve.
    pub(crate) async fn another_replica(&self) -> Api {
        let card_network_url = self.setup.card_network_url.as_ref().unwrap_or(&self.network.base);
        let config = Config {
            http: HttpConfig::for_tests(),
            platform: self.others.keys.platform(SERVICE, CALLS, &registry(&self.others)),
            messages: MessagesUrl::Http,
            database: DbConfig::at(&self.setup.database_url),
            card_network_url: Url::parse(card_network_url).unwrap(),
            reconcile_every: self.setup.reconcile_every,
            timing: self.setup.timing,
        };
        let server = app::build(config).await.unwrap();
        let (replica, _) = run(server);
        eventually("the keys of user tokens are known", async || {
            let reply = self.as_admin_of(&replica).get("/api/payments").await;
            (reply.status == 200).then_some(())
        })
        .await;
        replica
    }

    pub(crate) fn as_admin(&self) -> Api {
        self.as_admin_of(&self.service)
    }

    /// The admin at another replica.
    pub(crate) fn as_admin_of(&self, replica: &Api) -> Api {
        replica.with_token(self.others.keys.user_token(self.admin, &["customer", "admin"]))
    }

    pub(crate) fn as_customer(&self, id: Uuid) -> Api {
        self.service.with_token(self.others.keys.user_token(id, &["customer"]))
    }

    /// Delivers a message as the order service would.
    pub(crate) async fn deliver(&self, event: &Value) -> Reply {
        let token = self.others.keys.service_token("order-service", "payment-service", None);
        self.service.with_token(token).post("/messages", event.clone()).await
    }

    /// Delivers a command, again after a 503: a busy machine may answer so.
    async fn send(&self, event: &Value) {
        let accepted = eventually("the command is accepted", async || {
            Some(self.deliver(event).await).filter(|reply| reply.status != 503)
        });
        accepted.await.expect(204);
    }

    async fn command(&self, ordered: &Ordered, kind: &str, data: Value) {
        self.send(&command(ordered, kind, data)).await;
    }

    pub(crate) async fn authorize(&self, ordered: &Ordered, token: &str) {
        self.send(&authorize_command(ordered, token)).await;
    }

    pub(crate) async fn capture(&self, ordered: &Ordered) {
        let data = json!({ "payment_id": ordered.payment_id });
        self.command(ordered, "payment.capture.v1", data).await;
    }

    pub(crate) async fn void(&self, ordered: &Ordered) {
        self.command(ordered, "payment.void.v1", ordered.json()).await;
    }

    pub(crate) async fn refund_rest(&self, ordered: &Ordered) {
        let data = json!({ "payment_id": ordered.payment_id, "reason": "cancelled" });
        self.command(ordered, "payment.refund.v1", data).await;
    }

    /// Waits for the event of that type, and returns its data.
    pub(crate) async fn event(&self, ordered: &Ordered, kind: &str) -> Value {
        self.others.event(ordered.order_id, kind).await["data"].clone()
    }

    /// A payment that was captured.
    pub(crate) async fn captured(&self) -> Ordered {
        let ordered = Ordered::new();
        self.authorize(&ordered, "tok_visa").await;
        self.event(&ordered, "payment.authorized.v1").await;
        self.capture(&ordered).await;
        self.event(&ordered, "payment.captured.v2").await;
        ordered
    }

    pub(crate) async fn payment(&self, ordered: &Ordered) -> Value {
        self.as_admin().get(&format!("/api/payments/{}", ordered.payment_id)).await.expect(200)
    }

    pub(crate) async fn payment_reaches(&self, ordered: &Ordered, status: &str) -> Value {
        eventually(&format!("{ordered:?} is {status}"), async || {
            let payment = self.payment(ordered).await;
            (payment["status"] == status).then_some(payment)
        })
        .await
    }

    /// The card network's charges for the order.
    pub(crate) async fn statement(&self, ordered: &Ordered) -> Vec<Value> {
        let path = format!("/statement?order_id={}", ordered.order_id);
        self.network.get(&path).await.expect(200)["charges"].as_array().unwrap().clone()
    }

    /// The differences to the card network as an admin sees them (figure, ours, theirs), of one payment or of none.
    pub(crate) async fn differences(
        &self,
        state: &str,
        ordered: Option<&Ordered>,
    ) -> Vec<(String, i64, i64)> {
        let body = self.as_admin().get(&format!("/admin/differences?state={state}")).await.expect(200);
        let payment = ordered.map_or(Value::Null, |ordered| json!(ordered.payment_id));
        let all = body["differences"].as_array().unwrap().iter().filter(|one| one["payment_id"] == payment);
        let amount = |one: &Value, side: &str| one[side]["amount"].as_i64().unwrap();
        let mut all: Vec<_> = all
            .map(|one| {
                (one["figure"].as_str().unwrap().to_owned(), amount(one, "ours"), amount(one, "theirs"))
            })
            .collect();
        all.sort();
        all
    }

    pub(crate) async fn ledger(&self) -> Value {
        let ledger = self.as_admin().get("/admin/ledger").await.expect(200);
        assert_eq!(ledger["sum"], 0, "{ledger}");
        ledger
    }
}

pub(crate) fn authorize_command(ordered: &Ordered, token: &str) -> Value {
    let mut data = ordered.json();
    data["token"] = json!(token);
    command(ordered, "payment.authorize.v1", data)
}

pub(crate) fn command(ordered: &Ordered, kind: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": Uuid::now_v7(),
        "source": "order-service",
        "type": kind,
        "subject": ordered.order_id,
        "time": "2026-01-01T00:00:00Z",
        "traceparent": TRACE,
        "data": data,
    })
}

/// The trace that every command of these tests belongs to.
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
