//! A registry of which only the instances in some networks are believed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use ipnet::IpNet;

use super::{Instance, Instances, Registry, RegistryError};

/// The networks in which instances may be; shared, so that they can be changed.
pub type Networks = Arc<ArcSwap<Vec<IpNet>>>;

/// Drops instances outside the networks from the answers of `registry`.
pub struct Within {
    registry: Rc<dyn Registry>,
    networks: Networks,
    /// The addresses that were dropped. Each is logged once.
    dropped: Mutex<BTreeSet<String>>,
}

impl Within {
    pub fn new(registry: Rc<dyn Registry>, networks: Networks) -> Self {
        Self { registry, networks, dropped: Mutex::default() }
    }

    fn believes(&self, service: &str, instance: &Instance) -> bool {
        let believes = is_within(&instance.url, &self.networks.load());
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if !believes && dropped.len() < 1000 && dropped.insert(instance.url.clone()) {
            log::warn!(peer_service = service, url = instance.url; "an instance outside the networks of this stack is ignored");
        }
        believes
    }
}

/// Whether requests may be sent to `url`: a base URL with an address in `networks`. Host names without a
/// dot belong to the stack's own network.
pub fn is_within(url: &str, networks: &[IpNet]) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    let in_network = match url.host() {
        Some(url::Host::Ipv4(address)) => contain(networks, IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => contain(networks, IpAddr::V6(address)),
        Some(url::Host::Domain(name)) => !name.contains('.'),
        None => false,
    };
    matches!(url.scheme(), "http" | "https") && bare && in_network
}

fn contain(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[async_trait(?Send)]
impl Registry for Within {
    async fn register(&self, service: &str, instance: &Instance) -> Result<Duration, RegistryError> {
        self.registry.register(service, instance).await
    }

    async fn deregister(&self, service: &str, id: &str) -> Result<(), RegistryError> {
        self.registry.deregister(service, id).await
    }

    async fn instances(&self, service: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
        let mut found = self.registry.instances(service, seen).await?;
        found.instances.retain(|instance| self.believes(service, instance));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::ListedRegistry;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    #[test]
    fn only_bare_addresses_in_the_networks_are_allowed() {
        let networks = networks(&["10.0.0.0/8", "::1/128"]);
        for url in ["http://10.1.2.3:80", "http://[::1]:80", "http://a-host:3001", "https://10.1.2.3:80"] {
            assert!(is_within(url, &networks), "{url}");
        }
        for url in [
            "http://8.8.8.8:80",
            "http://[::2]:80",
            "http://example.com:80",
            "ftp://10.1.2.3:80",
            "http://10.1.2.3:80/path",
            "http://me@10.1.2.3:80",
            "x",
        ] {
            assert!(!is_within(url, &networks), "{url}");
        }
    }

    #[actix_web::test]
    async fn an_instance_outside_the_networks_is_dropped_until_they_contain_it() {
        let listed: ListedRegistry = "a=http://10.0.0.1:1,http://8.8.8.8:1".parse().unwrap();
        let allowed = Networks::new(ArcSwap::from_pointee(networks(&["10.0.0.0/8"])));
        let registry = Within::new(Rc::new(listed), allowed.clone());
        let urls = async || {
            let found = registry.instances("a", None).await.unwrap().instances;
            found.into_iter().map(|instance| instance.url).collect::<Vec<_>>()
        };
        assert_eq!(urls().await, ["http://10.0.0.1:1"]);
        allowed.store(Arc::new(networks(&["0.0.0.0/0"])));
        assert_eq!(urls().await.len(), 2);
    }
}
