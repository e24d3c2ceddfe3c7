//! Somebody who uses the shop as a good client does: with keys, and again until there is an answer.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Reply, key};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

/// How long anything is tried.
pub const PATIENCE: Duration = Duration::from_secs(90);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
const PASSWORD: &str = "a long enough one";

/// A person with an account, who stays logged in.
pub struct Customer {
    /// The user's id.
    pub id: String,
    email: String,
    password: String,
    gateway: Api,
    token: RefCell<String>,
}

/// One request, which may be sent many times.
pub struct Errand {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

/// What became of an errand.
pub struct Done {
    /// The answer, unless it was given up.
    pub reply: Option<Reply>,
    /// How often it was sent again.
    pub retries: u32,
}

impl Errand {
    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: None }
    }

    /// A change under a key of its own, so that it can be sent again.
    pub fn post(path: impl Into<String>, body: Option<Value>) -> Self {
        Self { method: Method::POST, path: path.into(), headers: vec![("idempotency-key", key())], body }
    }

    /// Waits for the outcome, for so many seconds at most.
    pub fn waiting(mut self, seconds: u32) -> Self {
        self.headers.push(("prefer", format!("wait={seconds}")));
        self
    }

    async fn send(&self, api: &Api) -> Option<Reply> {
        let api = self.headers.iter().fold(api.clone(), |api, (name, value)| api.with(name, value));
        api.try_send(self.method.clone(), &self.path, self.body.as_ref()).await
    }

    /// Sends it until there is an answer that would not be another one later.
    pub async fn insist(&self, api: &Api, patience: Duration) -> Done {
        let begun = Instant::now();
        let mut retries = 0;
        loop {
            let reply = self.send(api).await;
            if reply.as_ref().is_some_and(is_final) {
                return Done { reply, retries };
            }
            if begun.elapsed() > patience {
                let told = reply.map_or_else(|| "no answer".to_owned(), |reply| reply.body.to_string());
                eprintln!("{self} is given up: {told}");
                return Done { reply: None, retries };
            }
            retries += 1;
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}

impl Display for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Whether the same request, sent again, would be answered alike. A token that has expired is not.
fn is_final(reply: &Reply) -> bool {
    let in_progress = reply.status == 409 && reply.body["code"] == "idempotency_in_progress";
    reply.status < 500 && reply.status != 429 && !in_progress
}

impl Customer {
    /// Somebody new. `None` if the stack does not answer.
    pub async fn register(gateway: &Api) -> Option<Self> {
        let email = format!("{}@example.com", Uuid::now_v7());
        let body = json!({ "email": email, "name": "Somebody", "password": PASSWORD });
        let reply = Errand::post("/api/users", Some(body)).insist(gateway, PATIENCE).await.reply?;
        (reply.status == 201).then_some(())?;
        Self::log_in(gateway, &email, PASSWORD).await
    }

    /// Somebody who has an account. `None` if they may not log in, or the stack does not answer.
    pub async fn log_in(gateway: &Api, email: &str, password: &str) -> Option<Self> {
        let customer = Self {
            id: String::new(),
            email: email.to_owned(),
            password: password.to_owned(),
            gateway: gateway.clone(),
            token: RefCell::default(),
        };
        customer.renew().await?;
        let me = customer.insist(&Errand::get("/api/users/me")).await.reply?;
        Some(Self { id: me.body["id"].as_str()?.to_owned(), ..customer })
    }

    /// The token that is good now.
    pub fn token(&self) -> String {
        self.token.borrow().clone()
    }

    fn api(&self) -> Api {
        self.gateway.with_token(&*self.token.borrow())
    }

    /// Sends it once; logs in again if the token was too old.
    pub async fn try_once(&self, errand: &Errand) -> Option<Reply> {
        let reply = errand.send(&self.api()).await?;
        if reply.status != 401 {
            return Some(reply);
        }
        self.renew().await?;
        errand.send(&self.api()).await
    }

    /// Sends it until there is an answer; logs in again if the token was too old.
    pub async fn insist(&self, errand: &Errand) -> Done {
        let first = errand.insist(&self.api(), PATIENCE).await;
        let is_refused = first.reply.as_ref().is_some_and(|reply| reply.status == 401);
        if !is_refused || self.renew().await.is_none() {
            return first;
        }
        let second = errand.insist(&self.api(), PATIENCE).await;
        Done { retries: first.retries + second.retries, ..second }
    }

    async fn renew(&self) -> Option<()> {
        let body = json!({ "email": self.email, "password": self.password });
        let login = Errand { headers: Vec::new(), ..Errand::post("/api/sessions", Some(body)) };
        let reply = login.insist(&self.gateway, PATIENCE).await.reply?;
        self.token.replace(reply.body["access_token"].as_str()?.to_owned());
        Some(())
    }
}
