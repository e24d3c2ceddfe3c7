//! `consul://`: client of a Consul agent's HTTP API (1.8 or newer).
//!
//! - **Registration.** First a query whether the agent knows this replica unchanged; only if not, a
//!   registration. So a renewal only reads (a registration would reset the health check), and an agent that
//!   has lost its data gets a new registration.
//! - **Health.** The agent calls `/health/ready` every 10 s; it only connects to a replica with mutual TLS. The
//!   initial status is passing, because a replica registers only when it serves. Consul deregisters it after a
//!   minute of failures.
//! - **Discovery** returns all instances, with blocking queries, and which of them fail the agent's check.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Instance, Instances, LEASE, Registry, RegistryError};
use crate::auth::Reread;
use crate::config::Secret;
use crate::http::{Call, Response, exchange};

/// Duration of a blocking query. Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(3);
/// Metadata of an instance with TLS: Consul stores an address, and no URL.
const SCHEME: &str = "scheme";

/// Parsed from `host:port` or `host:port/prefix`. With a prefix, the service `name` is registered as
/// `prefix-name`, so that several systems can share a Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulRegistry {
    address: String,
    /// Empty, or ends with a hyphen.
    prefix: String,
    token: Option<Token>,
}

/// It may be replaced while the program runs.
#[derive(Clone)]
struct Token(Arc<Reread<Secret>>);

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Token {}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A service instance in the agent's API, in requests and responses.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registration {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename(serialize = "Name"))]
    service: String,
    address: String,
    port: u16,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    node: Node,
    service: Registration,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

impl FromStr for ConsulRegistry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        Instance::parse("", &format!("http://{address}")).map_err(|error| error.to_string())?;
        if !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(format!("{prefix:?}: a prefix has letters, digits and hyphens"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}-") };
        Ok(Self { address: address.to_owned(), prefix, token: None })
    }
}

impl ConsulRegistry {
    /// Sends this ACL token, if there is one.
    pub fn with_token(self, token: Option<Secret>) -> Self {
        Self { token: token.map(|token| Token(Arc::new(Reread::fixed(token)))), ..self }
    }

    /// Sends the ACL token that this file holds at that time.
    pub fn with_token_in(self, file: Reread<Secret>) -> Self {
        Self { token: Some(Token(Arc::new(file))), ..self }
    }

    fn name(&self, service: &str) -> String {
        format!("{}{service}", self.prefix)
    }

    fn id(&self, service: &str, id: &str) -> String {
        format!("{}-{id}", self.name(service))
    }

    /// Calls the agent. 404 is not an error.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        time: Duration,
    ) -> Result<Response, RegistryError> {
        let mut call = Call::new(method, format!("http://{}/v1/{path}", self.address), time);
        if let Some(token) = &self.token {
            call = call.header("x-consul-token", token.0.get().expose().to_owned());
        }
        if let Some(body) = body {
            call = call.json(body);
        }
        let answer = exchange(call).await.map_err(|error| RegistryError::Unavailable(error.to_string()))?;
        let why = || format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
        match answer.status {
            StatusCode::NOT_FOUND => Ok(answer),
            status if status.is_success() => Ok(answer),
            status if status.is_server_error() => Err(RegistryError::Unavailable(why())),
            _ => Err(RegistryError::Refused(why())),
        }
    }

    fn registration(&self, service: &str, instance: &Instance) -> Result<Registration, RegistryError> {
        let url = url::Url::parse(&instance.url).ok();
        let host = url.as_ref().and_then(url::Url::host_str);
        let port = url.as_ref().and_then(url::Url::port_or_known_default);
        let (Some(host), Some(port)) = (host, port) else {
            return Err(RegistryError::Refused(format!("{:?} is not http://host:port", instance.url)));
        };
        let mut meta = instance.metadata.clone();
        if instance.url.starts_with("https") {
            meta.insert(SCHEME.to_owned(), "https".to_owned());
        }
        Ok(Registration {
            id: self.id(service, &instance.id),
            service: self.name(service),
            // Only a URL has brackets around an IPv6 address.
            address: host.trim_matches(['[', ']']).to_owned(),
            port,
            meta: Some(meta),
        })
    }

    async fn knows(&self, registration: &Registration) -> Result<bool, RegistryError> {
        let path = format!("agent/service/{}", registration.id);
        let answer = self.call(Method::GET, &path, None, TIMEOUT).await?;
        Ok(answer.status.is_success() && parsed::<Registration>(&answer)? == *registration)
    }

    async fn put_registration(&self, registration: &Registration, url: &str) -> Result<(), RegistryError> {
        let mut body = json!(registration);
        body["Check"] = json!({
            // A new check id for each registration. An existing check would keep its last status, which
            // is critical after a crash.
            "CheckID": Uuid::now_v7(),
            "Name": "ready",
            "Interval": "10s",
            "Timeout": "5s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m",
        });
        // The agent has no certificate of the stack.
        match url.strip_prefix("https://") {
            Some(authority) => body["Check"]["TCP"] = json!(authority),
            None => body["Check"]["HTTP"] = json!(format!("{url}/health/ready")),
        }
        let path = "agent/service/register?replace-existing-checks=true";
        self.call(Method::PUT, path, Some(body.to_string()), TIMEOUT).await.map(drop)
    }
}

