//! The service with its neighbours, and a verb for each thing that people and payments do.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use order_service::app;
use order_service::config::Config;
use serde_json::{Value, json};
use shared::auth::{Secret, ServiceKey, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims};
use shared::config::Variable as _;
use shared::db::{DbConfig, testing};
use shared::messages::{Event, MessagesUrl};
use shared::registry::RegistryUrl;
use shared::service::{HttpConfig, ServerHandle};
use shared::stack::StackConfig;
use uuid::Uuid;

use crate::stubs::{self, Neighbours};

/// One replica, its neighbours, and its database, in which more replicas can be started.
pub(crate) struct World {
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) replica: Replica,
    pub(crate) database: String,
    keys: SigningKeys,
    service_key: ServiceKey,
    registry: String,
}

/// A running replica.
pub(crate) struct Replica {
    pub(crate) base: String,
    pub(crate) handle: ServerHandle,
}

/// The service as one person (or nobody) uses it.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) base: String,
    pub(crate) id: Uuid,
    token: Option<String>,
    client: awc::Client,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

/// A world in a new SQLite database: for what does not depend on the database.
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

/// Polls until `probe` gives a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn key() -> (&'static str, String) {
    ("idempotency-key", Uuid::now_v7().to_string())
}

/// A cart of one line.
pub(crate) fn cart(product: &Value, quantity: i64) -> Value {
    json!({
        "lines": [{ "product_id": product["id"], "quantity": quantity }],
        "payment_token": "tok_visa",
    })
}

impl World {
    pub(crate) async fn start(database: String) -> Self {
        let keys = SigningKeys::from_pem(&Secret::new(pem())).unwrap();
        let service_key = ServiceKey::from_base64(&Secret::new(STANDARD.encode([7; 32]))).unwrap();
        let neighbours = Arc::new(Neighbours::default());
        let (users, payments) = stubs::start(&neighbours, &keys);
        let registry = format!("static://user-service=http://{users};payment-service=http://{payments}");
        let replica = replica(&database, &registry, &service_key).await;
        Self { neighbours, replica, database, keys, service_key, registry }
    }

    /// One more replica on the same database.
    pub(crate) async fn another_replica(&self) -> Replica {
        replica(&self.database, &self.registry, &self.service_key).await
    }

    pub(crate) fn nobody(&self) -> Api {
        Api {
            base: self.replica.base.clone(),
            id: Uuid::nil(),
            token: None,
            client: awc::Client::builder().timeout(Duration::from_secs(40)).finish(),
        }
    }

    pub(crate) fn customer(&self) -> Api {
        self.person(&["customer"])
    }

    pub(crate) fn admin(&self) -> Api {
        self.person(&["customer", "admin"])
    }

    fn person(&self, roles: &[&str]) -> Api {
        let id = Uuid::now_v7();
        let claims = UserClaims {
            iss: "user-service".to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: id,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            sid: Uuid::now_v7(),
            iat: 0,
            exp: 4_000_000_000,
        };
        Api { id, token: Some(self.keys.sign(&claims).unwrap()), ..self.nobody() }
    }

    /// A product of which there is so much.
    pub(crate) async fn product(&self, stock: i64) -> Value {
        let body = json!({
            "sku": Uuid::now_v7().to_string(), "name": "Green tea", "description": "Loose leaves.",
            "price": { "amount": 350, "currency": "EUR" }, "stock": stock,
        });
        self.admin().post("/api/products", body).await.expect(201)
    }

    /// Where the goods of a product are: on hand, reserved, sold.
    pub(crate) async fn goods(&self, product: &Value) -> [i64; 3] {
        let stock = self.admin().get("/admin/stock").await.expect(200);
        let products = stock["products"].as_array().unwrap();
        let stock = products.iter().find(|stock| stock["product_id"] == product["id"]).unwrap();
        ["on_hand", "reserved", "sold"].map(|place| stock[place].as_i64().unwrap())
    }

