//! Who is there: the replicas of each service, by one of several registries.
//!
//! | URL | kept by |
//! |---|---|
//! | `memory://host:port` | the gateway at that admin address, with [`Leases`] |
//! | `consul://host:port` | Consul, by its agent at that address; `/prefix` if others use it too |
//! | `dns://service=name:port;other=…` | the name server: every address of the name is an instance |
//! | `static://service=http://a:1,http://b:1;other=…` | nobody: they are listed |
//!
//! A service keeps itself registered with a [`Heartbeat`]; a [`Directory`] follows the replicas of the
//! services that somebody asks for, and goes on with the last known ones while the registry is away.

#[cfg(feature = "consul")]
mod consul; // consul://
mod directory; // follows the replicas of services
mod dns; // dns://
mod heartbeat; // keeps this replica registered
mod leases; // the registry in memory
mod listed; // static://
mod memory; // memory://, by HTTP

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

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture};

use crate::client::TokenSource;
#[cfg(feature = "consul")]
use crate::config::Secret;
use crate::config::{Variable, Vars};

/// A registry. Used on the main thread only.
pub trait Registry {
    /// Registers `instance` of `service`, or renews it; answers for how long that holds. Where somebody
    /// else knows who is there, this does nothing.
    fn register<'a>(
        &'a self,
        _service: &'a str,
        _instance: &'a Instance,
    ) -> LocalBoxFuture<'a, Result<Duration, RegistryError>> {
        async { Ok(Duration::from_secs(3600)) }.boxed_local()
    }

    /// Takes the instance out; it is no error if it is not there.
    fn deregister<'a>(
        &'a self,
        _service: &'a str,
        _id: &'a str,
    ) -> LocalBoxFuture<'a, Result<(), RegistryError>> {
        async { Ok(()) }.boxed_local()
    }

    /// The instances of `service`. With `seen`, what an earlier call answered, it waits until they are
    /// others, or for a while.
    fn instances<'a>(
        &'a self,
        service: &'a str,
        seen: Option<&'a Instances>,
    ) -> LocalBoxFuture<'a, Result<Instances, RegistryError>>;
}

/// The instances of a service, at one version of the registry's knowledge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instances {
    /// Who is there, sorted by id.
    pub instances: Vec<Instance>,
    /// Which version, if the registry counts them.
    pub version: u64,
}

/// Why a registry could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It did not answer.
    #[error("the registry does not answer: {0}")]
    Unavailable(String),
    /// It refused.
    #[error("the registry refused: {0}")]
    Refused(String),
}

/// Which registry to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// The one in the gateway's memory, at this address of its admin port.
    Memory(String),
    /// Consul.
    #[cfg(feature = "consul")]
    Consul(ConsulRegistry),
    /// The addresses of names.
    Dns(DnsRegistry),
    /// The listed instances.
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
                return Self::Consul(consul.with_token(token.map(Secret::new)));
            }
        }
        url
    }

    /// Connects to it; `tokens` makes the service tokens that changes need.
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

    fn placeholder() -> Self {
        Self::Static(ListedRegistry::default())
    }
}

#[cfg(test)]
mod tests;
