//! The service between stubs of its neighbours, with a verb for each action of a person or of
//! payment-service.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::Method;
use order_service::app;
use order_service::config::{CALLS, Config, PAYMENTS, SERVICE, USERS};
use serde_json::{Value, json};
use shared::db::{DbConfig, testing};
use shared::messages::{Event, MessagesUrl};
use shared::service::{HttpConfig, ServerHandle};
pub(crate) use shared::testing::{Api, Reply, key};
use shared::testing::{Keys, run};
use uuid::Uuid;

use crate::stubs::{self, Stubs};

/// One replica, the stubs, and a database in which more replicas can be started.
pub(crate) struct World {
    pub(crate) stubs: Arc<Stubs>,
    pub(crate) replica: Replica,
    pub(crate) database: String,
    keys: Keys,
    registry: String,
}

pub(crate) struct Replica {
    /// A client without a token.
    pub(crate) api: Api,
    pub(crate) handle: ServerHandle,
}

/// The service as one person uses it, or an anonymous client.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    api: Api,
}

/// A world in a new SQLite database, for tests that do not depend on the database.
pub(crate) async fn world() -> World {
    World::start(testing::sqlite_url()).await
}

/// A world in a new database of each kind.
pub(crate) async fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for url in testing::urls().await {
        worlds.push(World::start(url).await);
    }
    worlds
}

pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    shared::testing::eventually(what, Duration::from_secs(60), probe).await
}

/// The body of `POST /api/orders` for one line.
pub(crate) fn cart(product: &Value, quantity: i64) -> Value {
    json!({
        "lines": [{ "product_id": product["id"], "quantity": quantity }],
        "payment_token": "tok_visa",
    })
}

impl World {
    pub(crate) async fn start(database: String) -> Self {
        let (keys, stubs) = (Keys::new(USERS), Arc::new(Stubs::default()));
        let (users, payments) = stubs::start(&stubs, &keys.signing);
        let registry = format!("static://user-service=http://{users};payment-service=http://{payments}");
        let replica = replica(&database, &registry, &keys).await;
        Self { stubs, replica, database, keys, registry }
    }

    /// One more replica on the same database.
    pub(crate) async fn another_replica(&self) -> Replica {
        replica(&self.database, &self.registry, &self.keys).await
    }

    pub(crate) fn anonymous(&self) -> Person {
        Person { id: Uuid::nil(), api: self.replica.api.clone() }
    }

    pub(crate) fn customer(&self) -> Person {
        self.person(&["customer"])
    }

    pub(crate) fn admin(&self) -> Person {
        self.person(&["customer", "admin"])
    }

    /// A customer whose token is valid for this time.
    pub(crate) fn customer_for(&self, time: Duration) -> Person {
        let id = Uuid::now_v7();
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + time;
        let token = self.keys.user_token_until(end.as_secs(), id, &["customer"]);
        Person { id, api: self.replica.api.with_token(token) }
    }

    fn person(&self, roles: &[&str]) -> Person {
        let id = Uuid::now_v7();
        Person { id, api: self.replica.api.with_token(self.keys.user_token(id, roles)) }
    }

    /// Adds a product with this much stock.
    pub(crate) async fn product(&self, stock: i64) -> Value {
        let body = json!({
            "sku": Uuid::now_v7().to_string(), "name": "Green tea", "description": "Loose leaves.",
            "price": { "amount": 350, "currency": "EUR" }, "stock": stock,
        });
        self.admin().post("/api/products", body).await.expect(201)
    }

    /// The stock of a product: on hand, reserved, sold.
    pub(crate) async fn stock(&self, product: &Value) -> [i64; 3] {
        let stock = self.admin().get("/admin/stock").await.expect(200);
        let products = stock["products"].as_array().unwrap();
        let stock = products.iter().find(|stock| stock["product_id"] == product["id"]).unwrap();
        ["on_hand", "reserved", "sold"].map(|column| stock[column].as_i64().unwrap())
    }