    /// The kinds of command that payment-service received about the order, in the order of arrival.
    pub(crate) fn commands(&self, order: &Value) -> Vec<String> {
        let received = self.neighbours.received.lock().unwrap();
        let about = received.iter().filter(|event| event["subject"] == order["id"]);
        about.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// The first command of this kind about the order, once it has arrived.
    pub(crate) async fn command(&self, order: &Value, kind: &str) -> Value {
        let kind = format!("payment.{kind}.v1");
        eventually(&format!("{kind} arrives"), || async {
            let received = self.neighbours.received.lock().unwrap();
            let wanted = |event: &&Value| event["subject"] == order["id"] && event["type"] == kind.as_str();
            received.iter().find(wanted).cloned()
        })
        .await
    }

    /// An event of payment-service about the order's payment.
    pub(crate) fn event(&self, order: &Value, kind: &str, more: Value) -> Event {
        let mut data = json!({ "payment_id": order["payment_id"], "order_id": order["id"] });
        let version = if kind == "captured" { 2 } else { 1 };
        if version == 2 {
            data["amount"] = order["total"].clone();
        }
        for (name, value) in more.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        let kind = format!("payment.{kind}.v{version}");
        Event::new("payment-service", &kind, order["id"].as_str().unwrap(), data)
    }

    /// Sends an event as payment-service would.
    pub(crate) async fn deliver(&self, event: &Event) -> Reply {
        let token = self.service_key.mint("payment-service", "order-service", None);
        let api = Api { token: Some(token), ..self.nobody() };
        api.send(Method::POST, "/messages", &[], Some(event.to_json())).await
    }

    /// Payment-service says this about the order's payment.
    pub(crate) async fn payment(&self, order: &Value, kind: &str) {
        self.payment_with(order, kind, json!({})).await;
    }

    pub(crate) async fn payment_with(&self, order: &Value, kind: &str, more: Value) {
        let reply = self.deliver(&self.event(order, kind, more)).await;
        assert_eq!(reply.status, 204, "{kind}: {reply:?}");
    }

    /// Pays an order as payment-service would: answers each command once it arrived.
    pub(crate) async fn pay(&self, order: &Value) {
        self.command(order, "authorize").await;
        self.payment(order, "authorized").await;
        self.command(order, "capture").await;
        self.payment(order, "captured").await;
    }

    /// Takes user-service away, or brings it back.
    pub(crate) fn users_are_away(&self, away: bool) {
        self.neighbours.users_are_away.store(away, Ordering::Relaxed);
    }
}

async fn replica(database: &str, registry: &str, service_key: &ServiceKey) -> Replica {
    let config = Config {
        http: HttpConfig::for_tests(),
        stack: StackConfig {
            registry: RegistryUrl::parse(registry).unwrap(),
            service_key: service_key.clone(),
            advertise_url: None,
        },
        messages: MessagesUrl::Http,
        database: DbConfig::at(database),
        seed_products: false,
    };
    let server = app::build(config).await.unwrap();
    let (base, handle) = (format!("http://{}", server.address()), server.handle());
    actix_web::rt::spawn(server.run());
    Replica { base, handle }
}

impl Api {
    /// The same person at another replica.
    pub(crate) fn at(&self, replica: &Replica) -> Self {
        Self { base: replica.base.clone(), ..self.clone() }
    }

    /// A request with this person's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> awc::ClientRequest {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<Value>,
    ) -> Reply {
        let request = headers.iter().fold(self.request(method, path), |request, (name, value)| {
            request.insert_header((*name, value.as_str()))
        });
        let mut response = match body {
            Some(body) => request.send_json(&body).await.unwrap(),
            None => request.send().await.unwrap(),
        };
        let bytes = response.body().await.unwrap();
        Reply { status: response.status().as_u16(), headers: response.headers().clone(), bytes }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], None).await
    }

    /// POST with a new idempotency key.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, &[key()], Some(body)).await
    }

    /// POST without a key or a body.
    pub(crate) async fn poke(&self, path: &str) -> Reply {
        self.send(Method::POST, path, &[], None).await
    }

    /// Places an order of one line.
    pub(crate) async fn place(&self, product: &Value, quantity: i64) -> Value {
        self.post("/api/orders", cart(product, quantity)).await.expect(201)
    }

    pub(crate) async fn cancel(&self, order: &Value) -> Reply {
        self.poke(&format!("{}/cancel", path(order))).await
    }

    /// The order as it is now.
    pub(crate) async fn order(&self, order: &Value) -> Value {
        self.get(&path(order)).await.expect(200)
    }

    /// Asserts the order's status, and its reason if there is one.
    pub(crate) async fn sees(&self, order: &Value, status: &str) {
        let order = self.order(order).await;
        let reason = order["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
        assert_eq!(format!("{}{reason}", order["status"].as_str().unwrap()), status);
    }
}

pub(crate) fn path(order: &Value) -> String {
    format!("/api/orders/{}", order["id"].as_str().unwrap())
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The body, if the status is as expected.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json());
        self.json()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts that this is the problem `code`, telling nothing of the inside; answers what it names.
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Vec<String> {
        let body = self.json();
        assert_eq!((self.status, &body["code"]), (status, &json!(code)), "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!((&body["service"], &body["status"]), (&json!("order-service"), &json!(status)));
        for inside in ["sql", "panicked", "127.0.0.1", "src/"] {
            assert!(!body.to_string().to_lowercase().contains(inside), "{inside:?} leaks: {body}");
        }
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// An Ed25519 private key for tests, in PEM.
fn pem() -> String {
    let mut der =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend([9; 32]);
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}
