//! `dns://`: every address of a name is an instance, as for headless services on Kubernetes and
//! `docker compose --scale`.
//!
//! Replicas do not register. Names are looked up every two seconds, because the system's resolver does not
//! return a time to live. Health checks and the circuit breaker notice a lost replica earlier.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use super::{Instance, Instances, Registry, RegistryError};

const POLL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The name and port of each service: `a-service=a-host:3001;b-service=b-host:3011`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsRegistry(BTreeMap<String, String>);

impl FromStr for DnsRegistry {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut names = BTreeMap::new();
        for service in list.split(';').filter(|part| !part.is_empty()) {
            let (service, name) =
                service.split_once('=').ok_or_else(|| format!("{service:?}: write service=name:port"))?;
            let named = Instance::parse("", &format!("http://{name}")).map_err(|error| error.to_string())?;
            names.insert(service.to_owned(), named.authority().to_owned());
        }
        Ok(Self(names))
    }
}

/// Each instance has its address as id.
async fn look_up(name: &str) -> Result<Vec<Instance>, RegistryError> {
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host(name)).await;
    let found = found.map_err(|_| RegistryError::Unavailable("the name server is slow".to_owned()))?;
    let found = found.map_err(|error| RegistryError::Unavailable(error.to_string()))?;
    let mut instances: Vec<_> =
        found.map(|address| Instance::new(&address.to_string(), &format!("http://{address}"))).collect();
    instances.sort();
    instances.dedup();
    Ok(instances)
}

#[async_trait(?Send)]
impl Registry for DnsRegistry {
    async fn instances(&self, service: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
        if seen.is_some() {
            tokio::time::sleep(POLL).await;
        }
        let instances = match self.0.get(service) {
            Some(name) => look_up(name).await?,
            None => Vec::new(),
        };
        Ok(Instances { instances, ..Instances::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::conformance::finds_listed_instances;

    #[actix_web::test]
    async fn every_address_of_a_name_is_an_instance() {
        let dns: DnsRegistry = "a=127.0.0.1:3001;b=127.0.0.2:3001".parse().unwrap();
        let listed = [Instance::new("127.0.0.1:3001", "http://127.0.0.1:3001")];
        finds_listed_instances(&dns, "a", &listed).await;
        let dns: DnsRegistry = "a=localhost:3001".parse().unwrap();
        assert!(dns.instances("a", None).await.unwrap().instances.contains(&listed[0]));
    }

    #[actix_web::test]
    async fn a_name_without_an_address_is_an_error_so_that_the_last_known_ones_stay() {
        let dns: DnsRegistry = "a=nobody.invalid:3001".parse().unwrap();
        assert!(matches!(dns.instances("a", None).await, Err(RegistryError::Unavailable(_))));
    }

    #[test]
    fn anything_but_a_name_and_a_port_is_refused() {
        for bad in ["a", "a=", "a=h:x", "a=h:1/path", "a=u@h:1"] {
            assert!(bad.parse::<DnsRegistry>().is_err(), "{bad}");
        }
    }
}
