//! One registered replica.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A replica of a service, as a registry knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instance {
    /// Its name, unique within the service.
    pub id: String,
    /// Its base URL: `http://host:port`.
    pub url: String,
    /// What else it tells: `version`, `started_at`, `weight`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// What is not the base URL of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not http://host:port")]
pub struct InvalidUrl(String);

impl Instance {
    /// An instance without metadata.
    pub fn new(id: &str, url: &str) -> Self {
        Self { id: id.to_owned(), url: url.trim_end_matches('/').to_owned(), metadata: BTreeMap::new() }
    }

    /// An instance whose URL comes from outside: `http://host:port` and nothing more; port 80 may be
    /// left out.
    ///
    /// # Errors
    /// [`InvalidUrl`] if it is anything else.
    pub fn parse(id: &str, url: &str) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl(url.to_owned());
        let parsed = url::Url::parse(url).map_err(|_| invalid())?;
        let bare = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        let nobody = parsed.username().is_empty() && parsed.password().is_none();
        match (parsed.scheme(), parsed.host(), parsed.port_or_known_default()) {
            ("http", Some(host), Some(port)) if bare && nobody && port > 0 => {
                Ok(Self::new(id, &format!("http://{host}:{port}")))
            }
            _ => Err(invalid()),
        }
    }

    /// Adds to the metadata. An instance that was restarted differs in `started_at`, so that nobody
    /// takes it for the one before.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// `host:port`, to connect to.
    pub fn authority(&self) -> &str {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, authority)| authority)
    }

    /// Its share among others, by the metadata `weight`: 1 unless it is a number from 0.1 to 100.
    pub fn weight(&self) -> f64 {
        let weight = self.metadata.get("weight").and_then(|weight| weight.parse::<f64>().ok());
        weight.filter(|weight| (0.1..=100.0).contains(weight)).unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_an_instance_is_a_host_and_a_port() {
        for (url, read) in [
            ("http://a-service:3001", "http://a-service:3001"),
            ("http://a-service:3001/", "http://a-service:3001"),
            ("http://a-service", "http://a-service:80"),
            ("http://[::1]:3001", "http://[::1]:3001"),
        ] {
            assert_eq!(Instance::parse("1", url), Ok(Instance::new("1", read)), "{url}");
        }
        for bad in [
            "",
            "a:1",
            "a-service:3001",
            "https://a:1",
            "ftp://a:1",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a:1/path",
            "http://a:1?query",
            "http://a:1#fragment",
            "http://user@a:1",
            "http://:secret@a:1",
        ] {
            assert_eq!(Instance::parse("1", bad), Err(InvalidUrl(bad.to_owned())), "{bad}");
        }
    }
}
