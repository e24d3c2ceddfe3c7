//! `static://`: a fixed list of instances.

use std::collections::BTreeMap;
use std::str::FromStr;

use async_trait::async_trait;

use super::{Instance, Instances, Registry, RegistryError};

/// Listed instances: `a-service=http://a:1,http://b:1;b-service=http://c:1`. `http://a:1#2.0` has the version 2.0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedRegistry(BTreeMap<String, Vec<Instance>>);

impl FromStr for ListedRegistry {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut services = BTreeMap::new();
        for service in list.split(';').filter(|part| !part.is_empty()) {
            let (name, urls) = service
                .split_once('=')
                .ok_or_else(|| format!("{service:?}: write service=http://host:port,http://host:port"))?;
            let instances = urls.split(',').map(listed).collect::<Result<Vec<_>, _>>()?;
            services.insert(name.to_owned(), instances);
        }
        Ok(Self(services))
    }
}

/// The id is `host:port`.
fn listed(listed: &str) -> Result<Instance, String> {
    let (url, version) = listed.split_once('#').unwrap_or((listed, ""));
    let instance = Instance::parse("", url).map_err(|error| error.to_string())?;
    let instance = Instance { id: instance.authority().to_owned(), ..instance };
    Ok(if version.is_empty() { instance } else { instance.with("version", version) })
}

#[async_trait(?Send)]
impl Registry for ListedRegistry {
    async fn instances(&self, service: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
        if seen.is_some() {
            std::future::pending::<()>().await;
        }
        let instances = self.0.get(service).cloned().unwrap_or_default();
        Ok(Instances { instances, ..Instances::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::conformance::finds_listed_instances;

    #[actix_web::test]
    async fn a_list_is_parsed_and_a_malformed_address_is_refused() {
        let listed: ListedRegistry = "a=http://h:1,http://h:2#2.0;b=http://i:1".parse().unwrap();
        let second = Instance::new("h:2", "http://h:2").with("version", "2.0");
        let there = [Instance::new("h:1", "http://h:1"), second];
        finds_listed_instances(&listed, "a", &there).await;
        for bad in ["a", "a=h:1", "a=ftp://h:1", "a="] {
            assert!(bad.parse::<ListedRegistry>().is_err(), "{bad}");
        }
    }
}
