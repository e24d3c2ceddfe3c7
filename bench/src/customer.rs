//! A well-behaved client: it sends idempotency keys, and sends again until it is answered.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Reply, key};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

/// The time limit of a request with all its retries.
pub const TIMEOUT: Duration = Duration::from_secs(90);
const BETWEEN_RETRIES: Duration = Duration::from_millis(200);
const PASSWORD: &str = "a long enough one";

/// A person with an account, who stays logged in.
pub struct Customer {
    pub id: String,
    email: String,
    password: String,
    gateway: Api,
    token: RefCell<String>,
}

/// May be sent many times.
pub struct Request {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

pub struct Outcome {
    /// `None` if it was given up.
    pub reply: Option<Reply>,
    pub retries: u32,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: None }
    }

    /// A POST with a new idempotency key.
    pub fn post(path: impl Into<String>, body: Option<Value>) -> Self {
        Self { method: Method::POST, path: path.into(), headers: vec![("idempotency-key", key())], body }
    }

    /// Adds `Prefer: wait`: the response comes when the outcome is known, at the latest after `seconds`.
    pub fn waiting(mut self, seconds: u32) -> Self {
        self.headers.push(("prefer", format!("wait={seconds}")));
        self
    }

    /// Sends it once. `None` without an answer.
    pub async fn send_once(&self, api: &Api) -> Option<Reply> {
        let api = self.headers.iter().fold(api.clone(), |api, (name, value)| api.with(name, value));
        api.try_send(self.method.clone(), &self.path, self.body.as_ref()).await
    }

    /// Sends it until the answer is final.
    async fn send(&self, api: &Api) -> Outcome {
        let begun = Instant::now();
        let mut retries = 0;
        loop {
            let reply = self.send_once(api).await;
            if reply.as_ref().is_some_and(is_final) {
                return Outcome { reply, retries };
            }
            if begun.elapsed() > TIMEOUT {
                let last = reply.map_or_else(|| "no answer".to_owned(), |reply| reply.body.to_string());
                eprintln!("{self} is given up: {last}");
                return Outcome { reply: None, retries };
            }
            retries += 1;
            tokio::time::sleep(BETWEEN_RETRIES).await;
        }
    }
}

impl Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Whether the same request, sent again, would get the same answer.
fn is_final(reply: &Reply) -> bool {
    let in_progress = reply.status == 409 && reply.body["code"] == "idempotency_in_progress";
    reply.status < 500 && reply.status != 429 && !in_progress
}

/// Whether the token has expired, or an admin's login is too old for this request.
fn needs_login(reply: &Reply) -> bool {
    reply.status == 401 || reply.body["code"] == "recent_login_required"
}

impl Customer {
    /// `None` if the stack does not answer.
    pub async fn register(gateway: &Api) -> Option<Self> {
        let email = format!("{}@example.com", Uuid::now_v7());
        let body = json!({ "email": email, "name": "Somebody", "password": PASSWORD });
        let reply = Request::post("/api/users", Some(body)).send(gateway).await.reply?;
        (reply.status == 201).then_some(())?;
        Self::log_in(gateway, &email, PASSWORD).await
    }

    /// `None` if the login is refused, or the stack does not answer.
    pub async fn log_in(gateway: &Api, email: &str, password: &str) -> Option<Self> {
        let customer = Self {
            id: String::new(),
            email: email.to_owned(),
            password: password.to_owned(),
            gateway: gateway.clone(),
            token: RefCell::default(),
        };
        customer.renew().await?;
        let me = customer.send(&Request::get("/api/users/me")).await.reply?;
        Some(Self { id: me.body["id"].as_str()?.to_owned(), ..customer })
    }

    pub fn token(&self) -> String {
        self.token.borrow().clone()
    }

    fn api(&self) -> Api {
        self.gateway.with_token(&*self.token.borrow())
    }

    /// Sends it once; logs in again if that is needed.
    pub async fn send_once(&self, request: &Request) -> Option<Reply> {
        let reply = request.send_once(&self.api()).await?;
        if !needs_login(&reply) {
            return Some(reply);
        }
        self.renew().await?;
        request.send_once(&self.api()).await
    }

    /// Sends it until the answer is final; logs in again if that is needed.
    pub async fn send(&self, request: &Request) -> Outcome {
        let first = request.send(&self.api()).await;
        let is_refused = first.reply.as_ref().is_some_and(needs_login);
        if !is_refused || self.renew().await.is_none() {
            return first;
        }
        let second = request.send(&self.api()).await;
        Outcome { retries: first.retries + second.retries, ..second }
    }

    /// The pages of the console, with a session of this person. `None` if the login is refused, or without an answer.
    pub async fn at_the_console(&self, console: &Api) -> Option<Api> {
        let page = console.with("sec-fetch-site", "same-origin");
        let login = json!({ "email": self.email, "password": self.password });
        let reply = page.try_send(Method::POST, "/api/session", Some(&login)).await?;
        let cookie = reply.headers.get("set-cookie")?.to_str().ok()?.split(';').next()?;
        Some(page.with("cookie", cookie))
    }

    async fn renew(&self) -> Option<()> {
        let body = json!({ "email": self.email, "password": self.password });
        let login = Request { headers: Vec::new(), ..Request::post("/api/sessions", Some(body)) };
        let reply = login.send(&self.gateway).await.reply?;
        self.token.replace(reply.body["access_token"].as_str()?.to_owned());
        Some(())
    }
}
