//! Service discovery: registers replicas, and finds the replicas of other services.
//!
//! | `REGISTRY_URL` | registry |
//! |---|---|
//! | `memory://host:port` | the gateway at that admin address, in memory with [`Leases`] |
//! | `consul://host:port` | the Consul agent at that address; `/prefix` separates systems that share a Consul |
//! | `dns://service=name:port;other=…` | DNS: every address of the name is an instance |
//! | `static://service=http://a:1,http://b:1#2.0;other=…` | none: the instances are listed, with their versions |
//!
//! A replica renews its registration with a [`Heartbeat`]. A [`Directory`] watches the replicas of other
//! services; while the registry is unavailable it keeps the last known ones.

#[cfg(feature = "consul")]
mod consul; // consul://
mod directory; // watches the replicas of services
mod dns; // dns://
mod heartbeat; // renews this replica's registration
mod leases; // the in-memory registry
mod listed; // static://
mod memory; // memory://, over HTTP
mod within; // believes instances in some networks only

#[cfg(any(test, feature = "testing"))]
pub mod conformance;

pub use crate::balancer::{Instance, InvalidUrl};
#[cfg(feature = "consul")]
pub use consul::ConsulRegistry;
pub use directory::Directory;
pub use dns::DnsRegistry;
pub use heartbeat::Heartbeat;
pub use leases::{LEASE, Leases};
pub use listed::ListedRegistry;
pub use memory::MemoryRegistry;
pub use within::{Networks, Within, is_within};

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

#[cfg(feature = "consul")]
use crate::auth::Reread;
use crate::client::TokenSource;
#[cfg(feature = "consul")]
use crate::config::Secret;
use crate::config::{Variable, Vars};

/// A registry client. Used on the main thread only.
#[async_trait(?Send)]
pub trait Registry {
    /// Registers or renews `instance`; returns how long the registration is valid. Does nothing where
    /// replicas do not register themselves (DNS, list).
    async fn register(&self, _service: &str, _instance: &Instance) -> Result<Duration, RegistryError> {
        Ok(Duration::from_secs(3600))
    }

    /// Removes the instance; succeeds if it is not registered.
    async fn deregister(&self, _service: &str, _id: &str) -> Result<(), RegistryError> {
        Ok(())
    }

    /// The instances of `service`; none if it is unknown. With `seen`, the result of an earlier call, it
    /// first waits for a change, up to a limit of the registry.
    async fn instances(&self, service: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instances {
    /// Sorted by id.
    pub instances: Vec<Instance>,
    /// The ids of those that fail the registry's own health check: a hint, because the registry may have lost
    /// its way to a replica that we reach, or the other way round.
    pub failing: BTreeSet<String>,
    /// The registry's version of this result; 0 if it has none.
    pub version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry did not respond, or responded with a server error.
    #[error("the registry does not answer: {0}")]
    Unavailable(String),
    /// The registry refused the request.
    #[error("the registry refused: {0}")]
    Refused(String),
}

/// A parsed `REGISTRY_URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// `host:port` of the gateway's admin listener.
    Memory(String),
    #[cfg(feature = "consul")]
    Consul(ConsulRegistry),
    Dns(DnsRegistry),
    Static(ListedRegistry),
}

impl RegistryUrl {
    /// Reads `REGISTRY_URL` and `CONSUL_HTTP_TOKEN`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let url = vars.or("REGISTRY_URL", "memory://127.0.0.1:9090", "where replicas are registered");
        #[cfg(feature = "consul")]
        {
            let token = vars.optional::<String>("CONSUL_HTTP_TOKEN", "ACL token to show Consul");
            if let Self::Consul(consul) = url {
                let file = vars.file_of("CONSUL_HTTP_TOKEN").filter(|_| token.is_some());
                return Self::Consul(match file.and_then(|file| Reread::open(&file).ok()) {
                    Some(file) => consul.with_token_in(file),
                    None => consul.with_token(token.map(Secret::new)),
                });
            }
        }
        url
    }

    /// A client of the registry; `tokens` authenticates changes.
    pub fn open(&self, tokens: &TokenSource) -> Rc<dyn Registry> {
        match self {
            Self::Memory(address) => Rc::new(MemoryRegistry::new(address, tokens.clone())),
            #[cfg(feature = "consul")]
            Self::Consul(consul) => Rc::new(consul.clone()),
            Self::Dns(dns) => Rc::new(dns.clone()),
            Self::Static(listed) => Rc::new(listed.clone()),
        }
    }
}

impl Variable for RegistryUrl {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("memory", address)) if Instance::parse("", &format!("http://{address}")).is_ok() => {
                Ok(Self::Memory(address.to_owned()))
            }
            #[cfg(feature = "consul")]
            Some(("consul", agent)) => agent.parse().map(Self::Consul),
            Some(("dns", names)) => names.parse().map(Self::Dns),
            Some(("static", list)) => list.parse().map(Self::Static),
            _ => Err(format!(
                "{text:?}: write memory://host:port, consul://host:port (if built with it), dns://… or static://…"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
