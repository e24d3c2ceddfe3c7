//! A simple HTTP client for tests.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use actix_web::rt;
use actix_web::web::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::http::IDEMPOTENCY_KEY;
use crate::service::{Server, ServerHandle};

/// A client of one server, with the token of a person or a service, or with none.
#[derive(Clone)]
pub struct Api {
    /// `http://host:port`.
    pub base: String,
    pub token: Option<String>,
    headers: Vec<(String, String)>,
    client: awc::Client,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    /// `null` if the body is not JSON.
    pub body: Value,
}

/// A new value for [`Api::with_key`].
pub fn key() -> String {
    Uuid::now_v7().to_string()
}

/// Runs `server` in the background until its handle stops it or the test ends.
pub fn run(server: Server) -> (Api, ServerHandle) {
    let running = (Api::at(format!("http://{}", server.address())), server.handle());
    rt::spawn(server.run());
    running
}

impl Api {
    /// The server at `base`, such as `http://127.0.0.1:8080`, without a token.
    pub fn at(base: impl Into<String>) -> Self {
        let client = awc::Client::builder().timeout(Duration::from_secs(40)).finish();
        Self { base: base.into(), token: None, headers: Vec::new(), client }
    }

    /// The server at `port` of this machine.
    pub fn local(port: u16) -> Self {
        Self::at(format!("http://127.0.0.1:{port}"))
    }

    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The same, with one more header in every request.
    pub fn with(&self, name: &str, value: impl Into<String>) -> Self {
        let mut changed = self.clone();
        changed.headers.push((name.to_owned(), value.into()));
        changed
    }

    /// The same, with this idempotency key in every request.
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        self.with(IDEMPOTENCY_KEY, key)
    }

    /// A request with token and headers, not sent yet; for streaming responses.
    pub fn request(&self, method: Method, path: &str) -> awc::ClientRequest {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        self.headers
            .iter()
            .fold(request, |request, (name, value)| request.append_header((name.as_str(), value.as_str())))
    }

    /// `None` without a complete response.
    pub async fn try_send(&self, method: Method, path: &str, body: Option<&Value>) -> Option<Reply> {
        let request = self.request(method, path);
        let sent = match body {
            Some(body) => request.send_json(body),
            None => request.send(),
        };
        read(sent).await.ok()
    }

    /// # Panics
    /// Without a complete response, like every method below.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let reply = self.try_send(method.clone(), path, body).await;
        reply.unwrap_or_else(|| panic!("no complete answer to {method} {path}"))
    }

    /// Sends `body` as it is; [`Self::with`] sets its content type.
    pub async fn send_text(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let reply = read(self.request(method, path).send_body(body.into())).await;
        reply.unwrap_or_else(|why| panic!("no complete answer to {path}: {why}"))
    }

    pub async fn try_get(&self, path: &str) -> Option<Reply> {
        self.try_send(Method::GET, path, None).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    /// The body of the response to a GET, of any status.
    pub async fn text(&self, path: &str) -> String {
        self.get(path).await.text()
    }

    /// Sends a POST with a new idempotency key, unless [`Self::with_key`] gave one.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        let keyed = self.headers.iter().any(|(name, _)| name == IDEMPOTENCY_KEY);
        match keyed {
            true => self.send(Method::POST, path, Some(&body)).await,
            false => self.with_key(key()).send(Method::POST, path, Some(&body)).await,
        }
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PUT, path, Some(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, Some(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None).await
    }
}

impl Reply {
    /// The body.
    ///
    /// # Panics
    /// If the status is another.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.body
    }

    /// The header's value, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Asserts a complete problem document (RFC 9457) with this code and without internal details; returns
    /// the invalid fields that it lists.
    pub fn expect_problem(&self, status: u16, code: &str) -> Vec<String> {
        let body = &self.body;
        assert_eq!((self.status, &body["code"]), (status, &code.into()), "{body}");
        assert_eq!(self.header(CONTENT_TYPE.as_str()), "application/problem+json");
        assert_eq!(body["status"], status, "{body}");
        for member in ["type", "title", "detail", "service", "timestamp", "request_id"] {
            assert!(!body[member].is_null(), "{member} is missing: {body}");
        }
        let text = body.to_string().to_lowercase();
        for internal in ["sql", "panicked", "127.0.0.1", "src/", "os error", "awc", "reqwest"] {
            assert!(!text.contains(internal), "{internal:?} leaks: {text}");
        }
        let errors = body["errors"].as_array().into_iter().flatten();
        errors.map(|error| error["field"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

async fn read(sent: awc::SendClientRequest) -> Result<Reply, String> {
    let mut response = sent.await.map_err(|error| error.to_string())?;
    let bytes = response.body().limit(64 << 20).await.map_err(|error| error.to_string())?;
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), bytes, body })
}