    /// The types of the commands that payment-service received for the order, in the order of arrival.
    pub(crate) fn commands(&self, order: &Value) -> Vec<String> {
        let received = self.stubs.received.lock().unwrap();
        let commands = received.iter().filter(|event| event["subject"] == order["id"]);
        commands.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for the first command of this kind for the order.
    pub(crate) async fn command(&self, order: &Value, kind: &str) -> Value {
        let kind = format!("payment.{kind}.v1");
        eventually(&format!("{kind} arrives"), async || {
            let received = self.stubs.received.lock().unwrap();
            let matches = |event: &&Value| event["subject"] == order["id"] && event["type"] == kind.as_str();
            received.iter().find(matches).cloned()
        })
        .await
    }

    /// An event of payment-service about the order's payment, with `fields` added to its data.
    pub(crate) fn event(&self, order: &Value, kind: &str, fields: Value) -> Event {
        let mut data = json!({ "payment_id": order["payment_id"], "order_id": order["id"] });
        let version = if kind == "captured" { 2 } else { 1 };
        if version == 2 {
            data["amount"] = order["total"].clone();
        }
        for (name, value) in fields.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        let kind = format!("payment.{kind}.v{version}");
        Event::new(PAYMENTS, &kind, order["id"].as_str().unwrap(), data)
    }

    /// Delivers an event as payment-service would.
    pub(crate) async fn deliver(&self, event: &Event) -> Reply {
        let token = self.keys.service_token(PAYMENTS, SERVICE, None);
        self.replica.api.with_token(token).send(Method::POST, "/messages", Some(&event.to_json())).await
    }

    /// Delivers an event of this kind, which must be accepted.
    pub(crate) async fn payment(&self, order: &Value, kind: &str) {
        self.payment_with(order, kind, json!({})).await;
    }

    pub(crate) async fn payment_with(&self, order: &Value, kind: &str, fields: Value) {
        let reply = self.deliver(&self.event(order, kind, fields)).await;
        assert_eq!(reply.status, 204, "{kind}: {reply:?}");
    }

    /// Pays an order as payment-service would: waits for each command and answers it.
    pub(crate) async fn pay(&self, order: &Value) {
        self.command(order, "authorize").await;
        self.payment(order, "authorized").await;
        self.command(order, "capture").await;
        self.payment(order, "captured").await;
    }

    pub(crate) fn set_user_service_down(&self, down: bool) {
        self.stubs.user_service_is_down.store(down, Ordering::Relaxed);
    }
}

async fn replica(database: &str, registry: &str, keys: &Keys) -> Replica {
    let config = Config {
        http: HttpConfig::for_tests(),
        platform: keys.platform(SERVICE, CALLS, registry),
        messages: MessagesUrl::Http,
        database: DbConfig::at(database),
        seed_products: false,
        max_awaiting_payment: Some(20),
    };
    let (api, handle) = run(app::build(config).await.unwrap());
    Replica { api, handle }
}

impl Deref for Person {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Person {
    /// The same person at another replica.
    pub(crate) fn at(&self, replica: &Replica) -> Self {
        let mut moved = self.clone();
        moved.api.base.clone_from(&replica.api.base);
        moved
    }

    /// POST without a key or a body.
    pub(crate) async fn post_empty(&self, path: &str) -> Reply {
        self.send(Method::POST, path, None).await
    }

    /// Places an order of one line.
    pub(crate) async fn place(&self, product: &Value, quantity: i64) -> Value {
        self.post("/api/orders", cart(product, quantity)).await.expect(201)
    }

    pub(crate) async fn cancel(&self, order: &Value) -> Reply {
        self.post_empty(&format!("{}/cancel", path(order))).await
    }

    /// The order as it is now.
    pub(crate) async fn order(&self, order: &Value) -> Value {
        self.get(&path(order)).await.expect(200)
    }

    /// Asserts the order's status, with its reason in parentheses if it has one.
    pub(crate) async fn assert_status(&self, order: &Value, status: &str) {
        let order = self.order(order).await;
        let reason = order["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
        assert_eq!(format!("{}{reason}", order["status"].as_str().unwrap()), status);
    }
}

pub(crate) fn path(order: &Value) -> String {
    format!("/api/orders/{}", order["id"].as_str().unwrap())
}
