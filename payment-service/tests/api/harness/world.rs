//! A payment service, a card network, and the others.

use payment_service::config::{Config, Timing};
use payment_service::{app, card_network};
use serde_json::{Value, json};
use shared::config::Variable as _;
use shared::db::{DbConfig, testing};
use shared::messages::MessagesUrl;
use shared::registry::RegistryUrl;
use shared::service::HttpConfig;
use shared::stack::StackConfig;
use url::Url;
use uuid::Uuid;

use super::{Http, Others, Reply, eventually};

/// What a test wants otherwise.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) timing: Timing,
    pub(crate) database_url: String,
    /// The card network's address, if it is not the real one.
    pub(crate) card_network_url: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { timing: Timing::default(), database_url: testing::sqlite_url(), card_network_url: None }
    }
}

/// A running payment service and everything it needs.
pub(crate) struct World {
    pub(crate) service: Http,
    pub(crate) network: Http,
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

/// An order's wish to be paid.
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

/// A card network with a new state file.
pub(crate) async fn card_network() -> Http {
    let database = DbConfig::at(&testing::sqlite_url());
    let config = card_network::config::Config { http: HttpConfig::for_tests(), database };
    let server = card_network::app::build(config).await.unwrap();
    let network = Http::at(format!("http://{}", server.address()));
    actix_web::rt::spawn(server.run());
    network
}

/// How a service of these others is set up.
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
    pub(crate) async fn another_replica(&self) -> Http {
        let card_network_url = self.setup.card_network_url.as_ref().unwrap_or(&self.network.base);
        let config = Config {
            http: HttpConfig::for_tests(),
            stack: StackConfig {
                registry: RegistryUrl::parse(&registry(&self.others)).unwrap(),
                service_key: self.others.service_key.clone(),
                advertise_url: None,
            },
            messages: MessagesUrl::Http,
            database: DbConfig::at(&self.setup.database_url),
            card_network_url: Url::parse(card_network_url).unwrap(),
            timing: self.setup.timing,
        };
        let server = app::build(config).await.unwrap();
        let replica = Http::at(format!("http://{}", server.address()));
        actix_web::rt::spawn(server.run());
        eventually("the keys of user tokens are known", async || {
            let reply = self.as_admin_of(&replica).get("/api/payments").await;
            (reply.status == 200).then_some(())
        })
        .await;
        replica
    }

    pub(crate) fn as_admin(&self) -> Http {
        self.as_admin_of(&self.service)
    }

    /// The admin at another replica.
    pub(crate) fn as_admin_of(&self, replica: &Http) -> Http {
        replica.with_token(self.others.token(self.admin, &["customer", "admin"]))
    }

    pub(crate) fn as_customer(&self, id: Uuid) -> Http {
        self.service.with_token(self.others.token(id, &["customer"]))
    }

    /// Delivers a message as the order service would.
    pub(crate) async fn deliver(&self, event: &Value) -> Reply {
        let token = self.others.service_key.mint("order-service", "payment-service", None);
        self.service.with_token(token).post("/messages", &[], event).await
    }

    /// Delivers a message that is taken, if not at once: a busy machine has the right to say 503.
    async fn command_of(&self, event: &Value) {
        let taken = eventually("the command is taken", async || {
            Some(self.deliver(event).await).filter(|reply| reply.status != 503)
        });
        taken.await.expect(204);
    }

    async fn command(&self, ordered: &Ordered, kind: &str, data: Value) {
        self.command_of(&command(ordered, kind, data)).await;
    }

    pub(crate) async fn authorize(&self, ordered: &Ordered, token: &str) {
        self.command_of(&authorize_command(ordered, token)).await;
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

    /// Waits until the order is told.
    pub(crate) async fn told(&self, ordered: &Ordered, kind: &str) -> Value {
        self.others.event(ordered.order_id, kind).await["data"].clone()
    }

    /// A payment that was captured.
    pub(crate) async fn captured(&self) -> Ordered {
        let ordered = Ordered::new();
        self.authorize(&ordered, "tok_visa").await;
        self.told(&ordered, "payment.authorized.v1").await;
        self.capture(&ordered).await;
        self.told(&ordered, "payment.captured.v2").await;
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

    pub(crate) async fn ledger(&self) -> Value {
        let ledger = self.as_admin().get("/admin/ledger").await.expect(200);
        assert_eq!(ledger["sum"], 0, "{ledger}");
        ledger
    }
}

/// The command that begins a payment.
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
