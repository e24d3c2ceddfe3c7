//! HTTP as a client sees it: JSON in, status and JSON out.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use futures_util::Stream;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::eventually;

/// One server, as one person (or nobody) uses it.
#[derive(Clone)]
pub struct Api {
    /// `http://host:port`.
    pub base: String,
    /// The bearer token to send.
    pub token: Option<String>,
    client: awc::Client,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `null` if it is not JSON.
    pub body: Value,
}

/// Somebody who is logged in.
pub struct Person {
    /// The user's id.
    pub id: String,
    /// The address to log in with.
    pub email: String,
    /// The gateway, with this person's token.
    pub api: Api,
}

/// A new idempotency key.
pub fn key() -> (&'static str, String) {
    ("idempotency-key", Uuid::now_v7().to_string())
}

/// The password of everybody whom [`Person::register`] makes.
const PASSWORD: &str = "a long enough one";

impl Api {
    /// The server at `port` of this machine.
    pub fn at(port: u16) -> Self {
        let client = awc::Client::builder().timeout(Duration::from_secs(40)).finish();
        Self { base: format!("http://127.0.0.1:{port}"), token: None, client }
    }

    /// The same server, used with `token`.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Sends a request; `None` if no complete answer came.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&Value>,
    ) -> Option<Reply> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.insert_header((*name, value.as_str()));
        }
        let sent = match body {
            Some(body) => request.send_json(body).await,
            None => request.send().await,
        };
        Self::read(sent.ok()?).await
    }

    /// Sends a body as it is.
    ///
    /// # Panics
    /// When no complete answer comes.
    pub async fn send_text(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> Reply {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.insert_header((*name, value.as_str()));
        }
        let sent = request.send_body(body.to_owned()).await.unwrap_or_else(|why| panic!("{path}: {why}"));
        Self::read(sent).await.unwrap_or_else(|| panic!("no complete answer to {path}"))
    }

    async fn read<S>(mut response: awc::ClientResponse<S>) -> Option<Reply>
    where
        S: Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin,
    {
        let bytes = response.body().limit(64 << 20).await.ok()?;
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Some(Reply { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When no complete answer comes.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&Value>,
    ) -> Reply {
        let reply = self.try_send(method.clone(), path, headers, body).await;
        reply.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// GET, if an answer comes.
    pub async fn try_get(&self, path: &str) -> Option<Reply> {
        self.try_send(Method::GET, path, &[], None).await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], None).await
    }

    /// GET of what is not JSON.
    ///
    /// # Panics
    /// When no complete answer comes.
    pub async fn text(&self, path: &str) -> String {
        let sent = self.client.get(format!("{}{path}", self.base)).send().await;
        let mut response = sent.unwrap_or_else(|why| panic!("{path}: {why}"));
        let bytes = response.body().limit(1 << 20).await.unwrap_or_else(|why| panic!("{path}: {why}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// POST with a new idempotency key.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, &[key()], Some(&body)).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PUT, path, &[], Some(&body)).await
    }
}

impl Reply {
    /// The body, if the status is as expected.
    ///
    /// # Panics
    /// When it is not.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The header `name`, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts that this is the problem `code`, complete, and tells nothing of the inside.
    ///
    /// # Panics
    /// When it is not.
    pub fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, &self.body["code"]), (status, &code.into()), "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        for field in ["type", "title", "status", "detail", "service", "timestamp", "request_id"] {
            assert!(!self.body[field].is_null(), "{field} is missing: {}", self.body);
        }
        let text = self.body.to_string().to_lowercase();
        for inside in ["sqlx", "sqlite", "panicked", "127.0.0.1", "src/", "os error", "awc", "reqwest"] {
            assert!(!text.contains(inside), "{inside:?} leaks: {text}");
        }
    }
}

impl Person {
    /// Registers somebody new and logs in.
    pub async fn register(api: &Api) -> Self {
        let email = format!("{}@example.com", Uuid::now_v7());
        let body = json!({ "email": email, "name": "Somebody", "password": PASSWORD });
        api.post("/api/users", body).await.expect(201);
        Self::log_in(api, &email, PASSWORD).await
    }

    /// Logs in.
    pub async fn log_in(api: &Api, email: &str, password: &str) -> Self {
        let tokens =
            api.post("/api/sessions", json!({ "email": email, "password": password })).await.expect(201);
        let api = api.with_token(tokens["access_token"].as_str().unwrap_or_default());
        let me = api.get("/api/users/me").await.expect(200);
        Self { id: me["id"].as_str().unwrap_or_default().to_owned(), email: email.to_owned(), api }
    }

    /// The first product of the catalogue.
    pub async fn product(&self) -> Value {
        self.api.get("/api/products?limit=1").await.expect(200)["products"][0].clone()
    }

    /// Orders `quantity` of the product and pays with `token`; answers at once.
    pub async fn place(&self, product: &Value, quantity: u32, token: &str) -> Value {
        let lines = json!([{ "product_id": product["id"], "quantity": quantity }]);
        self.api.post("/api/orders", json!({ "lines": lines, "payment_token": token })).await.expect(201)
    }

    /// The order, as it is now.
    pub async fn order(&self, order: &Value) -> Value {
        self.api.get(&order_path(order)).await.expect(200)
    }

    /// Cancels the order.
    pub async fn cancel(&self, order: &Value) -> Reply {
        self.api.send(Method::POST, &format!("{}/cancel", order_path(order)), &[], None).await
    }

    /// The order when it has `status`.
    pub async fn order_reaches(&self, order: &Value, status: &str) -> Value {
        let what = format!("order {} is {status}", order["id"]);
        eventually(&what, Duration::from_secs(60), || async {
            let order = self.api.try_get(&order_path(order)).await?.body;
            (order["status"] == status).then_some(order)
        })
        .await
    }
}

fn order_path(order: &Value) -> String {
    format!("/api/orders/{}", order["id"].as_str().unwrap_or_default())
}
