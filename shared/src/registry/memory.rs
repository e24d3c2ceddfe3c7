//! `memory://`: client of the in-memory registry in the gateway, over its admin port.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::{Instance, Instances, Registry, RegistryError};
use crate::client::TokenSource;
use crate::http::{Call, exchange};

const POLL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);
const AUDIENCE: &str = "gateway";

pub struct MemoryRegistry {
    address: String,
    tokens: TokenSource,
}

#[derive(Deserialize)]
struct Registered {
    lease_s: u64,
}

#[derive(Deserialize)]
struct Found {
    instances: Vec<Instance>,
}

impl MemoryRegistry {
    /// `address`: `host:port` of the gateway's admin listener.
    pub fn new(address: &str, tokens: TokenSource) -> Self {
        Self { address: address.to_owned(), tokens }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<Vec<u8>, RegistryError> {
        let url = format!("http://{}{path}", self.address);
        let mut call = Call::new(method.clone(), url, TIMEOUT);
        if method != Method::GET {
            call = call.bearer(self.tokens.mint(AUDIENCE, None));
        }
        if let Some(body) = body {
            call = call.json(body.to_string());
        }
        let answer = exchange(call).await.map_err(|error| RegistryError::Unavailable(error.to_string()))?;
        match answer.status {
            status if status.is_success() => Ok(answer.body.to_vec()),
            StatusCode::NOT_FOUND if method == Method::DELETE => Ok(Vec::new()),
            status if status.is_server_error() => Err(RegistryError::Unavailable(status.to_string())),
            status => Err(RegistryError::Refused(status.to_string())),
        }
    }
}

fn path(service: &str, id: &str) -> String {
    format!("/registry/services/{service}/instances/{id}")
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(body).map_err(|error| RegistryError::Refused(error.to_string()))
}

#[async_trait(?Send)]
impl Registry for MemoryRegistry {
    async fn register(&self, service: &str, instance: &Instance) -> Result<Duration, RegistryError> {
        let body = json!({ "url": instance.url, "metadata": instance.metadata });
        let answer = self.call(Method::PUT, &path(service, &instance.id), Some(body)).await?;
        Ok(Duration::from_secs(parsed::<Registered>(&answer)?.lease_s))
    }

    async fn deregister(&self, service: &str, id: &str) -> Result<(), RegistryError> {
        self.call(Method::DELETE, &path(service, id), None).await.map(drop)
    }

    async fn instances(&self, service: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
        if seen.is_some() {
            tokio::time::sleep(POLL).await;
        }
        let answer = self.call(Method::GET, &format!("/registry/services/{service}"), None).await?;
        Ok(Instances { instances: parsed::<Found>(&answer)?.instances, ..Instances::default() })
    }
}
