//! The gateway's admin port: registry and routes. Reading needs no token.

use std::time::Duration;

use actix_web::http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::http::{Call, Response, exchange};

use crate::domain::{Route, Service};
use crate::error::Error;

const TIMEOUT: Duration = Duration::from_millis(1500);

#[derive(Clone)]
pub struct Gateway {
    base: String,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Registry {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Routes {
    routes: Vec<Route>,
}

impl Gateway {
    pub fn new(base: &url::Url) -> Self {
        Self { base: base.as_str().trim_end_matches('/').to_owned(), timeout: TIMEOUT }
    }

    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub fn url(&self) -> &str {
        &self.base
    }

    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        self.read::<Registry>("/registry/services").await.map(|registry| registry.services)
    }

    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        self.read::<Routes>("/routes").await.map(|routes| routes.routes)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        Ok(self.send(Method::GET, path, None, None).await?.json()?)
    }

    /// A change, with an admin's token.
    pub async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        token: &str,
    ) -> Result<Response, Error> {
        self.send(method, path, body, Some(token)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        token: Option<&str>,
    ) -> Result<Response, Error> {
        let mut call = Call::new(method, format!("{}{path}", self.base), self.timeout);
        if let Some(body) = body {
            call = call.json(body.to_string());
        }
        if let Some(token) = token {
            call = call.bearer(token.to_owned());
        }
        exchange(call).await.map_err(|error| Error::Exchange("gateway".to_owned(), error))
    }
}
