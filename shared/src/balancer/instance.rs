//! Id, URL and metadata of a registered replica.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A registered replica of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instance {
    /// Unique within the service.
    pub id: String,
    /// Base URL: `http://host:port`, with TLS `https://host:port`.
    pub url: String,
    /// `version`, `started_at`, `weight`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not http://host:port or https://host:port")]
pub struct InvalidUrl(String);

impl Instance {
    pub fn new(id: &str, url: &str) -> Self {
        Self { id: id.to_owned(), url: url.trim_end_matches('/').to_owned(), metadata: BTreeMap::new() }
    }

    /// Parses a URL from outside: accepts only `http://host:port` and `https://host:port`; the usual port may
    /// be omitted.
    pub fn parse(id: &str, url: &str) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl(url.to_owned());
        let parsed = url::Url::parse(url).map_err(|_| invalid())?;
        let bare = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        let nobody = parsed.username().is_empty() && parsed.password().is_none();
        match (parsed.scheme(), parsed.host(), parsed.port_or_known_default()) {
            (scheme @ ("http" | "https"), Some(host), Some(port)) if bare && nobody && port > 0 => {
                Ok(Self::new(id, &format!("{scheme}://{host}:{port}")))
            }
            _ => Err(invalid()),
        }
    }

    /// Adds metadata. A restarted instance is distinguished by its `started_at`.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        // `split_once` takes ten times as long.
        let authority = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        authority.unwrap_or(&self.url)
    }

    /// The metadata `version`.
    pub fn version(&self) -> Option<&str> {
        self.metadata.get("version").map(String::as_str)
    }

    /// [`weight_of`] its metadata.
    pub fn weight(&self) -> f64 {
        weight_of(&self.metadata)
    }
}

/// The metadata `weight`; 1 unless that is a number from 0.1 to 100.
pub fn weight_of(metadata: &BTreeMap<String, String>) -> f64 {
    let weight = metadata.get("weight").and_then(|weight| weight.parse::<f64>().ok());
    weight.filter(|weight| (0.1..=100.0).contains(weight)).unwrap_or(1.0)
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
            ("https://a-service", "https://a-service:443"),
        ] {
            assert_eq!(Instance::parse("1", url), Ok(Instance::new("1", read)), "{url}");
        }
        for bad in [
            "",
            "a:1",
            "a-service:3001",
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