#[async_trait(?Send)]
impl Registry for ConsulRegistry {
    async fn register(&self, service: &str, instance: &Instance) -> Result<Duration, RegistryError> {
        let registration = self.registration(service, instance)?;
        if !self.knows(&registration).await? {
            self.put_registration(&registration, &instance.url).await?;
        }
        Ok(LEASE)
    }

    async fn deregister(&self, service: &str, id: &str) -> Result<(), RegistryError> {
        let path = format!("agent/service/deregister/{}", self.id(service, id));
        self.call(Method::PUT, &path, None, TIMEOUT).await.map(drop)
    }

    async fn instances(&self, service: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
        let seen = seen.map_or(0, |seen| seen.version);
        let mut path = format!("health/service/{}", self.name(service));
        let mut time = TIMEOUT;
        if seen > 0 {
            path.push_str(&format!("?index={seen}&wait={}s", WAIT.as_secs()));
            time += WAIT + WAIT / 16;
        }
        let answer = self.call(Method::GET, &path, None, time).await?;
        let index = answer.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let index = index.ok_or_else(|| RegistryError::Refused("there is no X-Consul-Index".to_owned()))?;
        let mut found = Instances { version: next(seen, index), ..Instances::default() };
        for listed in parsed::<Vec<Listed>>(&answer)? {
            let fails = listed.checks.iter().any(|check| check.status == "critical");
            let Some(instance) = instance(listed.node, listed.service) else { continue };
            if fails {
                found.failing.insert(instance.id.clone());
            }
            found.instances.push(instance);
        }
        found.instances.sort();
        Ok(found)
    }
}

/// The index for the next blocking query. An index that went backwards means that Consul has restarted: 0,
/// so that the next query does not block. Otherwise at least 1, or the query would never block.
fn next(seen: u64, index: u64) -> u64 {
    if index < seen { 0 } else { index.max(1) }
}

fn parsed<'a, T: Deserialize<'a>>(answer: &'a Response) -> Result<T, RegistryError> {
    serde_json::from_slice(&answer.body).map_err(|error| RegistryError::Refused(error.to_string()))
}

/// A service registered without an address has its agent's address.
fn instance(node: Node, service: Registration) -> Option<Instance> {
    let Registration { id, service, address, port, meta } = service;
    let address = if address.is_empty() { node.address } else { address };
    let host = address.parse::<Ipv6Addr>().map_or(address, |address| format!("[{address}]"));
    let short = id.strip_prefix(&format!("{service}-")).unwrap_or(&id);
    let mut metadata = meta.unwrap_or_default();
    let scheme = metadata.remove(SCHEME).unwrap_or_else(|| "http".to_owned());
    match Instance::parse(short, &format!("{scheme}://{host}:{port}")) {
        Ok(instance) => Some(Instance { metadata, ..instance }),
        Err(error) => {
            log::warn!(peer_service = service, instance = id, error:%; "an instance in Consul cannot be used");
            None
        }
    }
}

#[cfg(test)]
mod tests;
